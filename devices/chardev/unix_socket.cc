#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "devices/chardev/backends.h"
#include "devices/chardev/fd_backend.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/non_blocking.h"
#include "gyre/base/types.h"
#include "gyre/base/unix_listener.h"

namespace gyre::devices {
namespace {

constexpr std::int64_t kRetryNs = 1'000'000'000;
constexpr std::size_t kRingSize = 64 * kKiB;  // bytes of output kept for a late client
// Bytes of input kept of clients that have gone before the guest took them: more than a socket holds.
constexpr std::size_t kMaxLeftOver = 512 * kKiB;
constexpr int kBacklog = 8;

// Where a socket is bound: a path, "@NAME" in the abstract namespace, or nothing.
std::string OwnAddress(int fd) {
  sockaddr_un address = {};
  socklen_t size = sizeof(address);
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      size <= offsetof(sockaddr_un, sun_path)) {
    return {};
  }
  // A path of full length has no end of its own; a name has none ever.
  std::string path(&address.sun_path[0],
                   std::min<std::size_t>(size, sizeof(address)) - offsetof(sockaddr_un, sun_path));
  if (path.front() == '\0') {
    path.front() = '@';
    return path;
  }
  return path.substr(0, path.find('\0'));
}

// One that we have bound ourselves, or one that listened already, whose file is not ours to remove.
class Listener {
 public:
  explicit Listener(UnixListener own) : own_(std::move(own)) {}
  explicit Listener(UniqueFd passed) : passed_(std::move(passed)) {}
  int fd() const { return own_ ? own_->fd() : passed_.get(); }

 private:
  std::optional<UnixListener> own_;
  UniqueFd passed_;
};

// The last kRingSize bytes of a stream, by their position in it.
class OutputRing {
 public:
  void Append(std::span<const std::uint8_t> bytes) {
    if (bytes.size() > kRingSize) {
      end_ += bytes.size() - kRingSize;
      bytes = bytes.last(kRingSize);
    }
    while (!bytes.empty()) {
      const std::size_t at = end_ % kRingSize;
      const auto piece = bytes.first(std::min(bytes.size(), kRingSize - at));
      std::ranges::copy(piece, &bytes_[at]);
      end_ += piece.size();
      bytes = bytes.subspan(piece.size());
    }
  }
  std::uint64_t begin() const { return end_ > kRingSize ? end_ - kRingSize : 0; }
  std::uint64_t end() const { return end_; }
  // What lies in one piece from `position` on.
  std::span<const std::uint8_t> At(std::uint64_t position) const {
    const std::size_t at = position % kRingSize;
    return {&bytes_[at], static_cast<std::size_t>(std::min<std::uint64_t>(end_ - position, kRingSize - at))};
  }

 private:
  // Not filled: pages that no output reaches cost nothing.
  std::unique_ptr<std::uint8_t[]> bytes_ = std::make_unique_for_overwrite<std::uint8_t[]>(kRingSize);
  std::uint64_t end_ = 0;
};

class UnixBackend final : public CharBackend {
 public:
  UnixBackend(loop::MainLoop& loop, Listener listener, std::string path)
      : loop_(loop),
        path_(std::move(path)),
        listener_(std::move(listener)),
        accept_watch_(loop, listener_.fd(), loop::Watch::kRead, [this](unsigned) { OnConnection(); }),
        retry_accept_(loop, loop::ClockType::kRealtime,
                      [this] { accept_watch_.SetEvents(loop::Watch::kRead); }),
        deliver_(loop, [this] { DeliverLeftOver(); }),
        room_(loop, [this] { TellRoom(); }) {}
  UnixBackend(const UnixBackend&) = delete;
  UnixBackend& operator=(const UnixBackend&) = delete;

  std::size_t Write(std::span<const std::uint8_t> bytes) override;
  void SetFrontend(CharFrontend* frontend) override;
  void ResumeInput() override;
  std::string filename() const override { return "unix:" + path_; }
  bool open() const override { return static_cast<bool>(client_.fd); }
  int listener() const override { return listener_.fd(); }

 private:
  void OnConnection();
  void PauseAccepting(int error);
  void OnClient(unsigned ready);
  void OnInput();
  void DeliverLeftOver();
  void Pump();
  void HangUp();
  void DropClient();
  void UpdateEvents();
  void TellRoom();
  void TellOpen();
  // Each byte is for one client: none is forgotten while he reads, and no other one gets it.
  bool stream() const { return frontend_ != nullptr && frontend_->use() == CharUse::kStream; }
  std::size_t StreamRoom() const { return kRingSize - static_cast<std::size_t>(ring_.end() - sent_); }

