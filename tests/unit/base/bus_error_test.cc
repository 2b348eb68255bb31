// A bus error on guarded memory leaves the process alive, with zeros and a word of it.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include "gyre/base/bus_error.h"
#include "gyre/base/mapping.h"
#include "gyre/base/types.h"

namespace gyre {
namespace {

constexpr std::uint64_t kPages = 16;
constexpr std::uint64_t kSize = kPages * kPageSize;

// A shared file whose pages are full of 'f', to be cut short under its mapping.
class BusErrorTest : public testing::Test {
 protected:
  BusErrorTest() {
    const std::vector<char> bytes(kSize, 'f');
    EXPECT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(kSize));
    mapping = Mapping::File(file.get(), 0, kSize, PROT_READ | PROT_WRITE, MAP_SHARED).value();
  }
  void CutTo(std::uint64_t pages) {
    ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(pages * kPageSize)), 0);
  }
  char At(std::uint64_t page) const {
    return static_cast<char>(*static_cast<volatile std::byte*>(mapping.data() + (page * kPageSize) + 5));
  }
  bool Readable() const {
    pollfd waited{.fd = errors->event_fd(), .events = POLLIN, .revents = 0};
    return ::poll(&waited, 1, 0) == 1;
  }

  std::unique_ptr<BusErrors> errors = BusErrors::Create().value();
  UniqueFd file{::memfd_create("test", MFD_CLOEXEC)};
  Mapping mapping;
};

TEST_F(BusErrorTest, WhoMetOne_IsToldSoAndNobodyElse) {
  const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
  CutTo(4);
  const std::uint64_t before = BusErrorsMet();
  EXPECT_EQ(At(3), 'f');
  EXPECT_EQ(BusErrorsMet(), before);
  EXPECT_EQ(At(7), 0);
  EXPECT_EQ(BusErrorsMet(), before + 1);
  EXPECT_EQ(At(7), 0);
  EXPECT_EQ(BusErrorsMet(), before + 1);
  std::thread([&] {
    EXPECT_EQ(BusErrorsMet(), 0U);
    EXPECT_EQ(At(8), 0);
    EXPECT_EQ(BusErrorsMet(), 1U);
  }).join();
  EXPECT_EQ(BusErrorsMet(), before + 1);
}

TEST_F(BusErrorTest, TruncatedFile_ReadsZerosThereAndIsPosted) {
  const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
  CutTo(4);
  EXPECT_EQ(At(3), 'f');
  EXPECT_FALSE(errors->lost());
  EXPECT_FALSE(Readable());
  EXPECT_EQ(At(7), 0);
  EXPECT_TRUE(errors->lost());
  EXPECT_TRUE(Readable());
  const auto taken = errors->Take();
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken[0].memory, mapping.data());
  EXPECT_EQ(taken[0].offset, 7 * kPageSize);
  EXPECT_FALSE(taken[0].hardware);
  EXPECT_TRUE(taken[0].used);
  EXPECT_FALSE(Readable());
  // The rest is as it was, and the page stays as it is now.
  EXPECT_EQ(At(2), 'f');
  mapping.data()[7 * kPageSize + 5] = std::byte{'x'};
  EXPECT_EQ(At(7), 'x');
  EXPECT_TRUE(errors->Take().empty());
}

// Between the taking and what is done about it nobody may go on as if nothing were.
TEST_F(BusErrorTest, Taken_MemoryIsLostUntilItIsForgotten) {
  const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
  CutTo(4);
  EXPECT_EQ(At(7), 0);
  EXPECT_EQ(errors->Take().size(), 1U);
  EXPECT_TRUE(errors->lost());
  EXPECT_TRUE(errors->Take().empty());
  EXPECT_TRUE(errors->lost());
  errors->Forget();
  EXPECT_FALSE(errors->lost());
  EXPECT_EQ(At(8), 0);
  EXPECT_TRUE(errors->lost());
}

TEST_F(BusErrorTest, AWriteMayGoOn) {
  const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
  CutTo(0);
  std::memset(mapping.data(), 'w', kSize);
  EXPECT_EQ(At(0), 'w');
  EXPECT_EQ(At(kPages - 1), 'w');
  // As many as are kept; more are not needed to stop a VM.
  EXPECT_EQ(errors->Take().size(), 8U);
  EXPECT_TRUE(errors->Take().empty());
}

