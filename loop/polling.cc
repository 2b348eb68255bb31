#include "loop/polling.h"

#include <algorithm>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/cycles.h"
#include "loop/event_loop_impl.h"

namespace gyre::loop {
namespace {

constexpr std::int64_t kFirstTimeNs = 4000;  // about what a sleep and its end cost

}  // namespace

void Polling::BeginIdle() { idle_since_ = Cycles(); }

void Polling::EndIdle() {
  if (const std::uint64_t since = std::exchange(idle_since_, 0); since != 0) {
    NoteIdle(CyclesToNs(Cycles() - since));
  }
}

void Polling::NoteIdle(std::int64_t idle_ns) {
  if (idle_ns <= time_ns_) {
    return;  // looking has found it
  }
  if (idle_ns > limits_.max_ns) {
    time_ns_ = limits_.shrink == 0 ? 0 : time_ns_ / limits_.shrink;
  } else {
    const std::int64_t grown = time_ns_ * (limits_.grow == 0 ? 2 : limits_.grow);
    time_ns_ = std::min(std::max(grown, kFirstTimeNs), limits_.max_ns);
  }
}

bool Polling::Look() {
  bool found = false;
  for (Poller* const poller : pollers_) {
    found = poller->look_() || found;
  }
  return found;
}

bool Polling::GoToSleep() {
  bool found = false;
  for (Poller* const poller : pollers_) {
    found = poller->go_to_sleep_() || found;
  }
  return found;
}

Poller::Poller(EventLoop& loop, std::function<bool()> look, std::function<bool()> go_to_sleep)
    : loop_(*loop.impl_), look_(std::move(look)), go_to_sleep_(std::move(go_to_sleep)) {
  loop_.AssertMayChangeSources();
  CHECK(loop.polls());
  loop_.users.fetch_add(1);
  loop_.polling.Add(*this);
}

Poller::~Poller() {
  loop_.AssertMayChangeSources();
  loop_.polling.Remove(*this);
  loop_.users.fetch_sub(1);
}

bool EventLoop::polls() const { return impl_->polling.enabled(); }

// What was prepared is with the kernel before anybody looks for more. True if there is work by now.
bool EventLoop::Impl::PollForWork(std::int64_t limit_ns, Scope scope) {
  if (ring.HasPrepared()) {
    (void)ring.Submit(completions);
  }
  if (!completions.empty()) {
    return true;
  }
  polling.BeginIdle();
  const auto found = [&] {
    return ring.HasCompletions() || wakeup.woken() || HasWork(scope) || polling.Look();
  };
  const std::int64_t time_ns = limit_ns < 0 ? polling.time_ns() : std::min(limit_ns, polling.time_ns());
  const std::uint64_t start = Cycles();
  do {
    if (found()) {
      return true;
    }
    _mm_pause();
  } while (CyclesToNs(Cycles() - start) < time_ns);
  return polling.GoToSleep();
}

}  // namespace gyre::loop
