#include "tests/fuzz/qmp.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/check.h"
#include "gyre/loop/main_loop.h"
#include "src/control/command.h"
#include "src/control/commands/families.h"
#include "src/control/json.h"
#include "src/control/request.h"
#include "src/control/server.h"

namespace gyre::control {
namespace {

// What was written is understood again, and means the same.
void CheckRoundTrip(const Json& value) {
  const std::string text = WriteJson(value) + " ";
  CHECK(std::ranges::all_of(text, [](char byte) { return byte >= 0x20 && byte < 0x7f; }));
  JsonParser parser({.bytes = 1U << 24, .nesting = 1024, .values = 1U << 20});
  std::string_view rest = text;
  const auto again = parser.Next(rest);
  CHECK(again && *again && WriteJson(**again) + " " == text);
}

void Serve(Json message) {
  CheckRoundTrip(message);
  std::optional<Json> id;
  const auto request = ReadRequest(std::move(message), true, id);
  Outcome outcome = Nothing();
  if (!request) {
    outcome = std::unexpected(request.error());
  } else {
    for (const Command* const command : AllCommands()) {
      if (auto checked = CheckArguments(request->arguments, *command->arguments); !checked) {
        outcome = Refuse(std::move(checked).error());
      }
    }
  }
  CHECK(WriteReply(outcome, id).ends_with("}\r\n"));
}

Outcome Run(Call& call) {
  CHECK(call.arguments.is_object());
  return Json{{"arguments", call.arguments}};
}

bool IsOfTheWire(const Command& command) {
  const auto contains = [&](std::span<const Command> family) {
    return &command >= family.data() && &command < family.data() + family.size();
  };
  return contains(ProtocolCommands()) || contains(FdCommands());
}

// Every command: those of the wire itself as they are, the others, which need a machine, by name only.
std::span<const Command* const> Commands() {
  static const std::vector<Command> kStandIns = [] {
    std::vector<Command> all;
    for (const Command* const command : AllCommands()) {
      all.push_back(*command);
      if (!IsOfTheWire(*command)) {
        all.back().run = &Run;
        all.back().start = nullptr;
        all.back().allowed = {};
        all.back().flags &= ~unsigned{Command::kNotInDump};
      }
    }
    return all;
  }();
  static const std::vector<const Command*> kPointers = [] {
    std::vector<const Command*> pointers;
    for (const Command& command : kStandIns) {
      pointers.push_back(&command);
    }
    return pointers;
  }();
  return kPointers;
}

struct Daemon {
  Daemon() : main_loop(*loop::MainLoop::Create(lock)) {
    lock.Lock();
    server = *Server::Create(*main_loop, nullptr, {.sockets = {}, .identity = {}, .commands = &Commands});
  }
  BigLock lock;
  std::unique_ptr<loop::MainLoop> main_loop;
  std::unique_ptr<Server> server;
};

// What there is to read, appended to `text`. True at the end.
bool Take(int socket, std::string& text) {
  std::array<char, 65536> bytes{};
  while (true) {
    const ssize_t got = ::recv(socket, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got <= 0) {
      return got == 0 || errno != EAGAIN;
    }
    text.append(bytes.data(), static_cast<std::size_t>(got));
  }
}

void CheckLines(std::string_view text) {
  while (!text.empty()) {
    const auto end = text.find("\r\n");
    CHECK(end != std::string_view::npos);
    const Json line = Json::parse(text.substr(0, end), nullptr, false);
    CHECK(line.is_object());
    CHECK(line.contains("return") || line.contains("error") || line.contains("event") ||
          line.contains("QMP"));
    text.remove_prefix(end + 2);
  }
}

}  // namespace

void FuzzQmpServer(std::string_view stream) {
  static Daemon& daemon = *new Daemon;  // as long as the process
  std::array<int, 2> pair{};
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
  daemon.server->AddClient(UniqueFd(pair[0]));
  const UniqueFd client(pair[1]);
  const auto size = stream.empty() ? 1 : static_cast<std::size_t>(static_cast<unsigned char>(stream[0])) + 1;
  stream.remove_prefix(stream.empty() ? 0 : 1);
  std::string answers;
  while (!stream.empty() && daemon.server->clients() != 0) {
    const ssize_t sent =
        ::send(client.get(), stream.data(), std::min(size, stream.size()), MSG_DONTWAIT | MSG_NOSIGNAL);
    stream.remove_prefix(sent > 0 ? static_cast<std::size_t>(sent) : 0);
    daemon.main_loop->RunOnce(true);
    if (Take(client.get(), answers)) {
      break;
    }
  }
  ::shutdown(client.get(), SHUT_WR);
  // Whatever has been asked is answered, then comes the end.
  loop::Watch answered(*daemon.main_loop, client.get(), loop::Watch::kRead, [](unsigned) {});
  while (!Take(client.get(), answers)) {
    daemon.main_loop->RunOnce(false);
  }
  while (daemon.server->clients() != 0) {
    daemon.main_loop->RunOnce(true);
  }
  CheckLines(answers);
}

// The first byte says how the rest is cut into pieces.
void FuzzQmp(std::string_view stream) {
  if (stream.empty()) {
    return;
  }
  const auto size = static_cast<std::size_t>(static_cast<unsigned char>(stream.front())) + 1;
  stream.remove_prefix(1);
  JsonParser parser;
  while (!stream.empty()) {
    auto piece = stream.substr(0, size);
    stream.remove_prefix(piece.size());
    while (!piece.empty()) {
      if (auto parsed = parser.Next(piece); parsed && *parsed) {
        Serve(**std::move(parsed));
      }
    }
  }
}

}  // namespace gyre::control
