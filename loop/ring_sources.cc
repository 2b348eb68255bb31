#include "loop/watch_set.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "gyre/loop/main_loop.h"

namespace gyre::loop {
namespace {

unsigned ToPoll(unsigned events) {
  return ((events & Watch::kRead) != 0 ? unsigned{POLLIN} : 0U) |
         ((events & Watch::kWrite) != 0 ? unsigned{POLLOUT} : 0U);
}

// A poll that the kernel refused (a closed fd) is shown to the callback as an error on the fd.
unsigned FromPoll(std::int32_t result) {
  const unsigned polled = result < 0 ? unsigned{POLLERR} : static_cast<unsigned>(result);
  constexpr unsigned kBoth = POLLERR | POLLHUP | POLLNVAL;
  return ((polled & (POLLIN | kBoth)) != 0 ? unsigned{Watch::kRead} : 0U) |
         ((polled & (POLLOUT | kBoth)) != 0 ? unsigned{Watch::kWrite} : 0U) |
         ((polled & kBoth) != 0 ? unsigned{Watch::kHangUp} : 0U);
}

bool IsTransient(std::int32_t result) {
  return result == -ECANCELED || result == -EINTR || result == -EAGAIN || result == -ENOMEM;
}

}  // namespace

void WatchEntry::OnCompletion(const Completion& completion) {
  const unsigned seen = IsTransient(completion.result) ? 0 : FromPoll(completion.result);
  const bool unwanted = (seen & events) == 0;
  if (completion.more) {
    if (unwanted) {
      return;
    }
    set.Withdraw(*this);
  }
  poll = 0;
  polled_events = 0;
  for_changes = unwanted && !IsTransient(completion.result);
  ready = seen;
  state = State::kReady;
  set.ready_.PushBack(*this);
}

bool WatchSet::SetEvents(WatchEntry& entry, unsigned events) {
  const unsigned before = std::exchange(entry.events, events);
  switch (entry.state) {
    case WatchEntry::State::kReady:
      return false;  // RunReady goes by the new events
    case WatchEntry::State::kPolling:
      // A poll for more than is wanted may stay: what it brings in excess is dropped. That makes it free to
      // turn interest off and on again, as flow control does. One for changes has dropped what it brought
      // while nobody wanted it, and would not bring it again.
      if ((events & ~(entry.for_changes ? before : entry.polled_events)) == 0) {
        return false;
      }
      Withdraw(entry);
      break;
    case WatchEntry::State::kIdle:
    case WatchEntry::State::kWantsPoll:
      break;
  }
  entry.Unlink();
  entry.state = WatchEntry::State::kIdle;
  if (events == 0) {
    return false;
  }
  entry.state = WatchEntry::State::kWantsPoll;
  to_poll_.PushBack(entry);
  return true;
}

bool WatchSet::Remove(WatchEntry& entry) {
  entry.Unlink();
  const bool polling = entry.state == WatchEntry::State::kPolling;
  if (polling) {
    Withdraw(entry);
  }
  entry.state = WatchEntry::State::kIdle;
  entry.events = 0;
  return polling;
}

void WatchSet::Withdraw(WatchEntry& entry) {
  ops_.Disown(entry.poll);
  to_withdraw_.push_back(entry.poll);
  entry.poll = 0;
  entry.polled_events = 0;
}

bool WatchSet::PreparePolls(Ring& ring) {
  // Withdrawals first: a new watch on the same fd must not meet the old one's poll.
  std::size_t withdrawn = 0;
  while (withdrawn < to_withdraw_.size() && ring.space() > 0) {
    ring.CancelPoll(to_withdraw_[withdrawn++]);
  }
  to_withdraw_.erase(to_withdraw_.begin(), to_withdraw_.begin() + static_cast<std::ptrdiff_t>(withdrawn));
  while (!to_poll_.empty() && ring.space() > 0) {
    WatchEntry& entry = to_poll_.PopFront();
    entry.state = WatchEntry::State::kPolling;
    entry.polled_events = entry.events;
    entry.poll = ops_.Add(entry);
    if (entry.for_changes) {
      ring.PollEveryTime(entry.poll, entry.fd, ToPoll(entry.events));
    } else {
      ring.PollOnce(entry.poll, entry.fd, ToPoll(entry.events));
    }
  }
  return to_withdraw_.empty() && to_poll_.empty();
}

void WatchSet::RunReady() {
  batch_.Append(ready_);
  while (!batch_.empty()) {
    const auto entry = batch_.PopFront().shared_from_this();
    const unsigned ready = entry->ready & entry->events;
    entry->state = WatchEntry::State::kIdle;
    SetEvents(*entry, entry->events);
    if (ready != 0) {
      entry->callback(ready);  // may change or destroy any watch, its own too
    }
  }
}

}  // namespace gyre::loop
