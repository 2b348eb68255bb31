#include "devices/chardev/fd_backend.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "gyre/base/log.h"

namespace gyre::devices {
namespace {

bool ReadyNow(int fd, short events) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  return ::poll(&entry, 1, 0) == 1;
}

template <typename Call>
ssize_t Uninterrupted(Call&& call) {
  ssize_t result = -1;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace

ssize_t ReadNow(const CharFd& from, std::span<std::uint8_t> bytes) {
  const int fd = from.fd.get();
  if (from.mode == FdMode::kPolled && !ReadyNow(fd, POLLIN)) {
    errno = EAGAIN;
    return -1;
  }
  if (from.mode == FdMode::kSocket) {
    return Uninterrupted([&] { return ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT); });
  }
  return Uninterrupted([&] { return ::read(fd, bytes.data(), bytes.size()); });
}

ssize_t WriteNow(const CharFd& to, std::span<const std::uint8_t> bytes) {
  const int fd = to.fd.get();
  if (to.mode == FdMode::kSocket) {
    return Uninterrupted([&] { return ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL); });
  }
  if (to.mode == FdMode::kPolled) {
    if (!ReadyNow(fd, POLLOUT)) {
      errno = EAGAIN;
      return -1;
    }
    // A terminal that says it is writable promises no more than one byte.
    bytes = bytes.first(std::min<std::size_t>(bytes.size(), 1));
  }
  return Uninterrupted([&] { return ::write(fd, bytes.data(), bytes.size()); });
}

WindowSize WindowSizeOf(int fd) {
  winsize size = {};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0) {
    return {};
  }
  return {.columns = size.ws_col, .rows = size.ws_row};
}

void IgnoreSigpipe() {
  struct sigaction action = {};
  if (::sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
    action.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &action, nullptr);
  }
}

FdBackend::FdBackend(loop::MainLoop& loop, CharFd input, CharFd output, Options options)
    : loop_(loop), input_(std::move(input)), output_(std::move(output)), options_(std::move(options)) {}

FdBackend::~FdBackend() = default;

void FdBackend::SetFrontend(CharFrontend* frontend) {
  frontend_ = frontend;
  if (frontend != nullptr) {
    ResumeInput();
  }
}

// Only turns the watch on: input comes from the main loop, never from within a
// device's register access.
void FdBackend::ResumeInput() {
  if (reading_ || frontend_ == nullptr || !input_.fd) {
    return;
  }
  reading_ = true;
  if (read_watch_ == nullptr) {
    read_watch_ = std::make_unique<loop::Watch>(loop_, input_.fd.get(), loop::Watch::kRead,
                                                [this](unsigned) { OnReadable(); });
  } else {
    read_watch_->SetEvents(loop::Watch::kRead);
  }
}

void FdBackend::OnReadable() {
  std::array<std::uint8_t, 4096> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  const std::size_t room = frontend_ != nullptr ? frontend_->ReceiveRoom() : 0;
  if (room == 0) {
    reading_ = false;
    read_watch_->SetEvents(0);
    return;
  }
  const ssize_t got = ReadNow(input_, std::span(buffer).first(std::min(room, buffer.size())));
  if (got > 0) {
    frontend_->Receive(std::span(buffer).first(static_cast<std::size_t>(got)));
  } else if (got == 0 || errno != EAGAIN) {
    // The end of the input, or a terminal that has gone: output goes on.
    reading_ = false;
    read_watch_.reset();
    input_.fd.Reset();
  }
}

std::size_t FdBackend::Write(std::span<const std::uint8_t> bytes) {
  if (!output_.fd || (dropping_ && waiting_)) {
    return bytes.size();
  }
  // A terminal wakes its pollers at the end of every write, one that took
  // nothing included: to try again before the watch has spoken would feed it.
  if (waiting_) {
    return 0;
  }
  std::size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t result = WriteNow(output_, bytes.subspan(written));
    if (result > 0) {
      written += static_cast<std::size_t>(result);
      NoteProgress();
      continue;
    }
    if (result < 0 && errno == EAGAIN) {
      WaitForRoom();
      return dropping_ ? bytes.size() : written;
    }
    // A reader that has gone, a full disk: the guest goes on without.
    if (!std::exchange(warned_, true)) {
      log::Warning("console output is lost: {}", std::strerror(errno));  // NOLINT(concurrency-mt-unsafe)
    }
    return bytes.size();
  }
  return written;
}

void FdBackend::WaitForRoom() {
  if (waiting_) {
    return;
  }
  waiting_ = true;
  if (write_watch_ == nullptr) {
    write_watch_ = std::make_unique<loop::Watch>(loop_, output_.fd.get(), loop::Watch::kWrite,
                                                 [this](unsigned) { OnWritable(); });
  } else {
    write_watch_->SetEvents(loop::Watch::kWrite);
  }
  if (options_.drop_after_ns >= 0) {
    if (stall_timer_ == nullptr) {
      stall_timer_ =
          std::make_unique<loop::Timer>(loop_, loop::ClockType::kRealtime, [this] { OnStalled(); });
    }
    if (!dropping_ && !stall_timer_->set()) {
      stall_timer_->Set(loop_.Now(loop::ClockType::kRealtime) + options_.drop_after_ns);
    }
  }
}

void FdBackend::NoteProgress() {
  dropping_ = false;
  if (stall_timer_ != nullptr) {
    stall_timer_->Cancel();
  }
}

// Only a write that takes something ends a stall: a pty may say that it is writable, and refuse.
void FdBackend::OnWritable() {
  // Another writer of the same terminal wakes the watch too, room or none.
  if (!ReadyNow(output_.fd.get(), POLLOUT)) {
    return;
  }
  waiting_ = false;
  write_watch_->SetEvents(0);
  if (frontend_ != nullptr) {
    frontend_->WriteReady();
  }
}

void FdBackend::OnStalled() {
  dropping_ = true;
  if (frontend_ != nullptr) {
    frontend_->WriteReady();
  }
}

}  // namespace gyre::devices
