// exec: a command in the VM, by the agent that listens there.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <optional>

#include "gyre/base/format.h"
#include "tools/gyrectl/exec_session.h"
#include "tools/gyrectl/guest_port.h"
#include "tools/gyrectl/subcommand.h"
#include "tools/gyrectl/terminal.h"
#include "tools/gyrectl/wait_for.h"

namespace gyre::ctl {
namespace {

using exec::FrameType;

constexpr double kAnswerTime = 10;   // seconds
constexpr int kNotExecutable = 126;  // as a shell says it
constexpr int kNotFound = 127;

// NOLINTBEGIN(concurrency-mt-unsafe): one thread
std::optional<std::string> OwnVariable(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional(name + "=" + value);
}
// NOLINTEND(concurrency-mt-unsafe)

// The last value of a name is what counts; NAME alone is our own, if we have it.
std::vector<std::string> VariablesOf(const Call& call) {
  std::vector<std::string> variables;
  const auto put = [&variables](std::string variable) {
    const std::string name = variable.substr(0, variable.find('=') + 1);
    std::erase_if(variables, [&name](const std::string& known) { return known.starts_with(name); });
    variables.push_back(std::move(variable));
  };
  if (call.Has("tty")) {
    put(OwnVariable("TERM").value_or("TERM=xterm"));
  }
  for (const std::string& given : call.List("env")) {
    if (const auto variable = given.contains('=') ? given : OwnVariable(given)) {
      put(*variable);
    }
  }
  return variables;
}

Outcome<exec::StartRequest> RequestOf(const Call& call) {
  exec::StartRequest request{.terminal = call.Has("tty"),
                             .size = call.Has("tty") ? OwnWindowSize() : exec::WindowSize(),
                             .directory = call.Value("workdir"),
                             .words = call.List("COMMAND [ARG...]"),
                             .variables = VariablesOf(call)};
  if (const auto checked = exec::CheckStart(request); !checked) {
    return Fail(Exit::kUsage, checked.error().message());
  }
  return request;
}

Outcome<std::uint32_t> PortOf(const Call& call) {
  if (!call.Has("port")) {
    return exec::kDefaultPort;
  }
  const auto port = exec::ParsePort(call.Value("port"));
  return port ? Outcome<std::uint32_t>(*port)
              : Fail(Exit::kUsage, format("--port: '{}' is no port", call.Value("port")));
}

// Until the agent has said who it is.
Outcome<void> Greet(exec::Link& link, std::uint32_t port, const Deadline& deadline) {
  bool there = true;
  while (true) {
    const auto frame = link.Next();
    const auto version =
        frame && *frame ? exec::ParseHello((*frame)->payload) : Result<std::uint32_t>(exec::kVersion);
    if (!frame || !version) {
      return Fail(Exit::kBroken, format("port {} of the VM is not gyre-agent's", port));
    }
    if (*version < exec::kVersion) {
      return Fail(Exit::kBroken,
                  format("the VM's gyre-agent is too old: it knows version {} of the protocol, not {}",
                         *version, exec::kVersion));
    }
    if (*frame) {
      return {};
    }
    if (!there) {
      return Fail(Exit::kNoConnection, format("port {} of the VM has closed the connection", port));
    }
    link.Send();  // what it has said is still to be read
    if (!TRY(WaitFor(link.fd(), link.events(), deadline))) {
      return Fail(Exit::kTimeout, format("port {} of the VM does not answer", port));
    }
    there = link.Receive();
  }
}

// Within a shell (which has a client) what is typed is for both; a script's next lines are none of the
// command's.
ExecSession::Input InputOf(const Call& call, bool raw, bool typed) {
  using enum ExecSession::Input;
  if (raw) {
    return kKeys;
  }
  if (call.client == nullptr) {
    return kOwn;
  }
  return typed ? kShared : kNone;
}

Outcome<ExecSession::End> RunSession(exec::Link& link, const Call& call) {
  const bool terminal = call.Has("tty");
  const bool typed = ::isatty(STDIN_FILENO) == 1;
  const bool raw = terminal && typed;
  ExecSession session(link, terminal, InputOf(call, raw, typed));
  std::optional<RawTerminal> own;
  if (raw) {
    own.emplace();
  }
  return session.Run(call.deadline);
}

}  // namespace

Outcome<void> RunExec(Call& call) {
  const exec::StartRequest request = TRY(RequestOf(call));
  const std::uint32_t port = TRY(PortOf(call));
  const Deadline answer = call.deadline.Earlier(Deadline::After(kAnswerTime));
  UniqueFd socket = TRY(ConnectToGuest(call, port, answer));
  exec::Link link(std::move(socket), exec::Side::kAgent);
  link.Put(FrameType::kHello, exec::HelloPayload(exec::kVersion));
  TRY(Greet(link, port, answer));
  link.Put(FrameType::kStart, exec::ToPayload(request));
  ::signal(SIGPIPE, SIG_IGN);
  const ExecSession::End end = TRY(RunSession(link, call));
  const auto* const report = std::get_if<exec::ErrorReport>(&end);
  if (report == nullptr) {
    call.status = std::get<int>(end);
    return {};
  }
  if (report->source == exec::ErrorReport::Source::kAgent) {
    return Fail(Exit::kRefused, "the agent: " + report->text);
  }
  WriteAll(STDERR_FILENO, format("gyrectl: {}\n", Harmless(report->text)));
  call.status = report->sys_errno == ENOENT ? kNotFound : kNotExecutable;
  return {};
}

}  // namespace gyre::ctl
