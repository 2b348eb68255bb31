// A VM with a vsock device, as gyrectl sees one, whose guest is a function of the
// test's; and one whose guest is the real agent.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gyre/base/unique_fd.h"
#include "gyre/base/unix_listener.h"
#include "tests/support/process.h"
#include "tests/unit/gyrectl/fake_server.h"

namespace gyre::ctl {

class FakeGuest {
 public:
  // What somebody who connects to a port of the guest's finds; false: nobody listens. On a thread of its own.
  using Service = std::function<void(UniqueFd client)>;

  explicit FakeGuest(Service service, unsigned port = 1022) : service_(std::move(service)), port_(port) {
    auto listener = UnixListener::Open({.path = path(), .who = path()});
    EXPECT_TRUE(listener) << listener.error().message();
    listener_.emplace(*std::move(listener));
    accepting_ = std::thread([this] { Accept(); });
  }
  FakeGuest(const FakeGuest&) = delete;
  FakeGuest& operator=(const FakeGuest&) = delete;
  ~FakeGuest() {
    done_ = true;
    accepting_.join();
    for (auto& thread : serving_) {
      thread.join();
    }
  }

  const std::string& control_socket() const { return server_.path(); }
  std::string path() const { return server_.directory() + "/vsock"; }
  const std::string& directory() const { return server_.directory(); }
  // What the VM says of its device.
  void TellPath(std::string path) { told_ = {{{"cid", 3}, {"path", std::move(path)}}}; }
  void TellNone() { told_ = Json::array(); }

 private:
  void Accept() {
    while (!done_) {
      pollfd entry = {.fd = listener_->fd(), .events = POLLIN, .revents = 0};
      if (::poll(&entry, 1, 20) > 0) {
        UniqueFd client(::accept4(listener_->fd(), nullptr, nullptr, SOCK_CLOEXEC));
        serving_.emplace_back([this, socket = std::move(client)]() mutable { Serve(std::move(socket)); });
      }
    }
  }
  void Serve(UniqueFd client) const {
    std::string line;
    char byte = 0;
    while (!line.ends_with('\n') && ::read(client.get(), &byte, 1) == 1) {
      line += byte;
    }
    if (line != "CONNECT " + std::to_string(port_) + "\n") {
      return;
    }
    EXPECT_EQ(::send(client.get(), "OK 77\n", 6, MSG_NOSIGNAL), 6);
    service_(std::move(client));
  }

  FakeServer server_{[this](const Json& request) { return FakeServer::Return(request, told_); }};
  Json told_ = {{{"cid", 3}, {"path", server_.directory() + "/vsock"}}};
  Service service_;
  unsigned port_;
  std::atomic<bool> done_{false};
  std::optional<UnixListener> listener_;
  std::thread accepting_;
  std::vector<std::thread> serving_;
};

// Both ways until both have ended.
inline void Relay(const UniqueFd& left, const UniqueFd& right) {
  const auto pump = [](int from, int to) {
    std::array<char, 65536> buffer{};
    ssize_t got = 0;
    while ((got = ::read(from, buffer.data(), buffer.size())) > 0) {
      for (ssize_t sent = 0; sent < got;) {
        const ssize_t more =
            ::send(to, buffer.data() + sent, static_cast<std::size_t>(got - sent), MSG_NOSIGNAL);
        if (more <= 0) {
          break;
        }
        sent += more;
      }
    }
    ::shutdown(to, SHUT_WR);
    ::shutdown(from, SHUT_RD);
  };
  std::thread other(pump, right.get(), left.get());
  pump(left.get(), right.get());
  other.join();
}

class AgentGuest {
 public:
  explicit AgentGuest(const std::vector<std::string>& more = {}, unsigned port = 1022)
      : guest_([this](UniqueFd client) { Reach(client); }, port) {
    std::vector<std::string> words = {std::getenv("GYRE_AGENT"), "--listen", "unix:" + address()};
    words.insert(words.end(), more.begin(), more.end());
    auto started = test::Process::Start(words);
    EXPECT_TRUE(started);
    agent_.emplace(*std::move(started));
    for (int tries = 0; ::access(address().c_str(), F_OK) != 0 && tries < 2000; ++tries) {
      ::poll(nullptr, 0, 10);
    }
  }

  FakeGuest& guest() { return guest_; }
  const std::string& control_socket() const { return guest_.control_socket(); }
  const std::string& directory() const { return guest_.directory(); }
  test::Process& agent() { return *agent_; }
  // gyrectl exec, with these words.
  std::vector<std::string> Words(const std::vector<std::string>& words) const {
    std::vector<std::string> all = {std::getenv("GYRECTL"), "-s", control_socket(), "exec"};
    all.insert(all.end(), words.begin(), words.end());
    return all;
  }
  test::ProcessResult Exec(const std::vector<std::string>& words, std::string_view input = {}) const {
    return test::RunProcess(Words(words), input);
  }

 private:
  std::string address() const { return guest_.directory() + "/agent"; }
  void Reach(const UniqueFd& client) const {
    const UnixAddress place(address());
    const UniqueFd agent(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(agent.get(), place.get(), place.size()), 0);
    Relay(client, agent);
  }

  std::optional<test::Process> agent_;  // ends last: connections end before it
  FakeGuest guest_;
};

}  // namespace gyre::ctl
