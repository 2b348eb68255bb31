#include "tools/agent/command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <utility>

#include "gyre/base/non_blocking.h"
#include "tools/agent/launch.h"

namespace gyre::exec {
namespace {

constexpr char kUsualEnd = 4;  // Ctrl-D
constexpr int kStepMs = 20;

UniqueFd Twin(const UniqueFd& fd) { return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)); }

void Unblock(const UniqueFd& fd) {
  if (fd) {
    SetNonBlocking(fd.get());
  }
}

// False: nobody is left in any. While there is somebody in one, its number is no other's; so empty ones are
// forgotten.
bool SignalGroups(std::array<pid_t, 2>& groups, int signal) {
  for (pid_t& group : groups) {
    group = group > 0 && ::kill(-group, signal) == 0 ? group : -1;
  }
  return groups[0] > 0 || groups[1] > 0;
}

}  // namespace

std::expected<Command, ErrorReport> Command::Start(const StartRequest& request) {
  auto channels = OpenChannels(request);
  if (!channels) {
    return std::unexpected(std::move(channels).error());
  }
  const auto pid = Launch(request, *channels);
  if (!pid) {
    return std::unexpected(pid.error());
  }
  StreamEnds& ours = channels->ours;
  UniqueFd terminal;
  if (channels->terminal) {
    ours.input = Twin(ours.output);
    terminal = Twin(ours.output);
  }
  return Command(
      *pid,
      {.input = std::move(ours.input), .output = std::move(ours.output), .errors = std::move(ours.errors)},
      std::move(terminal));
}

Command::Command(pid_t pid, Streams streams, UniqueFd terminal)
    : pid_(pid), streams_(std::move(streams)), terminal_(std::move(terminal)) {
  Unblock(streams_.input);
  Unblock(streams_.output);
  Unblock(streams_.errors);
}

Command::Command(Command&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      streams_(std::move(other.streams_)),
      terminal_(std::move(other.terminal_)) {}

Command::~Command() { End(); }

std::optional<ExitReport> Command::Reap() {
  int status = 0;
  if (pid_ < 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) {
    return std::nullopt;
  }
  pid_ = -1;
  const bool by_signal = WIFSIGNALED(status);
  return ExitReport{.by_signal = by_signal,
                    .value = static_cast<std::uint32_t>(by_signal ? WTERMSIG(status) : WEXITSTATUS(status))};
}

void Command::Signal(int signal) const {
  if (pid_ < 0) {
    return;
  }
  const pid_t foreground = terminal_ ? ::tcgetpgrp(terminal_.get()) : -1;
  ::kill(-(foreground > 0 ? foreground : pid_), signal);
}

void Command::Resize(WindowSize size) const {
  if (terminal_) {
    SetWindowSize(terminal_.get(), size);
  }
}

char Command::EndCharacter() const {
  termios state{};
  return terminal_ && ::tcgetattr(terminal_.get(), &state) == 0 ? static_cast<char>(state.c_cc[VEOF])
                                                                : kUsualEnd;
}

void Command::ReapGroups(const std::array<pid_t, 2>& groups) {
  for (const pid_t group : groups) {
    for (pid_t reaped = group; group > 0 && reaped > 0;) {
      reaped = ::waitpid(-group, nullptr, WNOHANG);
      pid_ = reaped == pid_ ? -1 : pid_;
    }
  }
}

void Command::End() {
  if (pid_ < 0) {
    return;
  }
  // What it leaves is ours to reap, so that a group is empty when nobody in it lives, whoever else is slow.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  std::array<pid_t, 2> groups = {pid_, terminal_ ? ::tcgetpgrp(terminal_.get()) : -1};
  terminal_.Reset();
  SignalGroups(groups, SIGHUP);
  SignalGroups(groups, SIGCONT);  // one that is stopped would not hear it
  for (int waited = 0; waited < kGraceMs && SignalGroups(groups, 0); waited += kStepMs) {
    ReapGroups(groups);
    ::poll(nullptr, 0, kStepMs);
  }
  SignalGroups(groups, SIGKILL);
  // One that has become another user's may not have to hear us.
  for (int waited = 0; waited < kGraceMs && pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == 0;
       waited += kStepMs) {
    ::poll(nullptr, 0, kStepMs);
  }
  pid_ = -1;
}

}  // namespace gyre::exec