// As for who has been answered EFAULT by the kernel.
TEST_F(BusErrorTest, LookedFor_IsPostedAndExchangedWithoutASignal) {
  const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
  CutTo(4);
  for (const bool written : {false, true}) {
    EXPECT_FALSE(FindBusErrors(mapping.bytes().first(4 * kPageSize), written));
  }
  EXPECT_TRUE(errors->Take().empty());
  EXPECT_EQ(At(3), 'f');
  EXPECT_TRUE(FindBusErrors(mapping.bytes().subspan(3 * kPageSize + 100, 2 * kPageSize), true));
  auto taken = errors->Take();
  ASSERT_EQ(taken.size(), 2U);
  EXPECT_EQ(taken[0].offset, 4 * kPageSize);
  EXPECT_EQ(taken[1].offset, 5 * kPageSize);
  EXPECT_TRUE(taken[0].used && !taken[0].hardware);
  EXPECT_TRUE(FindBusErrors(mapping.bytes().subspan(8 * kPageSize, 1), false));
  EXPECT_EQ(errors->Take().size(), 1U);
  EXPECT_FALSE(FindBusErrors(mapping.bytes().subspan(4 * kPageSize, 2 * kPageSize), false)) << "exchanged";
  std::array<std::byte, 16> other{};
  EXPECT_FALSE(FindBusErrors(other, true)) << "of memory that is not guarded nothing is said";
}

TEST_F(BusErrorTest, EachMailboxGetsItsOwn) {
  const auto others = BusErrors::Create().value();
  const auto half = mapping.bytes().subspan(kSize / 2);
  const BusErrorGuard low(mapping.bytes().first(kSize / 2), kPageSize, *errors);
  BusErrorGuard moved(half, kPageSize, *others);
  const BusErrorGuard high(std::move(moved));
  CutTo(0);
  EXPECT_EQ(At(kPages - 1), 0);
  EXPECT_FALSE(errors->lost());
  ASSERT_EQ(others->Take().size(), 1U);
  EXPECT_EQ(At(0), 0);
  EXPECT_TRUE(errors->lost());
}

TEST_F(BusErrorTest, SeveralThreadsAtOnce_AllGoOn) {
  const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
  CutTo(0);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([this] {
      for (std::uint64_t page = 0; page < kPages; ++page) {
        EXPECT_EQ(At(page), 0);
      }
    });
  }
  threads.clear();
  EXPECT_TRUE(errors->lost());
}

// More than a process may have mappings: each exchanged page is one.
TEST_F(BusErrorTest, ASweepOverALostFile_DoesNotRunOutOfMappings) {
  constexpr std::uint64_t kMany = 100'000;
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kMany * kPageSize)), 0);
  mapping = Mapping::File(file.get(), 0, kMany * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED).value();
  const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
  CutTo(0);
  for (std::uint64_t page = 0; page < kMany; page += 2) {
    ASSERT_EQ(At(page), 0);
  }
  EXPECT_TRUE(errors->lost());
}

TEST_F(BusErrorTest, ManyGuards_EachIsFound) {
  std::vector<BusErrorGuard> guards;
  std::vector<Mapping> mappings;
  for (int i = 0; i < 100; ++i) {
    mappings.push_back(Mapping::File(file.get(), 0, kSize, PROT_READ | PROT_WRITE, MAP_SHARED).value());
    guards.emplace_back(mappings.back().bytes(), kPageSize, *errors);
  }
  CutTo(0);
  for (const Mapping& each : mappings) {
    const std::byte read = *static_cast<volatile std::byte*>(each.data());
    EXPECT_EQ(read, std::byte{0});
    const auto taken = errors->Take();
    ASSERT_EQ(taken.size(), 1U);
    EXPECT_EQ(taken[0].memory, each.data());
  }
}

using BusErrorDeathTest = BusErrorTest;

TEST_F(BusErrorDeathTest, ElsewhereItHasTheActionThatItHad) {
  CutTo(0);
  EXPECT_DEATH(
      {
        const BusErrorGuard guard(mapping.bytes().first(kPageSize), kPageSize, *errors);
        (void)At(kPages - 1);
      },
      "");
}

TEST_F(BusErrorDeathTest, NoLongerGuarded_HasTheActionThatItHad) {
  CutTo(0);
  EXPECT_DEATH(
      {
        {
          const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
        }
        (void)At(0);
      },
      "");
}

TEST_F(BusErrorDeathTest, SentBySomebody_HasTheActionThatItHad) {
  EXPECT_DEATH(
      {
        const BusErrorGuard guard(mapping.bytes(), kPageSize, *errors);
        ::kill(::getpid(), SIGBUS);
        ::pause();
      },
      "");
}

}  // namespace
}  // namespace gyre
