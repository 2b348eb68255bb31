// A service manager, as its services see it: the socket of $NOTIFY_SOCKET.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include "gyre/base/unique_fd.h"
#include "tests/support/fd_passing.h"

namespace gyre::test {

// The manager's end of $NOTIFY_SOCKET, in the abstract namespace.
class Manager {
 public:
  Manager() : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(sa_family_t)), 0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    address_ = "@" + std::string(&address.sun_path[1], size - offsetof(sockaddr_un, sun_path) - 1);
  }
  const std::string& address() const { return address_; }
  // The next message, or "".
  std::string Take() {
    std::string text(4096, '\0');
    const ssize_t got = ReceiveWithFd(fd_.get(), text, passed_);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
  }
  // The next message that holds `text`, those before it being dropped; "" if none comes.
  std::string WaitFor(std::string_view text, std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (std::chrono::steady_clock::now() < deadline) {
      pollfd entry = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
      ::poll(&entry, 1, 20);
      if (std::string message = Take(); message.contains(text)) {
        return message;
      }
    }
    return "";
  }
  // The descriptor that came last.
  const UniqueFd& passed() const { return passed_; }

 private:
  UniqueFd fd_;
  UniqueFd passed_;
  std::string address_;
};

}  // namespace gyre::test
