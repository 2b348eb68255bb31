#include "devices/virtio/vsock_door.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <optional>
#include <string_view>
#include <utility>

#include "devices/virtio/vsock_packet.h"
#include "gyre/base/log.h"
#include "gyre/base/non_blocking.h"
#include "gyre/base/numbers.h"

namespace gyre::virtio {
namespace {

constexpr std::size_t kMostClients = 128;  // that have not said yet what they want
constexpr int kMostAtOnce = 32;
constexpr std::size_t kMostLine = 32;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kLineTimeout = 2 * kSecond;

// "CONNECT 1024\n", in any case of letters, as those who know this socket say it.
std::optional<std::uint32_t> ParsePort(std::string_view line) {
  static constexpr std::string_view kWord = "CONNECT ";
  const auto upper = [](char letter) {
    return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 'a' + 'A') : letter;
  };
  for (std::size_t i = 0; i < kWord.size(); ++i) {
    if (i >= line.size() || upper(line[i]) != kWord[i]) {
      return std::nullopt;
    }
  }
  line.remove_prefix(kWord.size());
  line.remove_suffix(line.ends_with('\n') ? 1 : 0);
  return ParseNumber<std::uint32_t>(line);
}

}  // namespace

VsockDoor::Client::Client(loop::EventLoop& loop, UniqueFd socket, std::int64_t limit, VsockDoor& door)
    : fd(std::move(socket)),
      deadline(limit),
      watch(
          loop, fd.get(), loop::Watch::kRead, [this, &door](unsigned) { door.Serve(*this); },
          loop::Tier::kIo) {}

VsockDoor::VsockDoor(loop::EventLoop& loop, UnixListener listener, std::uint16_t type, Owner& owner)
    : loop_(loop),
      listener_(std::move(listener)),
      type_(type),
      owner_(owner),
      timer_(
          loop, loop::ClockType::kRealtime, [this] { Tick(); }, loop::Tier::kIo),
      watch_(loop, listener_.fd(), loop::Watch::kRead, [this](unsigned) { Accept(); }, loop::Tier::kIo) {}

void VsockDoor::Accept() {
  const std::int64_t now = Now();
  for (int i = 0; i < kMostAtOnce; ++i) {
    if (clients_.size() >= kMostClients) {
      return Pause(now);
    }
    UniqueFd fd = AcceptFrom(listener_.fd());
    if (!fd) {
      if (IsShortage(errno)) {
        log::Warning("vsock: accept: {}; again in a second", Error::Sys("accept", errno).message());
        Pause(now + kSecond);
      }
      return;
    }
    if (owner_.HasRoom()) {
      auto& client = clients_.emplace_back(loop_, std::move(fd), now + kLineTimeout, *this);
      client.self = std::prev(clients_.end());
      timer_.Advance(client.deadline);
    }
  }
}

// Who comes meanwhile waits in the socket's queue. `now`: not before then.
void VsockDoor::Pause(std::int64_t now) {
  resume_ = std::max<std::int64_t>(now, 1);
  watch_.SetEvents(0);
  if (clients_.size() < kMostClients) {
    timer_.Advance(resume_);
  }
}

// Not a byte beyond the line: what is behind it is for the guest.
bool VsockDoor::ReadLine(Client& client) {
  std::array<char, kMostLine> bytes;
  const std::size_t room = kMostLine - client.line.size();
  const ssize_t seen = ::recv(client.fd.get(), bytes.data(), room, MSG_DONTWAIT | MSG_PEEK);
  if (seen <= 0) {
    return seen < 0 && IsTransient(errno);
  }
  const std::string_view text(bytes.data(), static_cast<std::size_t>(seen));
  const std::size_t end = text.find('\n');
  const std::size_t size = end == std::string_view::npos ? text.size() : end + 1;
  if (::recv(client.fd.get(), bytes.data(), size, MSG_DONTWAIT) != static_cast<ssize_t>(size)) {
    return false;
  }
  client.line.append(bytes.data(), size);
  return end == std::string_view::npos && client.line.size() < kMostLine;
}

// One that is too long is none.
bool VsockDoor::ReadMessage(Client& client) {
  std::array<char, kMostLine> bytes;
  const ssize_t size = ::recv(client.fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_TRUNC);
  if (size < 0) {
    return IsTransient(errno);
  }
  if (static_cast<std::size_t>(size) <= bytes.size()) {
    client.line.assign(bytes.data(), static_cast<std::size_t>(size));
    client.line += client.line.ends_with('\n') ? "" : "\n";
  }
  return false;
}

void VsockDoor::Serve(Client& client) {
  if (type_ == kVsockStream ? ReadLine(client) : ReadMessage(client)) {
    return;
  }
  const auto port = client.line.ends_with('\n') ? ParsePort(client.line) : std::nullopt;
  client.watch.SetEvents(0);
  UniqueFd fd = std::move(client.fd);
  clients_.erase(client.self);
  if (resume_ != 0) {
    timer_.Advance(resume_);
  }
  if (port) {
    owner_.Enter(std::move(fd), type_, *port);
  }
}

void VsockDoor::Tick() {
  const std::int64_t now = Now();
  while (!clients_.empty() && clients_.front().deadline <= now) {
    clients_.pop_front();
  }
  if (resume_ != 0 && resume_ <= now && clients_.size() < kMostClients) {
    resume_ = 0;
    watch_.SetEvents(loop::Watch::kRead);
  }
  if (!clients_.empty()) {
    timer_.Advance(clients_.front().deadline);
  }
  if (resume_ != 0 && clients_.size() < kMostClients) {
    timer_.Advance(resume_);
  }
}

}  // namespace gyre::virtio
