// How long a loop looks for work itself before it sleeps, and what it looks at besides its
// ring. The time follows what it was good for: a sleep that work ended soon was one that
// looking a little longer would have saved. The loop's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "gyre/loop/event_loop.h"

namespace gyre::loop {

class Polling {
 public:
  explicit Polling(const PollLimits& limits) : limits_(limits) {}

  bool enabled() const { return limits_.max_ns > 0; }
  std::int64_t time_ns() const { return time_ns_; }
  // The loop has nothing to do from here on; it has something again. A second end in a row is none.
  void BeginIdle();
  void EndIdle();
  // Work came after the loop had nothing to do for so long, looking or asleep.
  void NoteIdle(std::int64_t idle_ns);

  void Add(Poller& poller) { pollers_.push_back(&poller); }
  void Remove(Poller& poller) { std::erase(pollers_, &poller); }
  // True if one has found work.
  bool Look();
  // The loop is about to sleep; true if it must not, since work has come.
  bool GoToSleep();

 private:
  const PollLimits limits_;
  std::int64_t time_ns_ = 0;
  std::uint64_t idle_since_ = 0;  // cycles; 0: it is not idle
  std::vector<Poller*> pollers_;
};

}  // namespace gyre::loop
