// Asynchronous operations: what they do, how they end early, and that the kernel
// never meets memory or a file that is gone.
#include <gmock/gmock.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

#include "async_op_fixture.h"
#include "counting_new.h"

namespace gyre::loop {
namespace {

struct SocketPair {
  SocketPair() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
    ours = UniqueFd(fds[0]);
    theirs = UniqueFd(fds[1]);
  }
  UniqueFd ours;
  UniqueFd theirs;
};

TEST_F(AsyncOpTest, WriteSyncAndReadAtAnOffset_TheFileHasIt) {
  const UniqueFd file = TemporaryFile();
  const Bytes out = ToBytes("hello");
  const auto op = NewOp();
  op->Write(file.get(), out, 100);
  EXPECT_TRUE(op->pending());
  EXPECT_EQ(Finish(), 5);
  EXPECT_FALSE(op->pending());
  op->Sync(file.get());
  EXPECT_EQ(Finish(), 0);
  op->DataSync(file.get());
  EXPECT_EQ(Finish(), 0);
  Bytes in(10);
  op->Read(file.get(), in, 102);
  EXPECT_EQ(Finish(), 3);
  EXPECT_EQ(ToText(std::span(in).first(3)), "llo");
}

TEST_F(AsyncOpTest, Vectors_AreCopiedWhenTheOperationStarts) {
  const UniqueFd file = TemporaryFile();
  Bytes first = ToBytes("ab");
  Bytes second = ToBytes("cde");
  const auto op = NewOp();
  {
    std::array<iovec, 2> vectors = {iovec{first.data(), first.size()}, iovec{second.data(), second.size()}};
    op->WriteVector(file.get(), vectors, 0);
    vectors.fill(iovec{});
  }
  EXPECT_EQ(Finish(), 5);
  Bytes in(5);
  std::array<iovec, 2> vectors = {iovec{in.data(), 1}, iovec{in.data() + 1, 4}};
  op->ReadVector(file.get(), vectors, 0);
  EXPECT_EQ(Finish(), 5);
  EXPECT_EQ(ToText(in), "abcde");
}

// Whether the file system has yet to find a place for what was written; nothing where it does not tell.
std::optional<bool> WaitsForItsPlace(int file) {
  fiemap map;
  std::memset(&map, 0, sizeof(map));  // its last member has no size, which braces do not like
  fiemap_extent extent{};
  alignas(fiemap) std::array<std::byte, sizeof(map) + sizeof(extent)> room{};  // one behind the other
  map.fm_length = FIEMAP_MAX_OFFSET;
  map.fm_extent_count = 1;
  std::memcpy(room.data(), &map, sizeof(map));
  const int failed = ::ioctl(file, FS_IOC_FIEMAP, room.data());
  std::memcpy(&map, room.data(), sizeof(map));
  if (failed != 0 || map.fm_mapped_extents != 1) {
    return std::nullopt;
  }
  std::memcpy(&extent, room.data() + sizeof(map), sizeof(extent));
  return (extent.fe_flags & FIEMAP_EXTENT_DELALLOC) != 0;
}

TEST_F(AsyncOpTest, AWriteThatIsDurableAtOnce_IsOnTheMediumWhenItIsDone) {
  const Bytes out(4096);
  std::array<iovec, 2> vectors = {iovec{const_cast<std::byte*>(out.data()), 4000},
                                  iovec{const_cast<std::byte*>(out.data()) + 4000, 96}};
  for (const std::size_t count : {1U, 2U}) {
    const UniqueFd later = TemporaryFile();
    const UniqueFd at_once = TemporaryFile();
    const auto op = NewOp();
    op->WriteVector(later.get(), std::span(vectors).first(count), 0);
    EXPECT_GE(Finish(), 4000);
    if (WaitsForItsPlace(later.get()) != true) {
      GTEST_SKIP() << "the file system of temporary files does not tell what it has yet to write";
    }
    op->WriteVector(at_once.get(), std::span(vectors).first(count), 0, Durability::kAtOnce);
    EXPECT_GE(Finish(), 4000);
    EXPECT_EQ(WaitsForItsPlace(at_once.get()), false);
  }
}

TEST_F(AsyncOpTest, ConnectAcceptSendReceive_TheBytesArrive) {
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};  // an abstract name that the kernel chooses
  address.sun_family = AF_UNIX;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto accept = NewOp();
  const auto connect = NewOp();
  accept->Accept(listener.get());
  connect->Connect(client.get(), reinterpret_cast<const sockaddr&>(address), size);
  ASSERT_TRUE(RunUntil([&] { return results_.size() == 2; }));
  const UniqueFd server(std::max(results_[0], results_[1]));
  ASSERT_GT(server.get(), 0);
  EXPECT_EQ(::fcntl(server.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_EQ(std::min(results_[0], results_[1]), 0);
  const Bytes out = ToBytes("ping");
  accept->Send(server.get(), out);
  EXPECT_EQ(Finish(), 4);
  Bytes in(8);
  connect->Receive(client.get(), in);
  EXPECT_EQ(Finish(), 4);
  EXPECT_EQ(ToText(std::span(in).first(4)), "ping");
}

TEST_F(AsyncOpTest, SendToAPeerThatWent_IsAnErrorAndNoSignal) {
  SocketPair pair;
  pair.theirs.Reset();
  const Bytes out = ToBytes("x");
  const auto op = NewOp();
  op->Send(pair.ours.get(), out);
  EXPECT_EQ(Finish(), -EPIPE);
}

TEST_F(AsyncOpTest, GivenUpBeforeTheKernelHasIt_ItsFdMayBecomeAnotherFiles) {
  UniqueFd file = TemporaryFile();
  const UniqueFd other = TemporaryFile();
  const Bytes out = ToBytes("not here");
  NewOp()->Write(file.get(), out, 0);
  ASSERT_EQ(::dup3(other.get(), file.get(), O_CLOEXEC), file.get());
  Poll();
  Poll();
  Bytes in(1);
  EXPECT_EQ(::pread(other.get(), in.data(), in.size(), 0), 0);
}

TEST_F(AsyncOpTest, Cancelled_TheCallbackSaysSoOnce) {
  const SocketPair pair;
  Bytes in(4);
  const auto op = NewOp();
  op->Receive(pair.ours.get(), in);
  Poll();
  EXPECT_TRUE(results_.empty());
  op->Cancel();
  op->Cancel();
  EXPECT_EQ(Finish(), -ECANCELED);
  Poll();
  EXPECT_EQ(results_.size(), 1U);
}

TEST_F(AsyncOpTest, CancelledBeforeTheKernelHasIt_TheCallbackSaysSoInTheNextIteration) {
  const SocketPair pair;
  Bytes in(4);
  const auto op = NewOp();
  op->Receive(pair.ours.get(), in);
  op->Cancel();
  EXPECT_TRUE(results_.empty());  // not from within Cancel
  Sleep();                        // must not: it is ready
  EXPECT_THAT(results_, testing::ElementsAre(-ECANCELED));
}

TEST_F(AsyncOpTest, CancelledTooLate_TheResultIsWhatWasDone) {
  const SocketPair pair;
  ASSERT_EQ(::send(pair.theirs.get(), "data", 4, 0), 4);
  Bytes in(4);
  std::unique_ptr<AsyncOp> late = NewOp();
  BottomHalf half(loop(), [&] { late->Cancel(); });
  late->Receive(pair.ours.get(), in);
  half.Schedule();  // runs in the iteration in which the operation completes
  EXPECT_EQ(Finish(), 4);
  EXPECT_EQ(ToText(in), "data");
}

TEST_F(AsyncOpTest, Deadline_EndsItWithATimeout) {
  const SocketPair pair;
  Bytes in(4);
  const auto op = NewOp();
  op->Receive(pair.ours.get(), in);
  op->SetDeadline(loop().Now(ClockType::kRealtime) + 2 * kMs);
  EXPECT_EQ(Finish(), -ETIME);
  // The next operation has no deadline.
  op->Receive(pair.ours.get(), in);
  ASSERT_EQ(::send(pair.theirs.get(), "late", 4, 0), 4);
  EXPECT_EQ(Finish(), 4);
}

TEST_F(AsyncOpTest, DoneBeforeItsDeadline_WhichEndsNoOtherOne) {
  const SocketPair pair;
  Bytes in(4);
  const auto op = NewOp();
  ASSERT_EQ(::send(pair.theirs.get(), "soon", 4, 0), 4);
  op->Receive(pair.ours.get(), in);
  op->SetDeadline(loop().Now(ClockType::kRealtime) + 20 * kMs);
  EXPECT_EQ(Finish(), 4);
  bool later = false;
  Timer timer(loop(), ClockType::kRealtime, [&] { later = true; });
  timer.Set(loop().Now(ClockType::kRealtime) + 40 * kMs);
  op->Receive(pair.ours.get(), in);
  ASSERT_TRUE(RunUntil([&] { return later; }));
  EXPECT_TRUE(op->pending());
  ASSERT_EQ(::send(pair.theirs.get(), "late", 4, 0), 4);
  EXPECT_EQ(Finish(), 4);
}

TEST_F(AsyncOpTest, DestroyedWhilePending_TheBuffersStayUntilTheKernelLetsGo) {
  const SocketPair pair;
  auto buffer = std::make_shared<Bytes>(16);
  const std::weak_ptr<Bytes> watch = buffer;
  auto op =
      std::make_unique<AsyncOp>(loop(), buffer, [&](std::int32_t result) { results_.push_back(result); });
  op->Receive(pair.ours.get(), *buffer);
  Poll();
  buffer.reset();
  op.reset();
  EXPECT_FALSE(watch.expired());
  EXPECT_TRUE(RunUntil([&] { return watch.expired(); }));
  EXPECT_TRUE(results_.empty());
}

TEST_F(AsyncOpTest, LoopDestroyedWithAnOperationThatNobodyWants_WaitsForTheKernel) {
  const SocketPair pair;
  auto buffer = std::make_shared<Bytes>(16);
  const std::weak_ptr<Bytes> watch = buffer;
  {
    AsyncOp op(loop(), buffer, [](std::int32_t) {});
    op.Receive(pair.ours.get(), *buffer);
    Poll();
  }
  buffer.reset();
  EXPECT_FALSE(watch.expired());
  loop_.reset();
  EXPECT_TRUE(watch.expired());
}

TEST_F(AsyncOpTest, AcceptDestroyedAsAClientConnects_TheConnectionIsClosed) {
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};  // an abstract name that the kernel chooses
  address.sun_family = AF_UNIX;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  auto op = NewOp();
  BottomHalf half(loop(), [&] { op.reset(); });  // runs before the operation's callback would
  op->Accept(listener.get());
  half.Schedule();
  Poll();
  EXPECT_TRUE(results_.empty());
  char byte = 0;
  EXPECT_EQ(::recv(client.get(), &byte, 1, MSG_DONTWAIT), 0);  // the end, rather than EAGAIN
}

TEST_F(AsyncOpTest, CallbackStartsTheNext_NothingIsAllocated) {
  if (!test::CountsAllocations()) {
    GTEST_SKIP() << "allocations cannot be counted under ThreadSanitizer";
  }
  const UniqueFd file = TemporaryFile();
  const Bytes out = ToBytes("block");
  iovec vector{const_cast<std::byte*>(out.data()), out.size()};
  int done = 0;
  std::optional<AsyncOp> op;
  op.emplace(loop(), nullptr, [&](std::int32_t result) {
    EXPECT_EQ(result, 5);
    ++done;
    op->WriteVector(file.get(), std::span(&vector, 1), 0);
    op->SetDeadline(loop().Now(ClockType::kRealtime) + 3600 * kSecond);
  });
  op->WriteVector(file.get(), std::span(&vector, 1), 0);
  while (done < 10) {
    Sleep();
  }
  const std::uint64_t before = test::Allocations();
  while (done < 110) {
    Sleep();
  }
  EXPECT_EQ(test::Allocations(), before);
}

// Lesson (c): more operations than the ring has entries; none waits for another.
TEST_F(AsyncOpTest, ThousandAtOnce_AllComplete) {
  const UniqueFd file = TemporaryFile();
  const Bytes out = ToBytes("x");
  std::vector<std::unique_ptr<AsyncOp>> ops;
  for (unsigned i = 0; i < 1000; ++i) {
    ops.push_back(NewOp());
    ops.back()->Write(file.get(), out, i);
  }
  EXPECT_TRUE(RunUntil([&] { return results_.size() == ops.size(); }));
  EXPECT_THAT(results_, testing::Each(1));
  EXPECT_EQ(::lseek(file.get(), 0, SEEK_END), 1000);
}

TEST_F(AsyncOpTest, DestroysItselfInItsCallback_TheCallbackFinishes) {
  const UniqueFd file = TemporaryFile();
  const Bytes out = ToBytes("x");
  auto state = std::make_shared<int>(0);
  std::unique_ptr<AsyncOp> op;
  op = std::make_unique<AsyncOp>(loop(), nullptr, [&op, state](std::int32_t) {
    op.reset();
    ++*state;
  });
  op->Write(file.get(), out, 0);
  EXPECT_TRUE(RunUntil([&] { return *state == 1; }));
  EXPECT_EQ(state.use_count(), 1);
}

// The seed's nested wait: a drain from a callback runs no control handler.
TEST_F(AsyncOpTest, WaitForIoInACallback_RunsIoSourcesAndNoControlHandlers) {
  const SocketPair pair;
  const Pipe command;
  Bytes in(4);
  std::vector<std::string> order;
  bool received = false;
  AsyncOp op(loop(), nullptr, [&](std::int32_t) {
    order.emplace_back("operation");
    received = true;
  });
  const Watch monitor(loop(), command.read_end.get(), Watch::kRead, [&](unsigned) {
    command.Take(1);
    order.emplace_back("command");
  });
  BottomHalf control(loop(), [&] { order.emplace_back("control half"); });
  BottomHalf io(loop(), [&] { ASSERT_EQ(::send(pair.theirs.get(), "data", 4, 0), 4); }, Tier::kIo);
  BottomHalf drain(loop(), [&] {
    op.Receive(pair.ours.get(), in);
    command.Put("c");
    control.Schedule();
    io.Schedule();
    loop().WaitForIo([&] { return received; });
    order.emplace_back("drained");
  });
  drain.Schedule();
  EXPECT_TRUE(RunUntil([&] { return order.size() == 4; }));
  EXPECT_THAT(order, testing::ElementsAre("operation", "drained", "command", "control half"));
}

// Lesson (l): what was ready in the outer iteration is served by the nested one, once.
TEST_F(AsyncOpTest, NestedWait_FinishesTheOuterBatchOnce) {
  const UniqueFd file = TemporaryFile();
  const Bytes out = ToBytes("x");
  int second_done = 0;
  AsyncOp second(loop(), nullptr, [&](std::int32_t) { ++second_done; });
  int first_done = 0;
  AsyncOp first(loop(), nullptr, [&](std::int32_t) {
    ++first_done;
    loop().WaitForIo([&] { return second_done == 1; });
  });
  first.Write(file.get(), out, 0);
  second.Write(file.get(), out, 1);
  EXPECT_TRUE(RunUntil([&] { return first_done == 1; }));
  Poll();
  EXPECT_EQ(second_done, 1);
  EXPECT_EQ(first_done, 1);
}

// It waits in its callback, and goes by one that is served meanwhile.
TEST_F(AsyncOpTest, NestedWait_DestroysTheOneThatRuns_WhoseCallbackFinishes) {
  const UniqueFd file = TemporaryFile();
  const Bytes out = ToBytes("x");
  const auto state = std::make_shared<int>(0);
  std::unique_ptr<AsyncOp> first;
  AsyncOp second(loop(), nullptr, [&](std::int32_t) { first.reset(); });
  first = std::make_unique<AsyncOp>(loop(), nullptr, [&, state](std::int32_t) {
    loop().WaitForIo([&] { return first == nullptr; });
    ++*state;  // what the callback captured is still there
  });
  first->Write(file.get(), out, 0);
  second.Write(file.get(), out, 1);
  EXPECT_TRUE(RunUntil([&] { return *state == 1; }));
  EXPECT_EQ(state.use_count(), 1);
}

class EventFdWatchTest : public LoopTest {};

TEST_F(EventFdWatchTest, EachWrite_IsSeenWithoutAReadOrANewPoll) {
  const UniqueFd bell = NewEventFd().value();
  int rung = 0;
  const EventFdWatch watch(loop(), bell.get(), [&] { ++rung; });
  Poll();
  EXPECT_EQ(rung, 0);
  const std::uint64_t operations = loop().stats().operations;
  for (int i = 1; i <= 100; ++i) {
    SignalEventFd(bell.get());
    Poll();
    EXPECT_EQ(rung, i);
    Poll();
    EXPECT_EQ(rung, i);
  }
  EXPECT_EQ(loop().stats().operations, operations);
}

TEST_F(EventFdWatchTest, WrittenBeforeTheWatch_Counts) {
  const UniqueFd bell = NewEventFd().value();
  SignalEventFd(bell.get());
  int rung = 0;
  const EventFdWatch watch(loop(), bell.get(), [&] { ++rung; });
  Poll();
  EXPECT_EQ(rung, 1);
}

TEST_F(EventFdWatchTest, DestroyedInItsCallback_IsNotCalledAgain) {
  const UniqueFd bell = NewEventFd().value();
  int rung = 0;
  std::unique_ptr<EventFdWatch> watch;
  watch = std::make_unique<EventFdWatch>(loop(), bell.get(), [&] {
    ++rung;
    watch.reset();
  });
  SignalEventFd(bell.get());
  Poll();
  SignalEventFd(bell.get());
  Poll();
  Poll();
  EXPECT_EQ(rung, 1);
}

TEST_F(EventFdWatchTest, FdThatIsNone_IsNeverCalled) {
  const EventFdWatch watch(loop(), -1, [] { ADD_FAILURE(); });
  for (int i = 0; i < 3; ++i) {
    Poll();
  }
}

// Lesson (d): more events at once than the completion queue holds; the kernel ends some polls.
TEST_F(EventFdWatchTest, MoreAtOnceThanTheRingHolds_NoneIsLost) {
  constexpr std::size_t kCount = 600;
  std::vector<UniqueFd> bells;
  std::vector<int> rung(kCount);
  std::vector<std::unique_ptr<EventFdWatch>> watches;
  for (std::size_t i = 0; i < kCount; ++i) {
    bells.push_back(NewEventFd().value());
    watches.push_back(std::make_unique<EventFdWatch>(loop(), bells[i].get(), [&rung, i] { ++rung[i]; }));
  }
  Poll();
  for (int round = 0; round < 5; ++round) {
    std::ranges::fill(rung, 0);
    for (const UniqueFd& bell : bells) {
      SignalEventFd(bell.get());
    }
    Poll();
    Poll();
    EXPECT_THAT(rung, testing::Each(testing::Ge(1)));
  }
}

TEST_F(AsyncOpTest, Allocate_PunchesAHole) {
  const UniqueFd file = TemporaryFile();
  const std::string text(16384, 'x');
  ASSERT_EQ(::pwrite(file.get(), text.data(), text.size(), 0), 16384);
  const auto op = NewOp();
  op->Allocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192);
  EXPECT_EQ(Finish(), 0);
  std::string back(16384, '-');
  ASSERT_EQ(::pread(file.get(), back.data(), back.size(), 0), 16384);
  EXPECT_EQ(back, std::string(4096, 'x') + std::string(8192, '\0') + std::string(4096, 'x'));
  op->Allocate(file.get(), -1, 0, 4096);
  EXPECT_EQ(Finish(), -EOPNOTSUPP);
}

}  // namespace
}  // namespace gyre::loop
