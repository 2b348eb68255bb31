// A QMP server on a socket of its own, as honest or as hostile as its answers.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "gyre/base/unique_fd.h"
#include "tests/support/fd_passing.h"
#include "tools/gyrectl/wire.h"

namespace gyre::ctl {

inline constexpr const char* kGreeting =
    "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7, \"minor\": 2, \"micro\": 1}, \"package\": \"\"}, "
    "\"capabilities\": []}}\r\n";

class FakeServer {
 public:
  // What it sends for a request; kHangUp closes the connection.
  using Answer = std::function<std::string(const Json& request)>;
  static constexpr const char* kHangUp = "hang up";

  explicit FakeServer(Answer answer, std::string greeting = kGreeting)
      : answer_(std::move(answer)), greeting_(std::move(greeting)) {
    EXPECT_NE(::mkdtemp(directory_.data()), nullptr);
    path_ = directory_ + "/qmp.sock";
    listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path_.data(), path_.size());
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(listener_.get(), 4), 0);
    thread_ = std::thread([this] { Serve(); });
  }
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;
  ~FakeServer() {
    done_ = true;
    thread_.join();
    std::filesystem::remove_all(directory_);
  }

  const std::string& path() const { return path_; }
  const std::string& directory() const { return directory_; }
  int passed() const { return passed_.get(); }  // the last descriptor; for answers

  static std::string Return(const Json& request, const Json& value) {
    return Json({{"return", value}, {"id", request["id"]}}).dump() + "\r\n";
  }

 private:
  bool Readable(int fd) const {
    while (!done_) {
      pollfd entry = {.fd = fd, .events = POLLIN, .revents = 0};
      if (::poll(&entry, 1, 20) > 0) {
        return true;
      }
    }
    return false;
  }
  // Parts that nobody takes are lost with the connection.
  void Send(int fd, std::string_view text) const {
    while (!text.empty() && !done_) {
      const ssize_t sent = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && errno != EAGAIN) {
        return;
      }
      if (sent < 0) {
        ::poll(nullptr, 0, 1);
      }
      text.remove_prefix(sent > 0 ? static_cast<std::size_t>(sent) : 0);
    }
  }
  void Serve() {
    while (Readable(listener_.get())) {
      const UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      Send(client.get(), greeting_);
      ServeClient(client.get());
    }
  }
  void ServeClient(int fd) {
    MessageReader reader;
    std::array<char, 4096> buffer{};
    while (Readable(fd)) {
      const ssize_t got = test::ReceiveWithFd(fd, buffer, passed_);
      if (got <= 0) {
        return;
      }
      reader.Feed({buffer.data(), static_cast<std::size_t>(got)});
      while (const auto request = reader.Next().value_or(std::nullopt)) {
        const bool first = (*request)["execute"] == "qmp_capabilities";
        const std::string answer = first ? Return(*request, Json::object()) : answer_(*request);
        if (answer == kHangUp) {
          return;
        }
        Send(fd, answer);
      }
    }
  }

  Answer answer_;
  std::string greeting_;
  std::string directory_ = "/tmp/gyrectl-test-XXXXXX";
  std::string path_;
  UniqueFd listener_;
  UniqueFd passed_;
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace gyre::ctl
