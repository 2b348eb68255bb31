#include "loop/ring_sources.h"

#include "loop/call_meter.h"

namespace gyre::loop {

// An operation that the kernel has not taken yet may name a slot.
bool RingSources::ForgetFiles(Ring& ring) {
  if (to_forget_.empty()) [[likely]] {
    return true;
  }
  if (ring.unsubmitted() != 0) {
    return false;
  }
  for (const unsigned slot : to_forget_) {
    ring.ForgetFile(slot);
  }
  to_forget_.clear();
  return true;
}

bool RingSources::Prepare(Ring& ring) {
  // Withdrawals first: a new watch on the same fd must not meet the old one's poll.
  std::size_t withdrawn = 0;
  while (withdrawn < to_withdraw_.size() && ring.space() > 0) {
    ring.Cancel(to_withdraw_[withdrawn++]);
  }
  to_withdraw_.erase(to_withdraw_.begin(), to_withdraw_.begin() + static_cast<std::ptrdiff_t>(withdrawn));
  while (!to_prepare_.empty() && ring.space() > 0) {
    to_prepare_.PopFront().Prepare(ring);
  }
  return AllPrepared();
}

void RingSources::RunReady(Tier tier) {
  auto& batch = batch_[Index(tier)];
  batch.Append(ready_[Index(tier)]);
  if (batch.empty()) {
    return;
  }
  CallMeter::Series series(meter_, SourceKind::kReady, true);
  while (!batch.empty()) {
    RingSource& source = batch.PopFront();
    std::shared_ptr<RingSource> gone;
    // It may be running further up the stack, where it waits for I/O in its callback.
    auto* const outer = source.running_;
    source.running_ = outer != nullptr ? outer : &gone;
    source.Run();
    source.running_ = outer;
    series.Called();
  }
}

}  // namespace gyre::loop
