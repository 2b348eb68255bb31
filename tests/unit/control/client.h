// A client of a control server in the same process, whose loop the test turns.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/unique_fd.h"
#include "src/control/server.h"
#include "tests/support/fd_passing.h"
#include "tests/unit/loop/fixture.h"

namespace gyre::control {

class TestClient {
 public:
  TestClient() = default;
  explicit TestClient(UniqueFd socket) : socket_(std::move(socket)) {}

  int fd() const { return socket_.get(); }
  void Hangup() { socket_.Reset(); }
  void EndInput() { ::shutdown(socket_.get(), SHUT_WR); }
  // As much as the socket takes.
  std::size_t Put(std::string_view bytes) {
    const ssize_t put = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return put > 0 ? static_cast<std::size_t>(put) : 0;
  }
  void PutWithFd(std::string_view bytes, int fd) { test::SendWithFd(socket_.get(), bytes, fd); }
  // Reads what there is into `text`.
  void Take() {
    std::array<char, 65536> buffer{};
    while (true) {
      const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got <= 0) {
        ended = ended || got == 0 || errno != EAGAIN;
        return;
      }
      text.append(buffer.data(), static_cast<std::size_t>(got));
    }
  }
  // Whole lines, taken out.
  std::vector<std::string> Lines() {
    std::vector<std::string> lines;
    for (auto end = text.find("\r\n"); end != std::string::npos; end = text.find("\r\n")) {
      lines.push_back(text.substr(0, end));
      text.erase(0, end + 2);
    }
    return lines;
  }

  std::string text;
  bool ended = false;

 private:
  UniqueFd socket_;
};

class ServerTest : public loop::LoopTest {
 protected:
  void Serve(CommandTable commands, std::vector<SocketSpec> sockets = {}) {
    auto server = Server::Create(loop(), nullptr,
                                 {.sockets = std::move(sockets), .identity = {}, .commands = commands});
    ASSERT_TRUE(server.has_value()) << server.error().message();
    server_ = std::move(*server);
  }
  TestClient Connect() {
    std::array<int, 2> pair{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
    server_->AddClient(UniqueFd(pair[0]));
    return TestClient(UniqueFd(pair[1]));
  }
  // The next `count` lines, which must come.
  std::vector<std::string> Read(TestClient& client, std::size_t count) {
    std::vector<std::string> lines;
    const loop::Watch wakes(loop(), client.fd(), loop::Watch::kRead, [](unsigned) {});
    EXPECT_TRUE(RunUntil([&] {
      client.Take();
      for (auto& line : client.Lines()) {
        lines.push_back(std::move(line));
      }
      return lines.size() >= count || client.ended;
    })) << testing::PrintToString(lines);
    EXPECT_EQ(lines.size(), count) << testing::PrintToString(lines);
    return lines;
  }
  std::string Ask(TestClient& client, std::string_view request) {
    EXPECT_EQ(client.Put(request), request.size());
    auto lines = Read(client, 1);
    return lines.empty() ? "" : lines.back();
  }
  TestClient ConnectAndNegotiate(bool oob = false) {
    auto client = Connect();
    (void)Read(client, 1);
    EXPECT_EQ(Ask(client, oob ? R"({"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})"
                              : R"({"execute": "qmp_capabilities"})"),
              R"({"return": {}})");
    return client;
  }

  std::unique_ptr<Server> server_;
};

}  // namespace gyre::control
