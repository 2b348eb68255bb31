// A command: a process with a session and a process group of its own, and its
// standard streams, on three pipes or a terminal. One thread, which takes SIGCHLD
// itself.
#pragma once

#include <sys/types.h>

#include <array>
#include <expected>
#include <optional>

#include "gyre/base/unique_fd.h"
#include "tools/exec/protocol.h"

namespace gyre::exec {

class Command {
 public:
  // Our ends, none of which blocks. Of a terminal `input` and `output` are the same one, and `errors` is
  // none.
  struct Streams {
    UniqueFd input;
    UniqueFd output;
    UniqueFd errors;
  };

  // Waits until it is executed, or cannot be.
  static std::expected<Command, ErrorReport> Start(const StartRequest& request);
  Command(Command&& other) noexcept;
  Command& operator=(Command&&) = delete;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  // Of one that has not ended: its group is told by SIGHUP, and killed if that does not help within `kGrace`.
  ~Command();

  // For one to take.
  Streams& streams() { return streams_; }
  bool on_terminal() const { return static_cast<bool>(terminal_); }
  // Its end, once.
  std::optional<ExitReport> Reap();
  // To its group; on a terminal to the group in the foreground.
  void Signal(int signal) const;
  void Resize(WindowSize size) const;
  // What ends a terminal's input where it is typed.
  char EndCharacter() const;

 private:
  static constexpr int kGraceMs = 5000;
  Command(pid_t pid, Streams streams, UniqueFd terminal);
  void End();
  void ReapGroups(const std::array<pid_t, 2>& groups);

  pid_t pid_;  // -1: it has ended
  Streams streams_;
  UniqueFd terminal_;  // its master, for what is no byte; none: pipes
};

}  // namespace gyre::exec
