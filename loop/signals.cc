#include "gyre/loop/signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <optional>
#include <utility>

#include "gyre/base/unique_fd.h"

namespace gyre::loop {

struct SignalWatch::Impl {
  Impl(UniqueFd signal_fd, Handler function) : fd(std::move(signal_fd)), handler(std::move(function)) {}
  void Drain();

  UniqueFd fd;
  Handler handler;
  std::optional<Watch> watch;  // none any more once the SignalWatch is gone
};

void SignalWatch::Impl::Drain() {
  signalfd_siginfo info{};
  // The analyzer takes our caller's weak_ptr::lock for a mutex. The fd is non-blocking besides.
  // NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection)
  while (watch && ::read(fd.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    handler(static_cast<int>(info.ssi_signo), static_cast<int>(info.ssi_pid));
  }
}

Result<std::unique_ptr<SignalWatch>> SignalWatch::Create(EventLoop& loop, std::span<const int> signals,
                                                         Handler handler) {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signo : signals) {
    if (::sigaddset(&set, signo) != 0) {
      return Fail(Error::Sys("sigaddset", errno));
    }
  }
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0) {
    return Fail(Error::Sys("pthread_sigmask", error));
  }
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) {
    return Fail(Error::Sys("signalfd", errno));
  }
  auto impl = std::make_shared<Impl>(std::move(fd), std::move(handler));
  // The watch must not own what owns it; the callback holds on to it for as long as it runs.
  impl->watch.emplace(loop, impl->fd.get(), Watch::kRead, [weak = std::weak_ptr(impl)](unsigned) {
    if (const auto self = weak.lock()) {
      self->Drain();
    }
  });
  return std::unique_ptr<SignalWatch>(new SignalWatch(std::move(impl)));
}

SignalWatch::SignalWatch(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

SignalWatch::~SignalWatch() { impl_->watch.reset(); }

}  // namespace gyre::loop
