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
  void RunByRing(std::span<Read> reads);
  void RunByCalls(std::span<Read> reads) const;
  void Start(Slot& slot, Read& read);

  EventLoop::Impl& loop;
  const int fd;
  std::deque<Slot> slots;
  std::size_t pending = 0;
  bool ring_waits = false;  // the file does not know RWF_NOWAIT
};

void ReadBatch::Impl::RunByRing(std::span<Read> reads) {
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
                                                 .extra = RWF_NOWAIT});
}

void ReadBatch::Impl::RunByCalls(std::span<Read> reads) const {
  std::int32_t last = 0;
  for (Read& read : reads) {
    if (last >= 0) {
      const ssize_t got = ::readv(fd, read.vectors.data(), static_cast<int>(read.vectors.size()));
      last = static_cast<std::int32_t>(got >= 0 ? got : -errno);
    }
    read.result = last;
  }
}

ReadBatch::ReadBatch(EventLoop& loop, int fd) : impl_(std::make_unique<Impl>(*loop.impl_, fd)) {
  CHECK(IsNonBlocking(fd));
  impl_->loop.users.fetch_add(1);
}

ReadBatch::~ReadBatch() { impl_->loop.users.fetch_sub(1); }

// Of a file without the flag, O_NONBLOCK does not tell the ring of every kernel the same: that of Linux 6.1
// has such a read wait for what comes. readv(2) knows it.
void ReadBatch::Run(std::span<Read> reads) {
  CHECK(impl_->loop.OnLoopThread());
  if (!impl_->ring_waits) {
    impl_->RunByRing(reads);
    const auto refused = [](const Read& read) { return read.result == -EOPNOTSUPP; };
    impl_->ring_waits = std::ranges::any_of(reads, refused);
  }
  if (impl_->ring_waits) {
    impl_->RunByCalls(reads);
  }
}

}  // namespace gyre::loop
