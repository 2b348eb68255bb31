// The loop's watches and their polls on the ring. A poll is one-shot: it is
// placed again after the callback ran, which makes a watch level-triggered
// (multishot polls are not: semantics of the kernel's io_uring_prep_poll_add(3)).
// Nothing here makes a system call; polls and their withdrawals are prepared
// once an iteration, on the loop's thread, and submitted with its wait.
// Guarded by the big lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "loop/intrusive_list.h"
#include "loop/op_table.h"
#include "loop/ring.h"

namespace gyre::loop {

class WatchSet;

struct WatchEntry : ListNode, OpOwner, std::enable_shared_from_this<WatchEntry> {
  enum class State : std::uint8_t {
    kIdle,       // no events wanted, nothing in flight
    kWantsPoll,  // in the set's list of polls to place
    kPolling,    // its poll is with the kernel
    kReady,      // in the set's list of callbacks to run
  };
  WatchEntry(WatchSet& owner, int descriptor, std::move_only_function<void(unsigned)> function)
      : set(owner), fd(descriptor), callback(std::move(function)) {}
  void OnCompletion(const Completion& completion) override;

  WatchSet& set;
  const int fd;
  std::move_only_function<void(unsigned)> callback;
  State state = State::kIdle;
  unsigned events = 0;         // wanted
  unsigned polled_events = 0;  // of the poll with the kernel
  unsigned ready = 0;
  // The last poll brought only what nobody asked for. The kernel adds POLLRDHUP to every poll on the ring, so
  // that one on a half-closed socket completes at once, however often it is placed. The next one therefore
  // goes on until what is wanted comes.
  bool for_changes = false;
  Token poll = 0;
};

class WatchSet {
 public:
  explicit WatchSet(OpTable& ops) : ops_(ops) {}

  // Any change; 0 for none. True if the ring has to be told.
  bool SetEvents(WatchEntry& entry, unsigned events);
  // The entry's callback is not called any more.
  bool Remove(WatchEntry& entry);

  // Prepares what fits into the ring; false if some did not.
  bool PreparePolls(Ring& ring);
  // Runs the callbacks of the watches that are ready.
  void RunReady();

 private:
  friend struct WatchEntry;
  void Withdraw(WatchEntry& entry);

  OpTable& ops_;
  IntrusiveList<WatchEntry> to_poll_;
  IntrusiveList<WatchEntry> ready_;
  IntrusiveList<WatchEntry> batch_;  // of the RunReady in progress
  std::vector<Token> to_withdraw_;
};

}  // namespace gyre::loop
