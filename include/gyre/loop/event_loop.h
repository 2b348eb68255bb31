// What every loop has, the main one and those of I/O threads: sources of events
// on one io_uring (watches, event fds, asynchronous operations), bottom halves
// and timers, each called on the loop's thread.
//
// Thread: sources are made, changed and destroyed on the loop's thread, or, for
// the main loop's, by the big lock's holder. What others may call says "any thread".
// Bottom halves and timers may be made by any, and destroyed by any who knows that they
// are not being called.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "gyre/base/result.h"
#include "gyre/loop/clock.h"

namespace gyre::loop {

using Callback = std::move_only_function<void()>;

// The two kinds of sources. A wait for I/O from within a callback (WaitForIo) serves kIo alone, so that no
// control command, signal or console byte is acted on in the middle of another's callback.
enum class Tier : std::uint8_t { kIo, kControl };
inline constexpr std::size_t kTiers = 2;

enum class SourceKind : std::uint8_t { kBottomHalf, kReady, kTimer, kNotifier };
inline constexpr std::size_t kSourceKinds = 4;

struct LoopStats {
  struct Calls {
    std::uint64_t calls = 0;
    std::int64_t time_ns = 0;  // in callbacks, all together
  };
  std::uint64_t iterations = 0;
  std::uint64_t waits = 0;       // iterations that slept in the kernel
  std::uint64_t wakeups = 0;     // eventfd writes by Wake
  std::uint64_t operations = 0;  // handed to the kernel: polls, reads, withdrawals
  std::array<Calls, kSourceKinds> calls{};
  std::int64_t slowest_ns = 0;  // the longest callback so far
  SourceKind slowest = SourceKind::kBottomHalf;
  std::uint64_t slow_calls = 0;  // callbacks longer than the limit
};

// How long a loop looks for work itself before it sleeps: at most `max_ns`, 0 for never, and
// in these bounds as long as it pays. Where work came while it slept, but before `max_ns`
// were over, it looks `grow` times longer the next time (0: twice); where it came later
// still, `shrink` times shorter (0: not at all).
struct PollLimits {
  std::int64_t max_ns = 0;
  unsigned grow = 0;
  unsigned shrink = 0;
};

class EventLoop {
 public:
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Makes a wait that sleeps or is about to return. Any thread; a system call
  // only when the loop may be sleeping.
  void Wake();
  std::int64_t Now(ClockType clock) const;  // any thread
  bool OnLoopThread() const;                // any thread

  // Serves sources of Tier::kIo, and sleeps between, until `done`: a drain. From a callback or outside, on
  // the loop's thread. The main loop gives up the big lock while it sleeps: look at the state again.
  // What `done` waits for must come by sources of that tier, or by Wake.
  void WaitForIo(const std::function<bool()>& done);

  LoopStats stats() const;  // any thread
  bool polls() const;       // by its PollLimits; any thread
  // When the source's callback that runs began, or the first of some brief ones with it, by Cycles(), without
  // a reading of the counter: for measuring what thousands of them begin and end. On the loop's thread.
  std::uint64_t CallbackBegan() const;
  // A callback that takes longer, or some together that were expected to be brief, is counted and logged; 0:
  // none is. Any thread.
  void SetSlowLimit(std::int64_t limit_ns);

  struct Impl;

 protected:
  explicit EventLoop(std::unique_ptr<Impl> impl);
  // Every source must be gone. Waits for operations that the kernel has not let go of yet.
  ~EventLoop();
  Impl& impl() const { return *impl_; }

 private:
  friend class AsyncOp;
  friend class BottomHalf;
  friend class EventFdWatch;
  friend class Poller;
  friend class ReadBatch;
  friend class RegisteredFile;
  friend class Timer;
  friend class Watch;
  std::unique_ptr<Impl> impl_;
};

// A callback to be run by the loop as soon as it can: the seed's bottom half.
// FIFO among those scheduled. Scheduling twice before it runs runs it once; it
// may reschedule itself (for the next iteration) or be destroyed from within.
class BottomHalf {
 public:
  BottomHalf(EventLoop& loop, Callback callback, Tier tier = Tier::kControl);
  BottomHalf(const BottomHalf&) = delete;
  BottomHalf& operator=(const BottomHalf&) = delete;
  ~BottomHalf();
  void Schedule();  // any thread
  // Runs it with the next iteration that something else makes happen, or within 10 ms. Any thread.
  void ScheduleIdle();
  void Cancel();  // any thread; a callback that runs already is not waited for
  // Runs `callback` once; what it holds goes with it. Any thread.
  static void ScheduleOnce(EventLoop& loop, Callback callback, Tier tier = Tier::kControl);

  struct Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

// A one-shot timer on one of the loop's clocks. Not set at first.
class Timer {
 public:
  Timer(EventLoop& loop, ClockType clock, Callback callback, Tier tier = Tier::kControl);
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer();
  // Fires once the clock has reached `deadline_ns`; replaces an earlier setting. Any thread.
  void Set(std::int64_t deadline_ns);
  // As Set, unless it is set for an earlier time already. Any thread.
  void Advance(std::int64_t deadline_ns);
  void Cancel();     // any thread
  bool set() const;  // any thread

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Watches an fd, level-triggered: the callback runs in each iteration in which
// the fd is ready. The fd is borrowed and must stay open as long as the watch; the
// kernel holds its file until the loop's next iteration after the watch is gone.
// Destroying it (from within a callback too) means it is never called again.
class Watch {
 public:
  // An error, or a hang-up of both directions, is reported as all that is watched for. A peer that has only
  // shut down its sending side is readable (the read says 0), and no hang-up.
  enum Events : unsigned {
    kRead = 1,
    kWrite = 2,
    kHangUp = 4,  // errors and hang-ups alone, for who does not read or write at the moment
  };
  Watch(EventLoop& loop, int fd, unsigned events, std::move_only_function<void(unsigned ready)> callback,
        Tier tier = Tier::kControl);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();
  void SetEvents(unsigned events);  // 0: none for now

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Watches an eventfd that nobody reads: the callback runs once or more after each
// write, several writes may come as one, and it costs no system call and no
// operation an event. For doorbells (ioeventfds) and other wake-ups whose count
// does not matter. A write from before the watch counts. The fd is borrowed.
class EventFdWatch {
 public:
  EventFdWatch(EventLoop& loop, int event_fd, Callback callback, Tier tier = Tier::kIo);
  EventFdWatch(const EventFdWatch&) = delete;
  EventFdWatch& operator=(const EventFdWatch&) = delete;
  ~EventFdWatch();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Something that a loop which polls looks at itself, so that nobody need tell it.
class Poller {
 public:
  // `look` is true if there is work, which it has scheduled. `go_to_sleep` comes before the loop
  // sleeps: from then on it is to be told; true as the other, if work has come meanwhile.
  Poller(EventLoop& loop, std::function<bool()> look, std::function<bool()> go_to_sleep);
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;
  ~Poller();

 private:
  friend class Polling;
  EventLoop::Impl& loop_;
  std::function<bool()> look_;
  std::function<bool()> go_to_sleep_;
};

}  // namespace gyre::loop
