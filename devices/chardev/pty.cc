#include <fcntl.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): posix_openpt, ptsname_r
#include <termios.h>

#include <array>
#include <cerrno>
#include <utility>

#include "devices/chardev/backends.h"
#include "devices/chardev/fd_backend.h"

namespace gyre::devices {
namespace {

// Nobody has read for so long that nobody is taken to be there.
constexpr std::int64_t kNoReaderNs = 100'000'000;

class PtyBackend final : public FdBackend {
 public:
  PtyBackend(loop::MainLoop& loop, CharFd input, CharFd output, UniqueFd slave, Options options)
      : FdBackend(loop, std::move(input), std::move(output), std::move(options)), slave_(std::move(slave)) {}
  WindowSize size() const override { return WindowSizeOf(slave_.get()); }

 private:
  // Open here too, so that the master never reports a hang-up between clients.
  UniqueFd slave_;
};

}  // namespace

Result<std::unique_ptr<CharBackend>> NewPtyBackend(loop::MainLoop& loop) {
  UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!master) {
    return Fail(Error::Sys("pty: posix_openpt", errno));
  }
  std::array<char, 128> name = {};
  if (::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0 ||
      ::ptsname_r(master.get(), name.data(), name.size()) != 0) {
    return Fail(Error::Sys("pty: unlock", errno));
  }
  UniqueFd slave(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) {
    return Fail(Error::Sys(std::string("pty: open ") + name.data(), errno));
  }
  termios settings = {};
  if (::tcgetattr(slave.get(), &settings) == 0) {
    ::cfmakeraw(&settings);
    ::tcsetattr(slave.get(), TCSANOW, &settings);
  }
  UniqueFd writer(::fcntl(master.get(), F_DUPFD_CLOEXEC, 3));
  if (!writer) {
    return Fail(Error::Sys("pty: dup", errno));
  }
  FdBackend::Options options{.filename = std::string("pty:") + name.data(), .drop_after_ns = kNoReaderNs};
  return std::make_unique<PtyBackend>(loop, CharFd{.fd = std::move(master)}, CharFd{.fd = std::move(writer)},
                                      std::move(slave), std::move(options));
}

}  // namespace gyre::devices
