#include "gyre/base/big_lock.h"

#include "gyre/base/check.h"

namespace gyre {
namespace {

std::atomic<std::uint64_t> next_thread_id{1};

std::uint64_t ThisThread() {
  thread_local const std::uint64_t id = next_thread_id.fetch_add(1, std::memory_order_relaxed);
  return id;
}

}  // namespace

void BigLock::Lock() {
  CHECK(!HeldByMe());
  if (!mutex_.try_lock()) {
    contended_.fetch_add(1, std::memory_order_relaxed);
    mutex_.lock();
  }
  NoteOwner();
}

void BigLock::Unlock() {
  CHECK(HeldByMe());
  owner_.store(0, std::memory_order_relaxed);
  mutex_.unlock();
}

// Relaxed is enough: a thread only ever compares with its own id, which it alone stores.
bool BigLock::HeldByMe() const { return owner_.load(std::memory_order_relaxed) == ThisThread(); }

void BigLock::AssertHeld() const { CHECK(HeldByMe()); }

BigLock::Stats BigLock::stats() const {
  return {.acquired = acquired_.load(std::memory_order_relaxed),
          .contended = contended_.load(std::memory_order_relaxed)};
}

void BigLock::NoteOwner() {
  owner_.store(ThisThread(), std::memory_order_relaxed);
  acquired_.fetch_add(1, std::memory_order_relaxed);
}

void BigCondVar::Wait(BigLock& lock) {
  lock.AssertHeld();
  lock.owner_.store(0, std::memory_order_relaxed);
  std::unique_lock inner(lock.mutex_, std::adopt_lock);
  cond_.wait(inner);
  inner.release();
  lock.NoteOwner();
}

}  // namespace gyre
