#include "devices/virtio/vhost_user_channel.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/non_blocking.h"

namespace gyre::virtio {
namespace {

// Messages that wait for a back end which does not read: more than a guest makes of one that does.
constexpr std::size_t kMostOutput = 4096;

}  // namespace

std::string_view Name(VhostRequest request) {
  switch (request) {
    case VhostRequest::kGetFeatures:
      return "GET_FEATURES";
    case VhostRequest::kSetFeatures:
      return "SET_FEATURES";
    case VhostRequest::kSetOwner:
      return "SET_OWNER";
    case VhostRequest::kSetMemTable:
      return "SET_MEM_TABLE";
    case VhostRequest::kSetVringNum:
      return "SET_VRING_NUM";
    case VhostRequest::kSetVringAddr:
      return "SET_VRING_ADDR";
    case VhostRequest::kSetVringBase:
      return "SET_VRING_BASE";
    case VhostRequest::kGetVringBase:
      return "GET_VRING_BASE";
    case VhostRequest::kSetVringKick:
      return "SET_VRING_KICK";
    case VhostRequest::kSetVringCall:
      return "SET_VRING_CALL";
    case VhostRequest::kGetProtocolFeatures:
      return "GET_PROTOCOL_FEATURES";
    case VhostRequest::kSetProtocolFeatures:
      return "SET_PROTOCOL_FEATURES";
    case VhostRequest::kGetQueueNum:
      return "GET_QUEUE_NUM";
    case VhostRequest::kSetVringEnable:
      return "SET_VRING_ENABLE";
    case VhostRequest::kGetConfig:
      return "GET_CONFIG";
  }
  return "a message";
}

// A drain may wait for what comes of an answer, or of none.
VhostChannel::VhostChannel(loop::MainLoop& loop, UniqueFd socket, std::int64_t timeout_ns,
                           std::function<void(const std::string& what)> broken)
    : loop_(loop),
      socket_(std::move(socket)),
      timeout_ns_(timeout_ns),
      broken_(std::move(broken)),
      fail_(
          loop,
          [this] {
            const auto tell = broken_;
            tell(trouble_);
          },
          loop::Tier::kIo),
      deadline_(
          loop, loop::ClockType::kRealtime,
          [this] {
            Break(format("does not answer {} within {} ms", Name(expected_.front().request),
                         timeout_ns_ / 1'000'000));
          },
          loop::Tier::kIo),
      watch_(
          loop, socket_.get(), loop::Watch::kRead, [this](unsigned events) { Ready(events); },
          loop::Tier::kIo) {}

void VhostChannel::Break(std::string what) {
  if (!trouble_.empty()) {
    return;
  }
  trouble_ = std::move(what);
  deadline_.Cancel();
  watch_.SetEvents(0);
  fail_.Schedule();
}

void VhostChannel::Tell(VhostRequest request, std::span<const std::byte> payload, std::span<const int> fds) {
  Send(request, acks_ ? kVhostNeedReply : 0, payload, fds);
  if (acks_) {
    Expect({.request = request, .size = sizeof(Le64), .done = [this, request](auto answer) {
              Le64 result;
              std::memcpy(&result, answer.data(), sizeof(result));
              if (result != 0) {
                Break(format("refuses {} ({})", Name(request), result.value()));
              }
            }});
  }
}

void VhostChannel::Ask(VhostRequest request, std::span<const std::byte> payload, std::size_t answer_size,
                       Done done) {
  Send(request, 0, payload, {});
  Expect({.request = request, .size = answer_size, .done = std::move(done)});
}

void VhostChannel::Expect(Expected expected) {
  if (!trouble_.empty()) {
    return;
  }
  expected_.push_back(std::move(expected));
  if (expected_.size() == 1) {
    Restart();
  }
}

void VhostChannel::Restart() { deadline_.Set(loop_.Now(loop::ClockType::kRealtime) + timeout_ns_); }

void VhostChannel::Send(VhostRequest request, std::uint32_t flags, std::span<const std::byte> payload,
                        std::span<const int> fds) {
  if (!trouble_.empty()) {
    return;
  }
  if (output_.size() >= kMostOutput) {
    return Break("does not read what it is told");
  }
  Output message;
  const VhostHeader header{.request = static_cast<std::uint32_t>(request),
                           .flags = kVhostVersion | flags,
                           .size = static_cast<std::uint32_t>(payload.size())};
  message.bytes.resize(sizeof(header) + payload.size());
  std::memcpy(message.bytes.data(), &header, sizeof(header));
  std::ranges::copy(payload, message.bytes.begin() + sizeof(header));
  for (const int fd : fds) {
    message.fds.emplace_back(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!message.fds.back()) {
      return Break(format("cannot be given a descriptor: {}", std::strerror(errno)));
    }
  }
  output_.push_back(std::move(message));
  Flush();
}

void VhostChannel::Flush() {
  while (!output_.empty()) {
    Output& message = output_.front();
    iovec piece{.iov_base = message.bytes.data() + message.sent,
                .iov_len = message.bytes.size() - message.sent};
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * kVhostMostRegions)> control{};
    msghdr what{};
    what.msg_iov = &piece;
    what.msg_iovlen = 1;
    if (!message.fds.empty()) {
      std::array<int, kVhostMostRegions> fds{};
      std::ranges::transform(message.fds, fds.begin(), &UniqueFd::get);
      const std::size_t size = sizeof(int) * message.fds.size();
      what.msg_control = control.data();
      what.msg_controllen = CMSG_SPACE(size);
      cmsghdr* const ancillary = CMSG_FIRSTHDR(&what);
      ancillary->cmsg_level = SOL_SOCKET;
      ancillary->cmsg_type = SCM_RIGHTS;
      ancillary->cmsg_len = CMSG_LEN(size);
      std::memcpy(CMSG_DATA(ancillary), fds.data(), size);
    }
    const ssize_t sent = ::sendmsg(socket_.get(), &what, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (!IsTransient(errno)) {
        const bool closed = errno == EPIPE || errno == ECONNRESET;
        return Break(closed ? "has closed the connection"
                            : format("cannot be told anything: {}", std::strerror(errno)));
      }
      return watch_.SetEvents(loop::Watch::kRead | loop::Watch::kWrite);
    }
    message.fds.clear();  // they went with the first byte
    message.sent += static_cast<std::size_t>(sent);
    if (message.sent == message.bytes.size()) {
      output_.pop_front();
    }
  }
}

