// What each peer of the loop benchmark does, each by its own best means. One
// thread, that which made it, except where it says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

namespace gyre::bench {

inline constexpr std::size_t kReadBytes = 4096;

class Peer {
 public:
  virtual ~Peer() = default;
  virtual std::string_view name() const = 0;

  // Counts the events of eventfds, each write at least once if an iteration comes between.
  virtual void WatchEventFds(std::span<const int> fds, std::uint64_t& events) = 0;
  // One iteration that does not sleep.
  virtual void Iterate() = 0;

  // Peers that have no timers and no deferred calls say so, and are not asked.
  virtual bool has_timers() const { return true; }
  virtual void MakeTimers(std::size_t count, std::uint64_t& fired) = 0;
  virtual void SetTimer(std::size_t timer, std::int64_t deadline_ns) = 0;  // of CLOCK_MONOTONIC
  virtual void MakeDeferred(std::size_t count, std::uint64_t& ran) = 0;
  virtual void Defer(std::size_t call) = 0;

  // Reads of 4 KiB at an offset, `count` of them to be in flight at once; `done` counts those completed.
  virtual bool has_reads() const { return true; }
  virtual void MakeReads(std::size_t count, std::uint64_t& done) = 0;
  virtual void StartRead(std::size_t read, int fd, std::uint64_t offset) = 0;

  // Sleeps and serves until Stop; each Poke (from another thread) runs `poked` once, in this thread.
  virtual void Serve(const std::function<void()>& poked) = 0;
  virtual void Poke() = 0;
  virtual void Stop() = 0;  // from within `poked`
};

// gyre's loop with the watch for eventfds, or with the general, level-triggered one whose callback reads.
std::unique_ptr<Peer> NewGyre(bool level_triggered);
// Bare liburing: the floor, with the same two ways.
std::unique_ptr<Peer> NewUring(bool level_triggered);
std::unique_ptr<Peer> NewGlib();

}  // namespace gyre::bench
