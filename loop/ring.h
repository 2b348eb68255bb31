// One io_uring, as much of it as the loop needs. ring.cc is the only file that
// names io_uring_*. The kernel binds the ring to the thread that made it
// (SINGLE_ISSUER): every member is that thread's alone.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "gyre/base/result.h"

namespace gyre::loop {

// What comes back with a completion. 0 is never handed to anybody: completions
// of no interest (of cancellations) carry it.
using Token = std::uint64_t;

struct Completion {
  Token token = 0;
  std::int32_t result = 0;  // poll events, or a negative errno
  bool more = false;        // the operation goes on and will complete again
};

class Ring {
 public:
  // The error is kUsage and says which sysctl, filter or limit forbids the ring.
  static Result<Ring> Create();
  Ring(Ring&&) noexcept;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  Ring& operator=(Ring&&) = delete;
  ~Ring();

  // How many operations can be prepared before the next Submit or Wait.
  unsigned space() const;

  // Prepare an operation; space() must not be 0. `events` are those of poll(2).
  void PollOnce(Token token, int fd, unsigned events);
  // Goes on until it completes with `more` unset. Edge-triggered: each wake-up of the fd counts.
  void PollEveryTime(Token token, int fd, unsigned events);
  // Withdraws the poll; its completion (-ECANCELED, or what came first) still arrives.
  void CancelPoll(Token token);

  // Hands what was prepared to the kernel. Does not sleep. 0 or a negative errno.
  int Submit();
  // Submits, sleeps until something completes (at most timeout_ns; -1: for ever;
  // 0: not at all), and appends every completion there is to `completions`.
  // A signal ends the sleep early, which is no error. 0 or a negative errno.
  int Wait(std::int64_t timeout_ns, std::vector<Completion>& completions);

 private:
  struct State;
  explicit Ring(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Why io_uring_setup(2) failed, given /proc/sys/kernel/io_uring_disabled where there is one.
Error RingRefused(int sys_errno, std::optional<int> io_uring_disabled);

}  // namespace gyre::loop
