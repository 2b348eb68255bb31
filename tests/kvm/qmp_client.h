// A client of a control socket, for tests of the real gyred.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gyre/base/unique_fd.h"
#include "tests/kvm/gyred.h"
#include "tests/support/fd_passing.h"

namespace gyre::test {

using Json = nlohmann::json;

// A blocking client with bounded waits.
class Client {
 public:
  static std::optional<Client> Connect(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path.data(), path.size());
    for (int i = 0; i < 1000; ++i) {
      UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
        return Client(std::move(fd));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return std::nullopt;
  }
  void Put(std::string_view text) {
    EXPECT_EQ(::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  void PutWithFd(std::string_view text, int fd) { SendWithFd(fd_.get(), text, fd); }
  // The next line; nothing at the end, or when none comes.
  std::optional<Json> Next() {
    for (auto end = text_.find("\r\n"); end == std::string::npos; end = text_.find("\r\n")) {
      pollfd entry{.fd = fd_.get(), .events = POLLIN, .revents = 0};
      std::array<char, 65536> bytes{};
      if (::poll(&entry, 1, 20'000) != 1) {
        return std::nullopt;
      }
      const ssize_t got = ::recv(fd_.get(), bytes.data(), bytes.size(), 0);
      if (got <= 0) {
        return std::nullopt;
      }
      text_.append(bytes.data(), static_cast<std::size_t>(got));
    }
    const auto end = text_.find("\r\n");
    Json line = Json::parse(text_.substr(0, end), nullptr, false);
    text_.erase(0, end + 2);
    return line;
  }
  // The reply; events before it are kept.
  Json Ask(const Json& request) {
    Put(request.dump() + "\n");
    while (const auto line = Next()) {
      if (!line->contains("event")) {
        return *line;
      }
      Keep(*line);
    }
    return nullptr;
  }
  Json Run(std::string_view command, const Json& arguments = Json::object()) {
    return Ask({{"execute", command}, {"arguments", arguments}});
  }
  // Until that event has come.
  bool Await(const std::string& event) {
    while (std::ranges::find(events, event) == events.end()) {
      const auto line = Next();
      if (!line) {
        return false;
      }
      if (line->contains("event")) {
        Keep(*line);
      }
    }
    return true;
  }
  bool AtEnd() { return !Next().has_value(); }

  std::vector<std::string> events;
  std::map<std::string, Json> data;  // of the last of each

 private:
  explicit Client(UniqueFd fd) : fd_(std::move(fd)) {}
  void Keep(const Json& event) {
    events.push_back(event.at("event"));
    data[events.back()] = event.value("data", Json());
  }
  UniqueFd fd_;
  std::string text_;
};

// Past the negotiation. Ends the test where nobody listens: there is no VM.
inline Client TalkTo(const std::string& path) {
  auto client = Client::Connect(path);
  if (!client) {
    throw std::runtime_error("nobody listens on " + path);
  }
  EXPECT_TRUE(client->Next().value_or(Json()).contains("QMP"));
  EXPECT_EQ(client->Run("qmp_capabilities"), Json::parse(R"({"return": {}})"));
  return *std::move(client);
}

// A gyred with a control socket.
class Control : public GyredTest {
 protected:
  std::string Socket() const { return TempPath("qmp.sock"); }
  Arguments With(Arguments more = {}) const {
    more.insert(more.end(), {"--serial", "null", "--qmp", "unix:" + Socket()});
    return more;
  }
  Client Talk() const { return TalkTo(Socket()); }
};

}  // namespace gyre::test