  loop::MainLoop& loop_;
  const std::string path_;
  const Listener listener_;
  loop::Watch accept_watch_;
  loop::Timer retry_accept_;
  loop::BottomHalf deliver_;
  loop::BottomHalf room_;
  CharFrontend* frontend_ = nullptr;
  OutputRing ring_;

  CharFd client_{.fd = {}, .mode = FdMode::kSocket};
  std::unique_ptr<loop::Watch> client_watch_;
  std::uint64_t sent_ = 0;               // the client's position in the output
  bool told_open_ = false;               // what the frontend knows
  bool gone_ = false;                    // a client has gone since
  bool refused_ = false;                 // a stream's Write took less than all
  bool blocked_ = false;                 // the client's socket takes no more now
  bool wants_input_ = false;             // the frontend has room as far as we know
  bool input_ended_ = false;             // the client has shut its sending side down
  bool out_of_files_ = false;            // and it has been said
  std::vector<std::uint8_t> left_over_;  // input of clients that have gone
  unsigned events_ = 0;
};

// Of a terminal all counts as taken: the ring keeps what a slow client has not got yet, and
// forgets the oldest when it must.
std::size_t UnixBackend::Write(std::span<const std::uint8_t> bytes) {
  if (stream() && bytes.size() > StreamRoom()) {
    bytes = bytes.first(StreamRoom());
    refused_ = true;
  }
  ring_.Append(bytes);
  if (client_.fd && !blocked_) {
    Pump();
  }
  return bytes.size();
}

void UnixBackend::Pump() {
  sent_ = std::max(sent_, ring_.begin());
  while (sent_ < ring_.end()) {
    const ssize_t result = WriteNow(client_, ring_.At(sent_));
    if (result < 0 && errno != EAGAIN) {
      HangUp();
      return;
    }
    if (result <= 0) {
      break;
    }
    sent_ += static_cast<std::uint64_t>(result);
  }
  blocked_ = sent_ < ring_.end();
  UpdateEvents();
  if (refused_ && StreamRoom() != 0) {
    room_.Schedule();
  }
}

void UnixBackend::TellRoom() {
  refused_ = false;
  if (frontend_ != nullptr) {
    frontend_->WriteReady();
  }
}

void UnixBackend::SetFrontend(CharFrontend* frontend) {
  frontend_ = frontend;
  told_open_ = open();
  gone_ = false;
  ResumeInput();
}

void UnixBackend::ResumeInput() {
  wants_input_ = frontend_ != nullptr;
  if (wants_input_ && !left_over_.empty()) {
    deliver_.Schedule();
  }
  UpdateEvents();
}

void UnixBackend::UpdateEvents() {
  if (client_watch_ == nullptr) {
    return;
  }
  const bool reads = wants_input_ && !input_ended_ && left_over_.empty();
  const unsigned events = unsigned{loop::Watch::kHangUp} | (reads ? unsigned{loop::Watch::kRead} : 0U) |
                          (blocked_ ? unsigned{loop::Watch::kWrite} : 0U);
  if (events != events_) {
    events_ = events;
    client_watch_->SetEvents(events);
  }
}

void UnixBackend::OnConnection() {
  UniqueFd fd(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) {
    if (IsShortage(errno)) {
      PauseAccepting(errno);
    }
    return;
  }
  out_of_files_ = false;
  DropClient();
  client_.fd = std::move(fd);
  if (!stream()) {
    sent_ = ring_.begin();
  }
  wants_input_ = frontend_ != nullptr;
  events_ = loop::Watch::kHangUp;
  client_watch_ = std::make_unique<loop::Watch>(loop_, client_.fd.get(), events_,
                                                [this](unsigned ready) { OnClient(ready); });
  accept_watch_.SetEvents(0);  // the next one waits in the backlog
  TellOpen();
  Pump();
}

// Who waits is there all the time: it would be tried again and again.
void UnixBackend::PauseAccepting(int error) {
  if (!std::exchange(out_of_files_, true)) {
    log::Warning("{}: nobody can connect for now: {}", filename(), Error::Sys("accept", error).message());
  }
  accept_watch_.SetEvents(0);
  retry_accept_.Set(loop_.Now(loop::ClockType::kRealtime) + kRetryNs);
}

// Each step may drop the client, and with it the watch that has called us.
void UnixBackend::OnClient(unsigned ready) {
  if ((ready & loop::Watch::kHangUp) != 0) {
    return HangUp();
  }
  if ((ready & loop::Watch::kWrite) != 0 && blocked_) {
    blocked_ = false;
    Pump();
  }
  if (client_.fd && (ready & loop::Watch::kRead) != 0) {
    OnInput();
  }
}

void UnixBackend::OnInput() {
  std::array<std::uint8_t, 4096> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  const std::size_t room = frontend_ != nullptr ? frontend_->ReceiveRoom() : 0;
  if (room == 0) {
    wants_input_ = false;
    UpdateEvents();
    return;
  }
  const ssize_t got = ReadNow(client_, std::span(buffer).first(std::min(room, buffer.size())));
  if (got > 0) {
    frontend_->Receive(std::span(buffer).first(static_cast<std::size_t>(got)));
  } else if (got == 0) {
    // It may still listen, until it hangs up or another one comes.
    input_ended_ = true;
    UpdateEvents();
    accept_watch_.SetEvents(loop::Watch::kRead);
  } else if (errno != EAGAIN) {
    DropClient();
  }
}

// Nobody is at the other end any more; what was said last is kept for the guest,
// so that the next client need not wait until the guest has read it.
void UnixBackend::HangUp() {
  std::array<std::uint8_t, 4096> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  while (left_over_.size() < kMaxLeftOver) {
    const ssize_t got = ReadNow(client_, buffer);
    if (got <= 0) {
      break;
    }
    left_over_.insert(left_over_.end(), buffer.begin(), buffer.begin() + got);
  }
  DropClient();
  ResumeInput();
}

void UnixBackend::DeliverLeftOver() {
  const std::size_t room = frontend_ != nullptr ? frontend_->ReceiveRoom() : 0;
  const std::size_t size = std::min(room, left_over_.size());
  if (size != 0) {
    const std::vector<std::uint8_t> piece(left_over_.begin(),
                                          left_over_.begin() + static_cast<std::ptrdiff_t>(size));
    left_over_.erase(left_over_.begin(), left_over_.begin() + static_cast<std::ptrdiff_t>(size));
    frontend_->Receive(piece);
    TellOpen();
  }
  // Else the guest resumes us when it has read.
  if (left_over_.empty() || (frontend_ != nullptr && frontend_->ReceiveRoom() != 0)) {
    ResumeInput();
  }
}

void UnixBackend::DropClient() {
  const bool was_open = open();
  client_watch_.reset();
  client_.fd.Reset();
  events_ = 0;
  blocked_ = input_ended_ = false;
  accept_watch_.SetEvents(loop::Watch::kRead);
  if (!was_open) {
    return;
  }
  if (stream()) {
    sent_ = ring_.end();  // what he did not take was for him
  }
  if (refused_) {
    room_.Schedule();
  }
  gone_ = true;
  TellOpen();
}

// Not before the guest has got what the one said who has gone.
void UnixBackend::TellOpen() {
  if (frontend_ == nullptr || !left_over_.empty()) {
    return;
  }
  if (std::exchange(gone_, false) && std::exchange(told_open_, false)) {
    frontend_->OpenChanged(false);
  }
  if (open() && !std::exchange(told_open_, true)) {
    frontend_->OpenChanged(true);
  }
}

}  // namespace

