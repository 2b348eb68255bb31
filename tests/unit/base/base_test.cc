#include <fcntl.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/bits.h"
#include "gyre/base/checked.h"
#include "gyre/base/endian.h"
#include "gyre/base/mapping.h"
#include "gyre/base/notifier.h"
#include "gyre/base/result.h"
#include "gyre/base/types.h"
#include "gyre/base/unique_fd.h"

namespace gyre {
namespace {

Result<int> Half(int value) {
  if (value % 2 != 0) {
    return Fail(Error::Usage("odd"));
  }
  return value / 2;
}

Result<int> Quarter(int value) { return TRY(Half(TRY(Half(value)))); }

TEST(Result, Try_ReturnsTheFirstErrorOrTheValue) {
  EXPECT_EQ(Quarter(12).value(), 3);
  EXPECT_EQ(Quarter(6).error().message(), "odd");
}

TEST(Result, SysErrorWithin_SaysWhereWhatAndWhy) {
  auto error = Error::Sys("open x", ENOENT).Within("kernel");
  EXPECT_EQ(error.message(), "kernel: open x: No such file or directory");
  EXPECT_EQ(error.sys_errno(), ENOENT);
}

TEST(Checked, Sums_StopAtTheEdge) {
  EXPECT_EQ(CheckedAdd<std::uint64_t>(UINT64_MAX, 1), std::nullopt);
  EXPECT_EQ(CheckedAlignUp(UINT64_MAX, 4096), std::nullopt);
  EXPECT_EQ(CheckedAlignUp(4097, 4096), 8192U);
  EXPECT_TRUE(FitsWithin(10, 0, 10));
  EXPECT_FALSE(FitsWithin(UINT64_MAX, 2, UINT64_MAX));
  EXPECT_EQ(GuestAddress(UINT64_MAX).CheckedAdd(1), std::nullopt);
}

TEST(Endian, LittleEndian_HasNoAlignmentAndTheRightBytes) {
  Le32 value = 0x11223344;
  static_assert(alignof(Le32) == 1 && WirePod<Le32>);
  EXPECT_EQ(*reinterpret_cast<std::uint8_t*>(&value), 0x44);
  EXPECT_EQ(value.value(), 0x11223344U);
}

TEST(Bits, Field_SetsOnlyItsBits) {
  using Middle = Field<11, 4, std::uint32_t>;
  EXPECT_EQ(Middle::Set(0xffffffff, 0), 0xfffff00fU);
  EXPECT_EQ(Middle::Get(0xab0), 0xabU);
  using All = Field<63, 0>;
  EXPECT_EQ(All::Get(~0ULL), ~0ULL);
}

TEST(UniqueFd, MissingFile_NamesThePath) {
  const auto fd = OpenFile("/nonexistent/file", O_RDONLY);
  ASSERT_FALSE(fd);
  EXPECT_EQ(fd.error().message(), "open /nonexistent/file: No such file or directory");
}

TEST(UniqueFd, EventFd_DrainsOnce) {
  auto fd = NewEventFd().value();
  EXPECT_FALSE(DrainEventFd(fd.get()));
  SignalEventFd(fd.get());
  SignalEventFd(fd.get());
  EXPECT_TRUE(DrainEventFd(fd.get()));
  EXPECT_FALSE(DrainEventFd(fd.get()));
}

TEST(Mapping, Anonymous_IsZeroAndMovable) {
  auto first = Mapping::Anonymous(8192).value();
  const Mapping second = std::move(first);
  EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(second.bytes()[8191], std::byte{0});
}

// notifier_list_notify: newest first, as the seed's list is.
TEST(NotifierList, Notify_RunsNewestFirst) {
  NotifierList<int> list;
  std::vector<int> calls;
  auto first = list.Add([&](int) { calls.push_back(1); });
  auto second = list.Add([&](int) { calls.push_back(2); });
  list.Notify(0);
  EXPECT_EQ(calls, (std::vector{2, 1}));
}

// notifier_list_notify: the seed is safe only when a callback removes itself.
TEST(NotifierList, RemovalOfTheNextFromACallback_SkipsIt) {
  NotifierList<> list;
  int victim_calls = 0;
  auto victim = list.Add([&] { ++victim_calls; });
  auto killer = list.Add([&] { victim.Remove(); });
  list.Notify();
  list.Notify();
  EXPECT_EQ(victim_calls, 0);
}

TEST(NotifierList, RemovalOfItselfAndAdditionFromACallback_AreSafe) {
  NotifierList<> list;
  int added_calls = 0;
  NotifierList<>::Handle self;
  NotifierList<>::Handle added;
  self = list.Add([&] {
    self.Remove();
    added = list.Add([&] { ++added_calls; });
  });
  list.Notify();
  EXPECT_EQ(added_calls, 0);
  list.Notify();
  EXPECT_EQ(added_calls, 1);
}

TEST(BigLock, Owner_IsTheThreadThatHoldsIt) {
  BigLock lock;
  lock.Lock();
  EXPECT_TRUE(lock.HeldByMe());
  std::thread([&] { EXPECT_FALSE(lock.HeldByMe()); }).join();
  lock.Unlock();
  EXPECT_FALSE(lock.HeldByMe());
  EXPECT_EQ(lock.stats().acquired, 1U);
}

TEST(BigLock, CondVarWait_GivesItUpMeanwhile) {
  BigLock lock;
  BigCondVar cond;
  bool ready = false;
  const BigLockGuard guard(lock);
  std::thread other([&] {
    const BigLockGuard inner(lock);
    ready = true;
    cond.NotifyAll();
  });
  while (!ready) {
    cond.Wait(lock);
  }
  EXPECT_TRUE(lock.HeldByMe());
  other.join();
}

void UnlockUnheld(BigLock& lock) NO_THREAD_SAFETY_ANALYSIS { lock.Unlock(); }

TEST(BigLockDeathTest, UnlockByAStranger_Aborts) {
  BigLock lock;
  EXPECT_DEATH(UnlockUnheld(lock), "HeldByMe");
}

}  // namespace
}  // namespace gyre
