// The sources that complete through the ring: watches, event fds, asynchronous
// operations. What they want of the kernel is gathered during an iteration, and
// prepared and submitted with its wait (an operation on a registered file is
// prepared as it starts); what completed waits here for its turn.
// Nothing here makes a system call, but where a file is registered or forgotten. Guarded by the big lock
// where there is one.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "gyre/loop/event_loop.h"
#include "loop/intrusive_list.h"
#include "loop/op_table.h"
#include "loop/ring.h"

namespace gyre::loop {

class CallMeter;
class RingSources;

// Linked as a ListNode while it waits: to be prepared, or for its turn to run. Its owner has the
// one reference to it, but for who goes while it runs or the kernel has it: there is one operation
// after the other, and none of them counts references.
struct RingSource : ListNode, OpOwner, std::enable_shared_from_this<RingSource> {
  RingSource(RingSources& owner, Tier on_tier) : sources(owner), tier(on_tier) {}
  virtual void Prepare(Ring& ring) = 0;  // its operation; the ring has space
  virtual void Run() = 0;                // may change or destroy any source, itself too
  // Its owner goes: if it is running, it stays until that is over.
  void Abandon() {
    if (running_ != nullptr) {
      *running_ = shared_from_this();
    }
  }
  RingSources& sources;

 private:
  friend class RingSources;
  std::shared_ptr<RingSource>* running_ = nullptr;  // while it runs: where a reference keeps it until it has

 public:  // Last, so that small members of who derives from it follow in the same cache line.
  const Tier tier;
};

class RingSources {
 public:
  explicit RingSources(CallMeter& meter) : meter_(meter) {}

  OpTable& ops() { return ops_; }
  void WantPrepare(RingSource& source) { to_prepare_.PushBack(source); }
  void Ready(RingSource& source) { ready_[Index(source.tier)].PushBack(source); }
  // Cancels an operation; its last completion still comes, to its owner unless Disown was called.
  void Withdraw(Token token) { to_withdraw_.push_back(token); }

  // The ring no longer keeps the file, from the next ForgetFiles on.
  void ForgetFile(unsigned slot) { to_forget_.push_back(slot); }

  // False, and nothing is done, while there are operations that are still to be submitted.
  bool ForgetFiles(Ring& ring);
  // Nothing waits for Prepare.
  bool AllPrepared() const { return to_prepare_.empty() && to_withdraw_.empty(); }
  // Prepares what fits into the ring; false if some did not.
  bool Prepare(Ring& ring);
  bool HasReady(Tier tier) const { return !ready_[Index(tier)].empty() || !batch_[Index(tier)].empty(); }
  // Runs those that are ready when it starts, and those that a run further up the stack has not come to yet.
  void RunReady(Tier tier);

  // Operations whose owner is gone but whose memory the kernel still has.
  std::size_t orphans = 0;

 private:
  static std::size_t Index(Tier tier) { return static_cast<std::size_t>(tier); }

  CallMeter& meter_;
  OpTable ops_;
  IntrusiveList<RingSource> to_prepare_;
  std::array<IntrusiveList<RingSource>, kTiers> ready_;
  std::array<IntrusiveList<RingSource>, kTiers> batch_;  // of the RunReady in progress
  std::vector<Token> to_withdraw_;
  std::vector<unsigned> to_forget_;
};

}  // namespace gyre::loop
