#include "gyre/loop/async_op.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
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

struct AsyncOp::Impl final : RingSource {
  enum class State : std::uint8_t {
    kIdle,
    kQueued,    // in the list of operations to prepare
    kInFlight,  // with the kernel
    kReady,     // in the list of callbacks to run
  };
  Impl(EventLoop& event_loop, EventLoop::Impl& owner, std::shared_ptr<void> memory, Done function,
       Tier on_tier)
      : RingSource(owner.sources, on_tier),
        loop(event_loop),
        loop_impl(owner),
        buffers(std::move(memory)),
        done(std::move(function)) {}
  void Start(FileRef file, const Operation& what);
  void StartVector(FileRef file, std::span<const iovec> pieces, OpKind plain, Operation what);
  void Cancel(std::int32_t because);
  void Orphan();
  void Prepare(Ring& ring) override;
  void OnCompletion(const Completion& completion) override;
  void Run() override;

  EventLoop& loop;
  EventLoop::Impl& loop_impl;
  std::shared_ptr<void> buffers;
  Done done;
  State state = State::kIdle;
  bool orphaned = false;
  std::int32_t cancelled = 0;  // why, -errno, once the kernel was told
  std::int32_t result = 0;
  Operation operation;
  const RegisteredFile::Impl* registered = nullptr;  // the operation's file, if it is one
  std::vector<iovec> vectors;                        // keeps its capacity
  sockaddr_storage address{};
  Token token = 0;
  std::shared_ptr<RingSource> self;  // while the kernel has the operation of one that is gone
  std::optional<Timer> deadline;     // made when one is first asked for
};

void AsyncOp::Impl::Start(FileRef file, const Operation& what) {
  loop_impl.AssertMayChangeSources();
  CHECK(state == State::kIdle);
  operation = what;
  operation.fd = file.fd_;
  registered = file.registered_;
  cancelled = 0;
  state = State::kQueued;
  sources.WantPrepare(*this);
  loop_impl.wakeup.WakeIfAsleep();
}

// One piece is a plain buffer: the kernel copies no vector.
void AsyncOp::Impl::StartVector(FileRef file, std::span<const iovec> pieces, OpKind plain, Operation what) {
  CHECK(state == State::kIdle);
  if (pieces.size() == 1) {
    what.kind = plain;
    what.memory = pieces[0].iov_base;
    what.size = Length(pieces[0].iov_len);
  } else {
    vectors.assign(pieces.begin(), pieces.end());
    what.memory = vectors.data();
    what.size = Length(pieces.size());
  }
  Start(file, what);
}

void AsyncOp::Impl::Prepare(Ring& ring) {
  state = State::kInFlight;
  token = sources.ops().Add(*this);
  if (registered) {
    operation.file_slot = registered->slot;
  }
  ring.Start(token, operation);
}

void AsyncOp::Impl::OnCompletion(const Completion& completion) {
  const auto alive = std::exchange(self, nullptr);
  token = 0;
  if (orphaned) {
    --sources.orphans;
    if (operation.kind == OpKind::kAccept && completion.result >= 0) {
      ::close(completion.result);
    }
    return;
  }
  result = completion.result == -ECANCELED && cancelled != 0 ? cancelled : completion.result;
  state = State::kReady;
  sources.Ready(*this);
}

void AsyncOp::Impl::Run() {
  state = State::kIdle;
  if (deadline) {
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
  impl_->Start(file,
               {.kind = OpKind::kRead, .memory = into.data(), .size = Length(into.size()), .offset = offset});
}

void AsyncOp::Write(FileRef file, std::span<const std::byte> from, std::uint64_t offset) {
  impl_->Start(
      file, {.kind = OpKind::kWrite, .memory = from.data(), .size = Length(from.size()), .offset = offset});
}

void AsyncOp::ReadVector(FileRef file, std::span<const iovec> into, std::uint64_t offset) {
  impl_->StartVector(file, into, OpKind::kRead, {.kind = OpKind::kReadVector, .offset = offset});
}

void AsyncOp::WriteVector(FileRef file, std::span<const iovec> from, std::uint64_t offset,
                          Durability durability) {
  impl_->StartVector(file, from, OpKind::kWrite,
                     {.kind = OpKind::kWriteVector,
                      .offset = offset,
                      .flags = durability == Durability::kAtOnce ? RWF_DSYNC : 0});
}

void AsyncOp::Sync(FileRef file) { impl_->Start(file, {.kind = OpKind::kSync}); }

void AsyncOp::DataSync(FileRef file) { impl_->Start(file, {.kind = OpKind::kDataSync}); }

void AsyncOp::Allocate(FileRef file, int mode, std::uint64_t offset, std::uint64_t size) {
  impl_->Start(file, {.kind = OpKind::kAllocate,
                      .size = static_cast<std::uint32_t>(mode),
                      .offset = offset,
                      .length = size});
}

void AsyncOp::Accept(FileRef listener) { impl_->Start(listener, {.kind = OpKind::kAccept}); }

void AsyncOp::Connect(FileRef file, const sockaddr& address, socklen_t size) {
  CHECK(!pending() && size <= sizeof(impl_->address));
  std::memcpy(&impl_->address, &address, size);
  impl_->Start(file, {.kind = OpKind::kConnect, .memory = &impl_->address, .size = size});
}

void AsyncOp::Receive(FileRef file, std::span<std::byte> into) {
  impl_->Start(file, {.kind = OpKind::kReceive, .memory = into.data(), .size = Length(into.size())});
}

void AsyncOp::Send(FileRef file, std::span<const std::byte> from) {
  impl_->Start(file, {.kind = OpKind::kSend, .memory = from.data(), .size = Length(from.size())});
}

void AsyncOp::SetDeadline(std::int64_t deadline_ns) {
  CHECK(pending());
  if (!impl_->deadline) {
    impl_->deadline.emplace(
        impl_->loop, ClockType::kRealtime, [impl = impl_.get()] { impl->Cancel(-ETIME); }, impl_->tier);
  }
  impl_->deadline->Set(deadline_ns);
}

void AsyncOp::Cancel() { impl_->Cancel(-ECANCELED); }

bool AsyncOp::pending() const { return impl_->state != Impl::State::kIdle; }

}  // namespace gyre::loop
