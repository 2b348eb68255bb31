// The log: one line a message, to stderr or a file; priorities as the journal
// reads them when stderr is the journal. Any thread. The back end (spdlog) is
// made at the first line, since a quiet start should not pay for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/result.h"

namespace gyre::log {

enum class Level : std::uint8_t { kDebug, kInfo, kWarning, kError };

// Empty path: stderr. `name` tags each line (the VM's name).
Status Open(const std::string& path, std::string_view name);
// Opens the log file anew after a rotation; nothing for stderr. On the main loop's thread.
Status Reopen();
void SetLevel(Level level);
// The VM's run state, a literal: a field of the journal's entries (GYRE_STATE) beside the name (GYRE_VM). Any
// thread.
void SetState(std::string_view state);
bool Enabled(Level level);
void Write(Level level, std::string_view text);

template <typename... Args>
void Print(Level level, fmt::format_string<Args...> text, Args&&... args) {
  if (Enabled(level)) {
    Write(level, fmt::format(text, std::forward<Args>(args)...));
  }
}
template <typename... Args>
void Debug(fmt::format_string<Args...> text, Args&&... args) {
  Print(Level::kDebug, text, std::forward<Args>(args)...);
}
template <typename... Args>
void Info(fmt::format_string<Args...> text, Args&&... args) {
  Print(Level::kInfo, text, std::forward<Args>(args)...);
}
template <typename... Args>
void Warning(fmt::format_string<Args...> text, Args&&... args) {
  Print(Level::kWarning, text, std::forward<Args>(args)...);
}
template <typename... Args>
void Error(fmt::format_string<Args...> text, Args&&... args) {
  Print(Level::kError, text, std::forward<Args>(args)...);
}

// Lets one message through per interval, and counts the rest: for what a guest
// can provoke as often as it likes. Any thread.
class RateLimit {
 public:
  // True if the caller may log now; `suppressed` gets the number left out since the last time.
  bool Allow(std::uint64_t* suppressed);

 private:
  std::atomic<std::int64_t> next_ns_{0};
  std::atomic<std::uint64_t> suppressed_{0};
};

}  // namespace gyre::log
