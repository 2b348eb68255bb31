// A trace of what the process does and when, in the Chrome trace event format
// (JSON), for ui.perfetto.dev or chrome://tracing. Off, a span costs one relaxed
// load and a branch. On, each thread fills a buffer of its own, which is written
// to the file when it is full, when its thread ends, and at the end. Any thread.
//
// Names and categories are string literals: they are kept by address.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "gyre/base/result.h"

namespace gyre::trace {

namespace internal {
inline std::atomic<bool> enabled{false};
}
inline bool Enabled() { return internal::enabled.load(std::memory_order_relaxed); }

// CLOCK_MONOTONIC.
std::int64_t NowNs();
// Something that lasted until `end_ns`. Nothing when off.
void Complete(const char* category, const char* name, std::int64_t end_ns, std::int64_t duration_ns);
// Something that happened now. Nothing when off.
void Instant(const char* category, const char* name);

// Tells how long its scope was. One that began while tracing was off is not told.
class Span {
 public:
  Span(const char* category, const char* name)
      : category_(category), name_(name), start_ns_(Enabled() ? NowNs() : kOff) {}
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;
  ~Span() {
    if (start_ns_ != kOff) [[unlikely]] {
      const std::int64_t end_ns = NowNs();
      Complete(category_, name_, end_ns, end_ns - start_ns_);
    }
  }

 private:
  static constexpr std::int64_t kOff = INT64_MIN;
  const char* const category_;
  const char* const name_;
  const std::int64_t start_ns_;
};

// Tracing is on while it exists; one at a time in a process. Its end writes what all threads have buffered.
class Session {
 public:
  // Creates or empties the file. The error is the caller's mistake (kUsage).
  static Result<Session> Start(const std::string& path);
  Session(Session&& other) noexcept : active_(std::exchange(other.active_, false)) {}
  Session& operator=(Session&&) = delete;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

 private:
  Session() = default;
  bool active_ = true;
};

// A file holds no more events than this, some 400 MB; later ones are counted, and told in the log at the end.
inline constexpr std::uint64_t kMostEvents = 4'000'000;

}  // namespace gyre::trace
