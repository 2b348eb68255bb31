// What becomes of a SIGBUS on memory whose pages may fail: a file that somebody
// truncates, a full file system behind a sparse file, a hardware memory error.
// The page is exchanged for a private one of zeros, so that whoever touched it can
// go on to where it ends in order, and the error is posted for the main loop. A
// SIGBUS anywhere else has the action that it had before.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre {

struct BusError {
  const std::byte* memory = nullptr;  // start of the guarded range
  std::uint64_t offset = 0;           // in it, of the page
  bool hardware = false;              // a memory error, not a page that the file system has not
  // Somebody needed the page, and has got zeros. If not, the kernel has taken the
  // page out, and its next use is an error of its own.
  bool used = true;
};

// A mailbox of bus errors with an eventfd. Any thread; Post also in a signal handler.
class BusErrors {
 public:
  static Result<std::unique_ptr<BusErrors>> Create();

  // Readable while there is something to take.
  int event_fd() const { return event_fd_.get(); }
  // Whether somebody has met one, taken or not, so that memory is not what it was. One load.
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  // Memory is being made anew: it is not lost, unless another one is met from here on.
  void Forget() { lost_.store(false, std::memory_order_seq_cst); }
  // Keeps the first few until they are taken: one is enough to stop a VM.
  void Post(const BusError& error);
  std::vector<BusError> Take();

 private:
  enum class State : std::uint8_t { kFree, kBeingWritten, kReady };
  struct Record {
    std::atomic<State> state{State::kFree};
    BusError error;
  };
  static constexpr std::size_t kRecords = 8;

  explicit BusErrors(UniqueFd event_fd) : event_fd_(std::move(event_fd)) {}

  UniqueFd event_fd_;
  std::atomic<bool> lost_{false};
  std::array<Record, kRecords> records_;
};

// What the signal's handler does, for whoever has been told by the kernel that a page of
// `bytes` cannot be had, instead of touching it: an error of EFAULT or EHWPOISON from a
// system call that was given them. `written`: they were to be written, not read. Pages that
// are not there are exchanged and posted; true if there was one in a guarded range. Any thread.
bool FindBusErrors(std::span<std::byte> bytes, bool written);

// How many the calling thread has met so far where it touched guarded memory: what it has copied is what was
// there if this has stayed the same, and nobody else has had pages exchanged.
std::uint64_t BusErrorsMet();

// Guards [memory, memory + size), whole pages of `unit` bytes, for its life: a bus
// error there is posted to `errors`, which outlives it. The first one of the process
// installs the signal's handler. The memory is unmapped after it. Any thread; the
// signal must not be blocked in a thread that touches the memory.
class BusErrorGuard {
 public:
  BusErrorGuard() = default;  // of nothing
  BusErrorGuard(std::span<std::byte> memory, std::size_t unit, BusErrors& errors);
  BusErrorGuard(BusErrorGuard&& other) noexcept;
  BusErrorGuard& operator=(BusErrorGuard&& other) noexcept;
  BusErrorGuard(const BusErrorGuard&) = delete;
  BusErrorGuard& operator=(const BusErrorGuard&) = delete;
  ~BusErrorGuard();

  // Whether pages of it have been exchanged: what is behind the memory is no more what it shows there.
  bool exchanged() const;

  struct Entry;

 private:
  Entry* entry_ = nullptr;
};

}  // namespace gyre
