// A program under test: started with its standard streams on pipes, every wait
// bounded, killed by its own pidfd when its time is up or the object goes. It
// dies with the test, too. Not thread-safe: one test's thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::test {

// How a process ended, and all that it wrote.
struct ProcessResult {
  bool timed_out = false;          // it was killed for it
  std::optional<int> exit_status;  // none: a signal ended it
  int signal = 0;
  std::string out;
  std::string err;
  std::chrono::nanoseconds duration{};  // from before the start to its end

  // "exit status 3" and the streams' ends, for a failed assertion.
  std::string Describe() const;
};

class Process {
 public:
  using Duration = std::chrono::milliseconds;
  static constexpr Duration kPatience{20'000};

  // argv[0] is looked up in PATH unless it has a slash. An exec that fails is
  // exit status 127 with the reason on stderr. Errors are the host's.
  static Result<Process> Start(std::vector<std::string> argv);

  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  pid_t pid() const { return pid_; }
  const std::string& out() const { return result_.out; }
  const std::string& err() const { return result_.err; }

  // Queues bytes for its stdin; they go out during the waits.
  void Write(std::string_view bytes) { pending_ += bytes; }
  // Closes its stdin once everything queued is out.
  void CloseInput() { close_input_ = true; }
  void Signal(int signal);

  // Waits until stdout (or stderr) holds `text`; false if it ends or the time is up first.
  bool WaitForOutput(std::string_view text, Duration patience = kPatience);
  bool WaitForError(std::string_view text, Duration patience = kPatience);
  // Waits until it holds `text` `count` times.
  bool WaitForOutputs(std::string_view text, std::size_t count, Duration patience = kPatience);
  bool WaitForErrors(std::string_view text, std::size_t count, Duration patience = kPatience);
  // Waits for its end and the end of its streams; kills it when the time is up. Once.
  ProcessResult Wait(Duration patience = kPatience);
  // True if it is still running after `time`: what it writes meanwhile is kept.
  bool StaysAlive(Duration time);

 private:
  using Clock = std::chrono::steady_clock;
  Process() = default;
  bool WaitFor(const std::string& stream, std::string_view text, std::size_t count, Duration patience);
  // Serves the pipes until something happened or `deadline`; false at the deadline.
  bool Step(Clock::time_point deadline);
  void WriteSome();
  void ReadSome(UniqueFd& fd, std::string& text);
  void Reap();
  bool Finished() const { return reaped_ && !out_ && !err_; }

  pid_t pid_ = -1;
  UniqueFd pidfd_;
  UniqueFd in_;
  UniqueFd out_;
  UniqueFd err_;
  std::string pending_;
  bool close_input_ = false;
  bool reaped_ = false;
  Clock::time_point started_;
  ProcessResult result_;
};

// Start, feed `input`, close stdin, Wait. A start that fails is in `err`.
ProcessResult RunProcess(std::vector<std::string> argv, std::string_view input = {},
                         Process::Duration patience = Process::kPatience);

}  // namespace gyre::test
