#include "gyre/loop/async_op.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gyre/base/check.h"
#include "loop/event_loop_impl.h"

namespace gyre::loop {
namespace {

// The kernel takes less than 2 GiB at a time, and says how much it did.
std::uint32_t Length(std::size_t size) {
  return static_cast<std::uint32_t>(std::min<std::size_t>(size, std::size_t{1} << 30));
}

}  // namespace

struct RegisteredFile::Impl final : RingSource {
  Impl(EventLoop::Impl& owner, int descriptor)
      : RingSource(owner.sources, Tier::kIo), loop(owner), fd(descriptor) {}
  // Before any operation on it is prepared: it was asked for earlier.
  void Prepare(Ring& ring) override { slot = ring.RegisterFile(fd); }
  void OnCompletion(const Completion& /*completion*/) override {}
  void Run() override {}

  EventLoop::Impl& loop;
  const int fd;
  FileSlot slot;
};

RegisteredFile::RegisteredFile(EventLoop& loop, int fd) : impl_(std::make_shared<Impl>(*loop.impl_, fd)) {
  impl_->loop.AssertMayChangeSources();
  impl_->loop.users.fetch_add(1);
  impl_->sources.WantPrepare(*impl_);
}

RegisteredFile::~RegisteredFile() {
  impl_->loop.AssertMayChangeSources();
  impl_->Unlink();
  if (const FileSlot slot = std::exchange(impl_->slot, std::nullopt)) {
    impl_->sources.ForgetFile(*slot);
    impl_->loop.wakeup.WakeIfAsleep();  // so that the kernel lets go of the file
  }
  impl_->loop.users.fetch_sub(1);
}

int RegisteredFile::fd() const { return impl_->fd; }

bool RegisteredFile::registered() const { return impl_->slot.has_value(); }

FileRef::FileRef(const RegisteredFile& file) : fd_(file.fd()), registered_(file.impl_.get()) {}

// What a completion touches are its first two cache lines; OpTable::Prefetch asks for these.
struct alignas(64) AsyncOp::Impl final : RingSource {
  enum class State : std::uint8_t {
    kIdle,
    kQueued,    // in the list of operations to prepare
    kInFlight,  // in the ring, or with the kernel
    kReady,     // in the list of callbacks to run
  };
  Impl(EventLoop& event_loop, EventLoop::Impl& owner, std::shared_ptr<void> memory, Done function,
       Tier on_tier)
      : RingSource(owner.sources, on_tier),
        done(std::move(function)),
        loop_impl(owner),
        loop(event_loop),
        buffers(std::move(memory)) {}
  void Start(FileRef file, OpKind kind, const void* memory = nullptr, std::uint32_t size = 0,
             std::uint64_t offset = 0, std::uint64_t extra = 0);
  void StartVector(FileRef file, std::span<const iovec> pieces, OpKind plain, std::uint64_t offset,
                   int flags = 0);
  void DoneHere(std::int32_t with);
  void Cancel(std::int32_t because);
  void Orphan();
  void Prepare(Ring& ring) override;
  void OnCompletion(const Completion& completion) override;
  void Run() override;

  State state = State::kIdle;
  bool orphaned = false;
  bool limited = false;        // by `deadline`
  std::int32_t cancelled = 0;  // why, -errno, once the kernel was told
  std::int32_t result = 0;
  Token token = 0;
  Done done;
  const void* touched = nullptr;  // by `done`

