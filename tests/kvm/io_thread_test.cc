// I/O threads of the real gyred: what serves a disk stands when the VM does, and forgets
// the old guest's requests at a reset, however often and whenever that is.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>

#include "gyre/base/format.h"
#include "gyre/base/unique_fd.h"
#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

// Sends commands and waits for their answers, twenty seconds at most.
class Commands {
 public:
  explicit Commands(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path.data(), path.size());
    for (int i = 0; i < 1000 && !connected_; ++i) {
      fd_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      connected_ = ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
      if (!connected_) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
  }
  // The line with its answer; empty if there was none.
  std::string Run(std::string_view command) {
    const std::string text = format("{{\"execute\": \"{}\", \"id\": {}}}\n", command, ++last_);
    const std::string mark = format("\"id\": {}", last_);
    if (::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
      return {};
    }
    while (true) {
      for (auto end = got_.find('\n'); end != std::string::npos; end = got_.find('\n')) {
        const std::string line = got_.substr(0, end);
        got_.erase(0, end + 1);
        if (line.find(mark) != std::string::npos) {
          return line;
        }
      }
      pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
      std::array<char, 4096> bytes{};
      const ssize_t size =
          ::poll(&entry, 1, 20'000) == 1 ? ::recv(fd_.get(), bytes.data(), bytes.size(), 0) : 0;
      if (size <= 0) {
        return {};
      }
      got_.append(bytes.data(), static_cast<std::size_t>(size));
    }
  }
  bool Succeeds(std::string_view command) { return Run(command).find("\"return\"") != std::string::npos; }

 private:
  UniqueFd fd_;
  bool connected_ = false;
  int last_ = 0;
  std::string got_;
};

class IoThreads : public GyredTest, public testing::WithParamInterface<const char*> {
 protected:
  std::string Image() const { return WriteTempFile("disk", std::string(8 << 20, 'i')); }
  std::string Socket() const { return TempPath("qmp.sock"); }
};

TEST_P(IoThreads, StopsAndResetsFindThemAtWork) {
  // Long enough for all that is done to it; a reset begins it anew.
  auto guest =
      StartGuest("block_bench", {"--iothread", std::string("a,") + GetParam(), "--iothread", "b", "--disk",
                                 "path=" + Image() + ",queues=2,iothread=a:b", "--qmp", "unix:" + Socket(),
                                 "--cmdline", "2500,randwrite:4096:32:2,randread:4096:128:2"});
  ASSERT_TRUE(guest.WaitForOutput("begin\n")) << guest.err();
  Commands qmp(Socket());
  ASSERT_TRUE(qmp.Succeeds("qmp_capabilities"));
  const std::string threads = qmp.Run("query-iothreads");
  EXPECT_NE(threads.find("\"id\": \"a\""), std::string::npos) << threads;
  EXPECT_NE(threads.find("\"id\": \"b\""), std::string::npos) << threads;
  for (int round = 0; round < 40; ++round) {
    ASSERT_TRUE(qmp.Succeeds("stop")) << round;
    ASSERT_TRUE(qmp.Succeeds("cont")) << round;
    if (round % 4 == 0) {
      ASSERT_TRUE(qmp.Succeeds("system_reset")) << round;
    }
  }
  const auto result = guest.Wait();
  EXPECT_GUEST_PASSES(result, "block_bench");
  // "phase OPERATIONS CYCLES KICKS ERRORS ..."
  const auto phases = LinesAfter(result.out, "phase ");
  ASSERT_GE(phases.size(), 2U) << result.Describe();
  for (const std::string& phase : phases) {
    std::size_t at = 0;
    for (int word = 0; word < 3; ++word) {
      at = phase.find(' ', at) + 1;
    }
    EXPECT_EQ(phase.substr(at, 2), "0 ") << phase;
  }
}

INSTANTIATE_TEST_SUITE_P(All, IoThreads, testing::Values("cpus=0", "poll-max-ns=50000"));

}  // namespace
}  // namespace gyre::test
