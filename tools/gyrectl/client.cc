#include "tools/gyrectl/client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/non_blocking.h"
#include "tools/gyrectl/wait_for.h"

namespace gyre::ctl {
namespace {

// Kept for NextEvent, as text; the oldest go.
constexpr std::size_t kMaxEvents = 4096;
constexpr std::size_t kMaxEventBytes = std::size_t{4} << 20;
constexpr int kBusyMs = 20;  // between attempts at a server whose backlog is full

std::string Reason(int error) { return std::generic_category().message(error); }

Outcome<UniqueFd> ConnectTo(const std::string& address, const Deadline& deadline) {
  sockaddr_un peer = {};
  peer.sun_family = AF_UNIX;
  if (address.empty() || address.size() >= sizeof(peer.sun_path)) {
    return Fail(Exit::kUsage,
                format("{}: a socket's path has 1 to {} characters", address, sizeof(peer.sun_path) - 1));
  }
  std::memcpy(&peer.sun_path[0], address.data(), address.size());
  std::size_t size = sizeof(peer);
  if (address[0] == '@') {
    peer.sun_path[0] = '\0';
    size = offsetof(sockaddr_un, sun_path) + address.size();
  }
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) {
    return Fail(Exit::kRefused, "socket: " + Reason(errno));
  }
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer), static_cast<socklen_t>(size)) != 0) {
    if (!IsTransient(errno)) {
      const bool nobody = errno == ENOENT || errno == ECONNREFUSED;
      std::string text = format("{}: {}", address, Reason(errno));
      return nobody ? Absent(Exit::kNoConnection, std::move(text))
                    : Fail(Exit::kNoConnection, std::move(text));
    }
    if (deadline.passed()) {
      return Fail(Exit::kTimeout, format("{}: the server takes no connection", address));
    }
    ::poll(nullptr, 0, kBusyMs);
  }
  return fd;
}

}  // namespace

Outcome<Client> Client::Connect(const std::string& address, const Deadline& deadline) {
  Client client(TRY(ConnectTo(address, deadline)));
  auto greeting = TRY(client.Receive(deadline));
  if (!greeting) {
    return Fail(Exit::kTimeout, format("{}: no greeting from the server", address));
  }
  if (!MemberOf(*greeting, "QMP").is_object()) {
    return Fail(Exit::kBroken, format("{}: the server does not speak QMP", address));
  }
  client.greeting_ = *std::move(greeting);
  TRY(client.Execute("qmp_capabilities", Json::object(), deadline));
  return client;
}

Outcome<Json> Client::Execute(const std::string& command, const Json& arguments, const Deadline& deadline,
                              int fd) {
  last_error_class_.clear();
  Json request = {{"execute", command}, {"id", ++last_id_}};
  if (!arguments.empty()) {
    request["arguments"] = arguments;
  }
  TRY(Send(ToText(request) + "\r\n", fd, deadline));
  while (true) {
    auto message = TRY(Receive(deadline));
    if (!message) {
      return Fail(Exit::kTimeout, format("{}: no answer in time", command));
    }
    const bool event = message->contains("event");
    const auto id = IntegerOf(*message, "id");
    // The other: of a command that was not waited for any longer.
    if (event || (id && *id > 0 && *id < last_id_)) {
      if (deadline.passed()) {  // without end, they are no answer
        return Fail(Exit::kTimeout, format("{}: no answer in time", command));
      }
      if (event && event_watch_) {
        event_watch_(*message);
      }
      if (event) {
        Keep(*message);
      }
      continue;
    }
    if (message->contains("id") && id != last_id_) {
      return Fail(Exit::kBroken, format("{}: the server answers something else", command));
    }
    if (const Json& error = MemberOf(*message, "error"); error.is_object()) {
      last_error_class_ = TextOf(error, "class", "GenericError");
      return Fail(Exit::kRefused, TextOf(error, "desc", "the server refuses"));
    }
    if (!message->contains("return")) {
      return Fail(Exit::kBroken, format("{}: the server's answer has no result", command));
    }
    return MemberOf(*message, "return");
  }
}

Outcome<std::optional<Json>> Client::NextEvent(const Deadline& deadline) {
  while (events_.empty()) {
    auto message = TRY(Receive(deadline));
    if (!message) {
      return std::nullopt;
    }
    if (message->contains("event")) {
      return message;
    }
    if (deadline.passed()) {  // what is no event may come without end
      return std::nullopt;
    }
  }
  Json event = Json::parse(events_.front(), nullptr, false);
  event_bytes_ -= events_.front().size();
  events_.pop_front();
  return event;
}

void Client::Keep(const Json& event) {
  events_.push_back(ToText(event));
  event_bytes_ += events_.back().size();
  while (events_.size() > kMaxEvents || event_bytes_ > kMaxEventBytes) {
    event_bytes_ -= events_.front().size();
    events_.pop_front();
  }
}

Outcome<std::size_t> Client::SendSome(std::string_view text, int fd) {
  iovec piece = {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  }
  const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  if (sent >= 0) {
    return static_cast<std::size_t>(sent);
  }
  if (IsTransient(errno)) {
    return std::size_t{0};
  }
  return Absent(Exit::kBroken, "the server has hung up: " + Reason(errno));
}

Outcome<void> Client::Send(std::string_view text, int fd, const Deadline& deadline) {
  while (!text.empty()) {
    const std::size_t sent = TRY(SendSome(text, fd));
    text.remove_prefix(sent);
    fd = sent > 0 ? -1 : fd;
    // Not to be interrupted: half a command would spoil the next one.
    if (!text.empty() && !TRY(WaitFor(fd_.get(), POLLOUT, deadline))) {
      return Fail(Exit::kTimeout, "the server takes no command");
    }
  }
  return {};
}

Outcome<std::optional<Json>> Client::Receive(const Deadline& deadline) {
  for (bool received = false;; received = true) {
    auto message = TRY(reader_.Next());
    if (message || (received && deadline.passed())) {
      return message;
    }
    if (!TRY(WaitFor(fd_.get(), POLLIN, deadline, interrupt_fd_))) {
      return std::nullopt;
    }
    std::array<char, 65536> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
    if (got > 0) {
      reader_.Feed({buffer.data(), static_cast<std::size_t>(got)});
    } else if (got == 0) {
      return Absent(Exit::kBroken, "the server has hung up");
    } else if (!IsTransient(errno)) {
      return Absent(Exit::kBroken, "the server has hung up: " + Reason(errno));
    }
  }
}

}  // namespace gyre::ctl
