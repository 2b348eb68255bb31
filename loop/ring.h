// One io_uring, as much of it as the loop needs. ring.cc is the only file that
// names io_uring_*. The kernel binds the ring to the thread that made it
// (SINGLE_ISSUER): every member is that thread's alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "gyre/base/result.h"

struct io_uring_probe;  // NOLINT(readability-identifier-naming): the kernel's

namespace gyre::loop {

// What comes back with a completion. 0 is never handed to anybody: completions
// of no interest (of cancellations) carry it.
using Token = std::uint64_t;

struct Completion {
  Token token = 0;
  std::int32_t result = 0;  // poll events, or a negative errno
  bool more = false;        // the operation goes on and will complete again
};

enum class OpKind : std::uint8_t {
  kRead,
  kWrite,
  kReadVector,
  kWriteVector,
  kSync,
  kDataSync,
  kAccept,
  kConnect,
  kReceive,
  kSend,
  kAllocate,  // fallocate(2): `size` is its mode, `extra` its length
};

// A file's place among those that the ring has registered.
using FileSlot = std::optional<unsigned>;

// What to do on which file. All of it must stay until the completion.
struct Operation {
  OpKind kind = OpKind::kRead;
  int fd = -1;
  FileSlot file_slot = std::nullopt;  // used instead of `fd`
  const void* memory = nullptr;       // a buffer, an array of iovec, or an address
  std::uint32_t size = 0;             // of it: bytes, or vectors
  std::uint64_t offset = 0;           // in the file
  std::uint64_t extra = 0;            // of a read or write the flags of preadv2(2); kAllocate
};

// A small ring is made faster; a large one takes more completions before the kernel has to keep them itself.
enum class RingSize : std::uint8_t { kSmall, kLarge };

// What the kernel gave us, best first: io_uring of 5.13 is needed, of 6.1 is best.
struct RingFeatures {
  bool deferred_work = false;  // completions are made by our own wait: no interrupt, no extra wake-up (6.1)
  bool work_flag = false;      // the ring says when there is such work: reaping needs no system call (5.19)
  bool registered_fd = false;  // the ring's own fd is looked up once (5.18)
};

class Ring {
 public:
  // The error is kUsage and says which sysctl, filter or limit forbids the ring.
  static Result<Ring> Create(RingSize size = RingSize::kSmall);
  Ring(Ring&&) noexcept;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  Ring& operator=(Ring&&) = delete;
  ~Ring();

  // How many operations can be prepared before the next Submit or Wait.
  unsigned space() const;
  // How many have been prepared that the kernel has not taken.
  unsigned unsubmitted() const;
  // Something was prepared since the last Submit or Wait, or is unsubmitted.
  bool HasPrepared() const;
  // Submit or Wait would bring some, without a sleep, as far as that can be known without a system call: what
  // the kernel holds may be missed, never for ever by who sleeps or looks again a while later.
  bool HasCompletions() const;

  // Prepare an operation; space() must not be 0. `events` are those of poll(2).
  void PollOnce(Token token, int fd, unsigned events);
  // Goes on until it completes with `more` unset. Edge-triggered: each wake-up of the fd counts.
  void PollEveryTime(Token token, int fd, unsigned events);
  void Start(Token token, const Operation& operation);
  // Registers a file, so that operations need not look its fd up. Nothing where the kernel does not take it;
  // the fd is as good then. The kernel holds the file until it is forgotten and its operations are done.
  // Before it is forgotten, they have been submitted.
  FileSlot RegisterFile(int fd);
  void ForgetFile(unsigned slot);
  // Withdraws an operation; its completion (-ECANCELED, or what came first) still arrives.
  void Cancel(Token token);

  // Hands what was prepared to the kernel, and appends every completion there is. Does not sleep. 0 or a
  // negative errno.
  int Submit(std::vector<Completion>& completions);
  // Submits, sleeps until something completes (at most timeout_ns; -1: for ever;
  // 0: not at all), and appends every completion there is to `completions`.
  // A signal ends the sleep early, which is no error. 0 or a negative errno.
  int Wait(std::int64_t timeout_ns, std::vector<Completion>& completions);

  const RingFeatures& features() const;
  std::uint64_t prepared() const;  // operations so far; any thread

 private:
  struct State;
  explicit Ring(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// The first operation that the loop needs and this kernel, by its own list, has not; null if it has all.
const char* MissingOperation(const io_uring_probe& probe);

// Why io_uring_setup(2) failed, given /proc/sys/kernel/io_uring_disabled where there is one.
Error RingRefused(int sys_errno, std::optional<int> io_uring_disabled);

}  // namespace gyre::loop
