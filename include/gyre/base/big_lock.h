// The big lock: the seed's iothread mutex. The main loop holds it while it
// dispatches and gives it up only around its wait; a vCPU takes it to serve an
// exit whose region asks for it. It lives on the base floor because memory
// dispatch, the loop and the vCPUs all need it. Outermost in the lock order.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "gyre/base/histogram.h"
#include "gyre/base/mutex.h"
#include "gyre/base/thread_annotations.h"

namespace gyre {

class CAPABILITY("big lock") BigLock {
 public:
  struct Stats {
    std::uint64_t acquired = 0;   // times taken
    std::uint64_t contended = 0;  // times that somebody had to wait, or still does
    // In cycles (CyclesToNs): how long the contended ones waited, and how long each was held. Always on: two
    // readings of the cycle counter a time.
    HistogramCounts waits;
    HistogramCounts holds;
  };

  BigLock() = default;
  BigLock(const BigLock&) = delete;
  BigLock& operator=(const BigLock&) = delete;

  void Lock() ACQUIRE();
  void Unlock() RELEASE();
  bool HeldByMe() const;
  // Aborts unless the calling thread holds the lock.
  void AssertHeld() const ASSERT_CAPABILITY(this);
  Stats stats() const;

 private:
  friend class BigCondVar;
  // Tries for a few microseconds; true if the lock is then ours.
  bool SpinFor(std::uint64_t start);
  void NoteOwner();
  void NoteEnd();

  std::mutex mutex_;
  std::atomic<std::uint64_t> owner_{0};  // an id of the owning thread, 0 for none
  // The holder's.
  std::uint64_t held_since_ = 0;
  std::atomic<std::uint64_t> acquired_{0};
  std::atomic<std::uint64_t> contended_{0};
  Histogram waits_;
  Histogram holds_;
};

class SCOPED_CAPABILITY BigLockGuard {
 public:
  explicit BigLockGuard(BigLock& lock) ACQUIRE(lock) : lock_(lock) { lock_.Lock(); }
  ~BigLockGuard() RELEASE() { lock_.Unlock(); }
  BigLockGuard(const BigLockGuard&) = delete;
  BigLockGuard& operator=(const BigLockGuard&) = delete;

 private:
  BigLock& lock_;
};

// A condition variable to be waited on with the big lock, which is given up meanwhile.
class BigCondVar {
 public:
  // Spurious returns are possible: wait in a loop.
  void Wait(BigLock& lock) REQUIRES(lock);
  // False if the time ran out.
  bool WaitFor(BigLock& lock, std::chrono::nanoseconds timeout) REQUIRES(lock);
  void NotifyOne() { cond_.notify_one(); }
  void NotifyAll() { cond_.notify_all(); }

 private:
  std::condition_variable cond_;
};

}  // namespace gyre
