#include "gyre/loop/read_batch.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <deque>

#include "gyre/base/check.h"
#include "loop/event_loop_impl.h"

namespace gyre::loop {
namespace {

// Of who waits for the rest, where the kernel has not answered all at once.
constexpr std::int64_t kPatienceNs = 1'000'000;

// What blocks would be waited for.
bool IsNonBlocking(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags < 0 || (flags & O_NONBLOCK) != 0;
}

}  // namespace

struct ReadBatch::Impl {
  // One read's answer.
  struct Slot final : OpOwner {
    explicit Slot(std::size_t& number) : pending(number) {}
    void OnCompletion(const Completion& completion) override {
      read->result = completion.result;
      --pending;
    }
    Read* read = nullptr;
    std::size_t& pending;
  };

  Impl(EventLoop::Impl& owner, int descriptor) : loop(owner), fd(descriptor) {}
  void RunOnce(std::span<Read> reads);
  void Start(Slot& slot, Read& read);

  EventLoop::Impl& loop;
  const int fd;
  std::deque<Slot> slots;
  std::size_t pending = 0;
  int flags = RWF_NOWAIT;
};

void ReadBatch::Impl::RunOnce(std::span<Read> reads) {
  while (slots.size() < reads.size()) {
    slots.emplace_back(pending);
  }
  for (std::size_t i = 0; i < reads.size(); ++i) {
    Start(slots[i], reads[i]);
  }
  // The kernel answers what does not wait as it is handed over, unless it could not take all of it at once.
  for (std::int64_t limit_ns = 0; pending != 0; limit_ns = kPatienceNs) {
    loop.SubmitNow(limit_ns);
  }
}

void ReadBatch::Impl::Start(Slot& slot, Read& read) {
  while (loop.ring.space() == 0) {
    loop.SubmitNow(0);
  }
  slot.read = &read;
  ++pending;
  loop.ring.Start(loop.sources.ops().Add(slot), {.kind = OpKind::kReadVector,
                                                 .fd = fd,
                                                 .memory = read.vectors.data(),
                                                 .size = static_cast<std::uint32_t>(read.vectors.size()),
                                                 .flags = flags});
}

ReadBatch::ReadBatch(EventLoop& loop, int fd) : impl_(std::make_unique<Impl>(*loop.impl_, fd)) {
  CHECK(IsNonBlocking(fd));
  impl_->loop.users.fetch_add(1);
}

ReadBatch::~ReadBatch() { impl_->loop.users.fetch_sub(1); }

void ReadBatch::Run(std::span<Read> reads) {
  CHECK(impl_->loop.OnLoopThread());
  impl_->RunOnce(reads);
  // Of a file that does not know the flag, O_NONBLOCK says the same.
  const auto refused = [](const Read& read) { return read.result == -EOPNOTSUPP; };
  if (impl_->flags != 0 && std::ranges::any_of(reads, refused)) {
    impl_->flags = 0;
    impl_->RunOnce(reads);
  }
}

}  // namespace gyre::loop
