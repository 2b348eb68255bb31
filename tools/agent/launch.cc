#include "tools/agent/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "gyre/base/format.h"

namespace gyre::exec {
namespace {

using Source = ErrorReport::Source;

constexpr std::string_view kUsualPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::unexpected<ErrorReport> Failed(std::string_view what, int error, Source source = Source::kAgent) {
  return std::unexpected(ErrorReport{.source = source,
                                     .sys_errno = static_cast<std::uint32_t>(error),
                                     .text = format("{}: {}", what, std::generic_category().message(error))});
}

// What the command's process says where it cannot become it.
struct Obstacle {
  enum class At : int { kStreams, kDirectory, kExec };
  At at = At::kStreams;
  int error = 0;
};

std::string_view NameOf(std::string_view variable) { return variable.substr(0, variable.find('=')); }

// Ours, with the request's put over it.
std::vector<std::string> Environment(const StartRequest& request) {
  std::vector<std::string> all = request.variables;
  const auto add = [&all](std::string_view variable) {
    if (std::ranges::none_of(all, [&](const auto& known) { return NameOf(known) == NameOf(variable); })) {
      all.emplace_back(variable);
    }
  };
  for (char** own = environ; own != nullptr && *own != nullptr; ++own) {
    add(*own);
  }
  add(kUsualPath);
  return all;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

// As a program expects to find them.
void ResetSignals() {
  for (int signal = 1; signal < NSIG; ++signal) {
    ::signal(signal, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool TakeStreams(const Channels& channels) {
  const StreamEnds& ends = channels.theirs;
  if (channels.terminal) {
    const int terminal = ends.output.get();
    return ::ioctl(terminal, TIOCSCTTY, 0) == 0 && ::dup2(terminal, STDIN_FILENO) >= 0 &&
           ::dup2(terminal, STDOUT_FILENO) >= 0 && ::dup2(terminal, STDERR_FILENO) >= 0;
  }
  return ::dup2(ends.input.get(), STDIN_FILENO) >= 0 && ::dup2(ends.output.get(), STDOUT_FILENO) >= 0 &&
         ::dup2(ends.errors.get(), STDERR_FILENO) >= 0;
}

// In the new process, which has one thread as the one it comes from. Returns what is in the way.
Obstacle Become(const StartRequest& request, const Channels& channels) {
  ::setsid();
  if (!TakeStreams(channels)) {
    return {.at = Obstacle::At::kStreams, .error = errno};
  }
  if (!request.directory.empty() && ::chdir(request.directory.c_str()) != 0) {
    return {.at = Obstacle::At::kDirectory, .error = errno};
  }
  std::vector<std::string> words = request.words;
  std::vector<std::string> variables = Environment(request);
  const std::vector<char*> arguments = Pointers(words);
  std::vector<char*> environment = Pointers(variables);
  environ = environment.data();  // by whose PATH it is looked for
  ResetSignals();
  ::execvp(arguments[0], arguments.data());
  return {.at = Obstacle::At::kExec, .error = errno};
}

std::unexpected<ErrorReport> Told(const StartRequest& request, const Obstacle& obstacle) {
  switch (obstacle.at) {
    case Obstacle::At::kStreams:
      return Failed("the command's streams", obstacle.error);
    case Obstacle::At::kDirectory:
      return Failed(format("the directory {}", request.directory), obstacle.error);
    case Obstacle::At::kExec:
      break;
  }
  return Failed(request.words.front(), obstacle.error, Source::kCommand);
}

bool OpenPipe(UniqueFd& reader, UniqueFd& writer) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return false;
  }
  reader = UniqueFd(ends[0]);
  writer = UniqueFd(ends[1]);
  return true;
}

std::expected<Channels, ErrorReport> OpenTerminal(WindowSize size) {
  Channels channels{.terminal = true, .ours = {}, .theirs = {}};
  channels.ours.output = UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  const int master = channels.ours.output.get();
  if (master < 0 || ::unlockpt(master) != 0) {
    return Failed("a terminal", errno);
  }
  // Not by its name, which may be another one's here.
  channels.theirs.output = UniqueFd(::ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!channels.theirs.output) {
    return Failed("a terminal", errno);
  }
  SetWindowSize(master, size);
  return channels;
}

}  // namespace

void SetWindowSize(int terminal, WindowSize size) {
  winsize window{};
  window.ws_row = size.rows;
  window.ws_col = size.columns;
  ::ioctl(terminal, TIOCSWINSZ, &window);
}

std::expected<Channels, ErrorReport> OpenChannels(const StartRequest& request) {
  if (request.terminal) {
    return OpenTerminal(request.size);
  }
  Channels channels;
  if (!OpenPipe(channels.theirs.input, channels.ours.input) ||
      !OpenPipe(channels.ours.output, channels.theirs.output) ||
      !OpenPipe(channels.ours.errors, channels.theirs.errors)) {
    return Failed("a pipe", errno);
  }
  return channels;
}

std::expected<pid_t, ErrorReport> Launch(const StartRequest& request, const Channels& channels) {
  UniqueFd told;
  UniqueFd tells;
  if (!OpenPipe(told, tells)) {
    return Failed("a pipe", errno);
  }
  const pid_t pid = ::fork();
  if (pid < 0) {
    return Failed("a process", errno);
  }
  if (pid == 0) {
    const Obstacle obstacle = Become(request, channels);
    ::_exit(::write(tells.get(), &obstacle, sizeof(obstacle)) > 0 ? 127 : 126);
  }
  tells.Reset();
  Obstacle obstacle;
  ssize_t got = 0;
  while ((got = ::read(told.get(), &obstacle, sizeof(obstacle))) < 0 && errno == EINTR) {
  }
  if (got == sizeof(obstacle)) {
    ::waitpid(pid, nullptr, 0);
    return Told(request, obstacle);
  }
  return pid;
}

}  // namespace gyre::exec
