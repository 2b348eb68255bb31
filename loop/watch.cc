#include <poll.h>

#include <cerrno>
#include <utility>

#include "loop/event_loop_impl.h"

// A watch's poll is one-shot: it is placed again after the callback ran, which
// makes the watch level-triggered (multishot polls are not: io_uring_prep_poll_add(3)).
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

struct Watch::Impl final : RingSource {
  enum class State : std::uint8_t {
    kIdle,       // no events wanted, nothing in flight
    kWantsPoll,  // in the list of operations to prepare
    kPolling,    // its poll is with the kernel
    kReady,      // in the list of callbacks to run
  };
  Impl(EventLoop::Impl& owner, int descriptor, std::move_only_function<void(unsigned)> function, Tier on_tier)
      : RingSource(owner.sources, on_tier), loop(owner), fd(descriptor), callback(std::move(function)) {}
  // True if the ring has to be told.
  bool SetEvents(unsigned wanted);
  bool Remove();
  void Withdraw();
  void Prepare(Ring& ring) override;
  void OnCompletion(const Completion& completion) override;
  void Run() override;

  EventLoop::Impl& loop;
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

void Watch::Impl::Prepare(Ring& ring) {
  state = State::kPolling;
  polled_events = events;
  poll = sources.ops().Add(*this);
  if (for_changes) {
    ring.PollEveryTime(poll, fd, ToPoll(events));
  } else {
    ring.PollOnce(poll, fd, ToPoll(events));
  }
}

void Watch::Impl::OnCompletion(const Completion& completion) {
  const unsigned seen = IsTransient(completion.result) ? 0 : FromPoll(completion.result);
  const bool unwanted = (seen & events) == 0;
  if (completion.more) {
    if (unwanted) {
      return;
    }
    Withdraw();
  }
  poll = 0;
  polled_events = 0;
  for_changes = unwanted && !IsTransient(completion.result);
  ready = seen;
  state = State::kReady;
  sources.Ready(*this);
}

void Watch::Impl::Run() {
  const unsigned seen = ready & events;
  state = State::kIdle;
  SetEvents(events);
  if (seen != 0) {
    callback(seen);
  }
}

bool Watch::Impl::SetEvents(unsigned wanted) {
  const unsigned before = std::exchange(events, wanted);
  switch (state) {
    case State::kReady:
      return false;  // Run goes by the new events
    case State::kPolling:
      // A poll for more than is wanted may stay: what it brings in excess is dropped. That makes it free to
      // turn interest off and on again, as flow control does. One for changes has dropped what it brought
      // while nobody wanted it, and would not bring it again.
      if ((wanted & ~(for_changes ? before : polled_events)) == 0) {
        return false;
      }
      Withdraw();
      break;
    case State::kIdle:
    case State::kWantsPoll:
      break;
  }
  Unlink();
  state = State::kIdle;
  if (wanted == 0) {
    return false;
  }
  state = State::kWantsPoll;
  sources.WantPrepare(*this);
  return true;
}

bool Watch::Impl::Remove() {
  Unlink();
  const bool polling = state == State::kPolling;
  if (polling) {
    Withdraw();
  }
  state = State::kIdle;
  events = 0;
  return polling;
}

void Watch::Impl::Withdraw() {
  sources.ops().Disown(poll);
  sources.Withdraw(poll);
  poll = 0;
  polled_events = 0;
}

Watch::Watch(EventLoop& loop, int fd, unsigned events, std::move_only_function<void(unsigned ready)> callback,
             Tier tier)
    : impl_(std::make_shared<Impl>(*loop.impl_, fd, std::move(callback), tier)) {
  impl_->loop.users.fetch_add(1);
  SetEvents(events);
}

Watch::~Watch() {
  impl_->loop.AssertMayChangeSources();
  impl_->Abandon();
  if (impl_->Remove()) {
    impl_->loop.wakeup.WakeIfAsleep();  // so that the kernel lets go of the fd
  }
  impl_->loop.users.fetch_sub(1);
}

void Watch::SetEvents(unsigned events) {
  impl_->loop.AssertMayChangeSources();
  if (impl_->SetEvents(events)) {
    impl_->loop.wakeup.WakeIfAsleep();
  }
}

}  // namespace gyre::loop
