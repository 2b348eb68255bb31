#include "gyre/base/big_lock.h"

#include "gyre/base/check.h"
#include "gyre/base/cycles.h"

namespace gyre {
namespace {

std::atomic<std::uint64_t> next_thread_id{1};

// How long the lock is asked for again and again before its next owner sleeps. A vCPU's exit or a client's
// request holds it for less, so that most waits cost neither of the two a system call and a switch; an owner
// that has lost its processor is not waited for long. A few microseconds.
constexpr std::uint64_t kSpinCycles = 1U << 14U;

std::uint64_t ThisThread() {
  thread_local const std::uint64_t id = next_thread_id.fetch_add(1, std::memory_order_relaxed);
  return id;
}

}  // namespace

void BigLock::Lock() {
  CHECK(!HeldByMe());
  if (mutex_.try_lock()) {
    NoteOwner();
    return;
  }
  const std::uint64_t start = Cycles();
  contended_.fetch_add(1, std::memory_order_relaxed);
  if (!SpinFor(start)) {
    mutex_.lock();
  }
  NoteOwner();
  waits_.Add(held_since_ > start ? held_since_ - start : 0);
}

bool BigLock::SpinFor(std::uint64_t start) {
  while (Cycles() - start < kSpinCycles) {
    if (owner_.load(std::memory_order_relaxed) == 0 && mutex_.try_lock()) {
      return true;
    }
    __builtin_ia32_pause();
  }
  return false;
}

void BigLock::Unlock() {
  CHECK(HeldByMe());
  NoteEnd();
  mutex_.unlock();
}

// Relaxed is enough: a thread only ever compares with its own id, which it alone stores.
bool BigLock::HeldByMe() const { return owner_.load(std::memory_order_relaxed) == ThisThread(); }

void BigLock::AssertHeld() const { CHECK(HeldByMe()); }

BigLock::Stats BigLock::stats() const {
  return {.acquired = acquired_.load(std::memory_order_relaxed),
          .contended = contended_.load(std::memory_order_relaxed),
          .waits = waits_.Read(),
          .holds = holds_.Read()};
}

void BigLock::NoteOwner() {
  owner_.store(ThisThread(), std::memory_order_relaxed);
  acquired_.store(acquired_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  held_since_ = Cycles();
}

void BigLock::NoteEnd() {
  // Another CPU's counter may be a little behind.
  const std::uint64_t now = Cycles();
  holds_.Add(now > held_since_ ? now - held_since_ : 0);
  owner_.store(0, std::memory_order_relaxed);
}

void BigCondVar::Wait(BigLock& lock) {
  lock.AssertHeld();
  lock.NoteEnd();
  std::unique_lock inner(lock.mutex_, std::adopt_lock);
  cond_.wait(inner);
  inner.release();
  lock.NoteOwner();
}

bool BigCondVar::WaitFor(BigLock& lock, std::chrono::nanoseconds timeout) {
  lock.AssertHeld();
  lock.NoteEnd();
  std::unique_lock inner(lock.mutex_, std::adopt_lock);
  const bool woken = cond_.wait_for(inner, timeout) == std::cv_status::no_timeout;
  inner.release();
  lock.NoteOwner();
  return woken;
}

}  // namespace gyre