void VhostChannel::Ready(unsigned events) {
  if ((events & loop::Watch::kWrite) != 0 && !output_.empty()) {
    Flush();
    if (output_.empty() && trouble_.empty()) {
      watch_.SetEvents(loop::Watch::kRead);
    }
  }
  while (trouble_.empty() && ReadMessage()) {
  }
}

// True if there may be another. Descriptors that come with it, which we ask for nowhere, the kernel closes.
bool VhostChannel::ReadMessage() {
  VhostHeader header;
  std::memcpy(&header, input_.data(), sizeof(header));
  const std::size_t want = have_ < sizeof(header) ? sizeof(header) : sizeof(header) + header.size;
  if (have_ < want) {
    const ssize_t got = ::recv(socket_.get(), input_.data() + have_, want - have_, MSG_DONTWAIT);
    if (got < 0 && IsTransient(errno)) {
      return false;
    }
    if (got <= 0) {
      Break(got == 0 || errno == ECONNRESET ? "has closed the connection"
                                            : format("is gone: {}", std::strerror(errno)));
      return false;
    }
    const bool had_header = have_ >= sizeof(header);
    have_ += static_cast<std::size_t>(got);
    if (have_ < sizeof(header) || (!had_header && !CheckHeader())) {
      return trouble_.empty();
    }
    std::memcpy(&header, input_.data(), sizeof(header));
    if (have_ < sizeof(header) + header.size) {
      return true;
    }
  }
  have_ = 0;
  Expected expected = std::move(expected_.front());
  expected_.pop_front();
  deadline_.Cancel();
  expected.done(std::span(input_).subspan(sizeof(header), header.size));
  if (!expected_.empty() && trouble_.empty()) {
    Restart();
  }
  return true;
}

bool VhostChannel::CheckHeader() {
  VhostHeader header;
  std::memcpy(&header, input_.data(), sizeof(header));
  if (expected_.empty()) {
    Break(format("says something ({}) that nobody has asked for", header.request.value()));
    return false;
  }
  const Expected& expected = expected_.front();
  if (header.request != static_cast<std::uint32_t>(expected.request) ||
      (header.flags & (kVhostVersionMask | kVhostReply)) != (kVhostVersion | kVhostReply)) {
    Break(format("answers {} by message {} with flags {:#x}", Name(expected.request), header.request.value(),
                 header.flags.value()));
    return false;
  }
  if (header.size != expected.size) {
    Break(format("answers {} by {} bytes instead of {}", Name(expected.request), header.size.value(),
                 expected.size));
    return false;
  }
  return true;
}

}  // namespace gyre::virtio