Status CheckUnixPath(const std::string& path) {
  if (path.empty() || path.contains('\0')) {
    return Fail(Error::Usage("unix: needs a path after it"));
  }
  if (path.size() > kMaxUnixPath) {
    return Fail(
        Error::Usage(format("unix:{}: a socket's path has at most {} characters", path, kMaxUnixPath)));
  }
  return {};
}

Result<std::unique_ptr<CharBackend>> NewPassedUnixBackend(loop::MainLoop& loop, int fd) {
  UniqueFd listener(fd);
  const auto option = [fd](int name) {
    int value = 0;
    socklen_t size = sizeof(value);
    return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
  };
  if (option(SO_DOMAIN) != AF_UNIX || option(SO_TYPE) != SOCK_STREAM || option(SO_ACCEPTCONN) != 1) {
    return Fail(Error::Usage(format("fd:{}: is no listening Unix stream socket", fd)));
  }
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  SetNonBlocking(fd);
  return std::make_unique<UnixBackend>(loop, Listener(std::move(listener)), OwnAddress(fd));
}

Result<std::unique_ptr<CharBackend>> NewUnixBackend(loop::MainLoop& loop, const std::string& path) {
  TRY(CheckUnixPath(path));
  auto listener =
      TRY(UnixListener::Open({.path = path, .who = format("unix:{}", path), .backlog = kBacklog}));
  return std::make_unique<UnixBackend>(loop, Listener(std::move(listener)), path);
}

}  // namespace gyre::devices