  EventLoop::Impl& loop_impl;
  Operation operation;
  const RegisteredFile::Impl* registered = nullptr;  // the operation's file, if it is one
  std::vector<iovec> vectors;                        // keeps its capacity
  EventLoop& loop;
  std::shared_ptr<void> buffers;
  std::unique_ptr<Timer> deadline;   // made when one is first asked for
  std::shared_ptr<RingSource> self;  // while the kernel has the operation of one that is gone
  sockaddr_storage address{};
};

// Member by member: who puts an operation together elsewhere and copies it waits for each of its members,
// which the copy reads in larger pieces than they were written in.
void AsyncOp::Impl::Start(FileRef file, OpKind kind, const void* memory, std::uint32_t size,
                          std::uint64_t offset, std::uint64_t extra) {
  loop_impl.AssertMayChangeSources();
  CHECK(state == State::kIdle);
  operation.kind = kind;
  operation.fd = file.fd_;
  operation.memory = memory;
  operation.size = size;
  operation.offset = offset;
  operation.extra = extra;
  registered = file.registered_;
  touched = nullptr;
  cancelled = 0;
  // Of a plain fd not: until the operation is submitted, who gives it up may close that, and it become
  // another file's.
  if (registered != nullptr && registered->slot && loop_impl.MayPrepareNow()) {
    return Prepare(loop_impl.ring);
  }
  state = State::kQueued;
  sources.WantPrepare(*this);
  loop_impl.wakeup.WakeIfAsleep();
}

// One piece is a plain buffer: the kernel copies no vector.
void AsyncOp::Impl::StartVector(FileRef file, std::span<const iovec> pieces, OpKind plain,
                                std::uint64_t offset, int flags) {
  const auto extra = static_cast<std::uint64_t>(flags);
  if (pieces.size() == 1) {
    return Start(file, plain, pieces[0].iov_base, Length(pieces[0].iov_len), offset, extra);
  }
  CHECK(state == State::kIdle);
  vectors.assign(pieces.begin(), pieces.end());
  const OpKind vectored = plain == OpKind::kRead ? OpKind::kReadVector : OpKind::kWriteVector;
  Start(file, vectored, vectors.data(), Length(pieces.size()), offset, extra);
}

void AsyncOp::Impl::DoneHere(std::int32_t with) {
  CHECK(loop_impl.OnLoopThread() && state == State::kIdle);
  result = with;
  operation.kind = OpKind::kRead;  // none whose result is to be closed
  state = State::kReady;
  sources.Ready(*this);
}

void AsyncOp::Impl::Prepare(Ring& ring) {
  state = State::kInFlight;
  token = sources.ops().Add(*this);
  operation.file_slot = registered != nullptr ? registered->slot : std::nullopt;
  ring.Start(token, operation);
}

void AsyncOp::Impl::OnCompletion(const Completion& completion) {
  token = 0;
  if (orphaned) [[unlikely]] {
    const auto alive = std::exchange(self, nullptr);
    --sources.orphans;
    if (operation.kind == OpKind::kAccept && completion.result >= 0) {
      ::close(completion.result);
    }
    return;
  }
  result = completion.result == -ECANCELED && cancelled != 0 ? cancelled : completion.result;
  __builtin_prefetch(touched, 1);  // of null it is nothing
  state = State::kReady;
  sources.Ready(*this);
}

void AsyncOp::Impl::Run() {
  state = State::kIdle;
  if (std::exchange(limited, false)) [[unlikely]] {
    deadline->Cancel();
  }
  done(result);
}

void AsyncOp::Impl::Cancel(std::int32_t because) {
  loop_impl.AssertMayChangeSources();
  if (state == State::kQueued) {
    Unlink();
    result = because;
    state = State::kReady;
    sources.Ready(*this);
  } else if (state == State::kInFlight && cancelled == 0) {
    cancelled = because;
    sources.Withdraw(token);
  } else {
    return;
  }
  loop_impl.wakeup.WakeIfAsleep();
}

void AsyncOp::Impl::Orphan() {
  loop_impl.AssertMayChangeSources();
  Abandon();
  deadline.reset();
  orphaned = true;
  if (state == State::kInFlight) {
    ++sources.orphans;
    self = shared_from_this();
    Cancel(-ECANCELED);
  } else if (state == State::kReady && operation.kind == OpKind::kAccept && result >= 0) {
    ::close(result);  // nobody will be told of it
  }
  Unlink();
}

AsyncOp::AsyncOp(EventLoop& loop, std::shared_ptr<void> buffers, Done done, Tier tier)
    : impl_(std::make_shared<Impl>(loop, *loop.impl_, std::move(buffers), std::move(done), tier)) {
  impl_->loop_impl.users.fetch_add(1);
}

AsyncOp::~AsyncOp() {
  impl_->Orphan();
  impl_->loop_impl.users.fetch_sub(1);
}

void AsyncOp::Read(FileRef file, std::span<std::byte> into, std::uint64_t offset) {
  impl_->Start(file, OpKind::kRead, into.data(), Length(into.size()), offset);
}

void AsyncOp::Write(FileRef file, std::span<const std::byte> from, std::uint64_t offset) {
  impl_->Start(file, OpKind::kWrite, from.data(), Length(from.size()), offset);
}

void AsyncOp::ReadVector(FileRef file, std::span<const iovec> into, std::uint64_t offset) {
  impl_->StartVector(file, into, OpKind::kRead, offset);
}

void AsyncOp::WriteVector(FileRef file, std::span<const iovec> from, std::uint64_t offset,
                          Durability durability) {
  impl_->StartVector(file, from, OpKind::kWrite, offset, durability == Durability::kAtOnce ? RWF_DSYNC : 0);
}

void AsyncOp::WriteVectorHere(FileRef file, std::span<const iovec> from, std::uint64_t offset) {
  CHECK(!pending());
  const ssize_t count =
      ::pwritev(file.fd_, from.data(), static_cast<int>(from.size()), static_cast<off_t>(offset));
  impl_->DoneHere(count < 0 ? -errno : static_cast<std::int32_t>(count));
}

void AsyncOp::DoneHere(std::int32_t result) { impl_->DoneHere(result); }

void AsyncOp::Sync(FileRef file) { impl_->Start(file, OpKind::kSync); }

void AsyncOp::DataSync(FileRef file) { impl_->Start(file, OpKind::kDataSync); }

void AsyncOp::Allocate(FileRef file, int mode, std::uint64_t offset, std::uint64_t size) {
  impl_->Start(file, OpKind::kAllocate, nullptr, static_cast<std::uint32_t>(mode), offset, size);
}

void AsyncOp::Accept(FileRef listener) { impl_->Start(listener, OpKind::kAccept); }

void AsyncOp::Connect(FileRef file, const sockaddr& address, socklen_t size) {
  CHECK(!pending() && size <= sizeof(impl_->address));
  std::memcpy(&impl_->address, &address, size);
  impl_->Start(file, OpKind::kConnect, &impl_->address, size);
}

void AsyncOp::Receive(FileRef file, std::span<std::byte> into) {
  impl_->Start(file, OpKind::kReceive, into.data(), Length(into.size()));
}

void AsyncOp::Send(FileRef file, std::span<const std::byte> from) {
  impl_->Start(file, OpKind::kSend, from.data(), Length(from.size()));
}

void AsyncOp::SetDeadline(std::int64_t deadline_ns) {
  CHECK(pending());
  if (!impl_->deadline) {
    impl_->deadline = std::make_unique<Timer>(
        impl_->loop, ClockType::kRealtime, [impl = impl_.get()] { impl->Cancel(-ETIME); }, impl_->tier);
  }
  impl_->limited = true;
  impl_->deadline->Set(deadline_ns);
}

void AsyncOp::WillTouch(const void* where) {
  CHECK(pending());
  impl_->touched = where;
}

void AsyncOp::Cancel() { impl_->Cancel(-ECANCELED); }

bool AsyncOp::pending() const { return impl_->state != Impl::State::kIdle; }

}  // namespace gyre::loop
