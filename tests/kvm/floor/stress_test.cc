// Pause, work and exclusive sections from many threads at once: nothing may
// deadlock, and whoever is alone must be. SEED= repeats a run, ROUNDS= sets its length.
#include <cstdio>
#include <random>

#include "floor_fixture.h"

// Starts all other processors at 0x6000; all count and call the handler for ever.
GUEST_CODE(start_all_and_call, 32, R"(
  movl $0x000c4500, 0xfee00300
  movl $0x000c4606, 0xfee00300
1: incl 0x5000
  outb %al, $0x80
  jmp 1b
)")
GUEST_CODE(other_counts_and_calls, 16, R"(
1: incw 0x5010
  outb %al, $0x80
  jmp 1b
)")
// The same without calling: in guest code nearly all the time.
GUEST_CODE(start_all_and_count, 32, R"(
  movl $0x000c4500, 0xfee00300
  movl $0x000c4606, 0xfee00300
1: incl 0x5000
  jmp 1b
)")
GUEST_CODE(other_counts, 16, "1: incw 0x5010\njmp 1b\n")

namespace gyre::kvm {
namespace {

constexpr unsigned kVcpus = 4;

class StressTest : public FloorTest {
 protected:
  // What the guest writes all the time, as one number.
  std::uint64_t Counts() const { return Ram<std::uint64_t>(0x5000) ^ (Ram<std::uint64_t>(0x5010) << 32); }

  // The big lock to others for a moment, as the main loop's wait gives it.
  void GiveTurn() NO_THREAD_SAFETY_ANALYSIS {
    big_lock.Unlock();
    big_lock.Lock();
  }

  // Long enough for a guest that still runs to be seen.
  void ExpectStill() {
    const auto before = Counts();
    for (int i = 0; i < 200; ++i) {
      ASSERT_EQ(Counts(), before);
    }
  }

  // One of the things that threads ask of the vCPUs; the big lock is held.
  void AskSomething(std::mt19937_64& random) {
    const VcpuIndex other(static_cast<std::uint32_t>(random() % kVcpus));
    switch (random() % 5) {
      case 0:
        all->RunOn(other, [this] { ++works; });
        break;
      case 1:
        ++asked_later;
        all->RunOnLater(other, [this] { ++works_later; });
        break;
      case 2:
        all->RunExclusive([this] {
          EXPECT_TRUE(big_lock.HeldByMe());
          EXPECT_FALSE(std::exchange(alone, true));
          ExpectStill();
          alone = false;
          ++exclusives;
        });
        break;
      case 3:
        all->PauseAll();
        all->ResumeAll();
        break;
      default:
        break;
    }
  }

  Vcpus* all = nullptr;  // in its destructor too, when `vcpus` is null
  std::uint64_t works = 0;
  std::uint64_t works_later = 0;
  std::uint64_t asked_later = 0;
  std::uint64_t exclusives = 0;
  bool alone = false;
  bool quiet = false;
};

TEST_F(StressTest, EveryoneAsksEveryone_NothingDeadlocks) {
  const std::uint64_t seed = FromEnvironment("SEED", std::random_device()());
  const std::uint64_t rounds = FromEnvironment("ROUNDS", 400);
  std::printf("SEED=%llu ROUNDS=%llu\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(rounds));
  Start(kVcpus);
  all = vcpus.get();
  std::mt19937_64 random(seed);
  std::uint64_t calls_seen = 0;
  calls.on_write = [&] {
    ++calls_seen;
    calls.writes.clear();
    if (!quiet) {
      AskSomething(random);
    }
  };
  AddIo(io_root, 0x80, 1, calls);
  Load(0x6000, GuestCode_other_counts_and_calls());
  Run(GuestCode_start_all_and_call());
  for (std::uint64_t round = 0; round < rounds; ++round) {
    AskSomething(random);
    GiveTurn();
  }
  // From now on handlers ask nothing new. One that was waiting may still resume all,
  // so it may take more than one pause; what was asked for later has been done once its
  // vCPU has served a later work.
  quiet = true;
  for (int i = 0; i < 100 && (i == 0 || !vcpus->all_paused()); ++i) {
    vcpus->PauseAll();
    for (std::uint32_t vcpu = 0; vcpu < kVcpus; ++vcpu) {
      vcpus->RunOn(VcpuIndex(vcpu), [] {});
    }
  }
  EXPECT_TRUE(vcpus->all_paused());
  ExpectStill();
  EXPECT_EQ(works_later, asked_later);
  EXPECT_GT(calls_seen, 0U);
  EXPECT_GT(exclusives, 0U);
  vcpus.reset();  // before what its handlers use
}

TEST_F(StressTest, TenThousandPauses_OfSeveralVcpusLeaveMemoryStill) {
  const std::uint64_t rounds = FromEnvironment("ROUNDS", 10'000);
  Start(2);
  Load(0x6000, GuestCode_other_counts());
  Run(GuestCode_start_all_and_count());
  ASSERT_TRUE(AwaitChange(0x5010));
  for (std::uint64_t round = 0; round < rounds; ++round) {
    vcpus->PauseAll();
    ASSERT_NO_FATAL_FAILURE(ExpectStill()) << "round " << round;
    vcpus->ResumeAll();
    if (round % 1000 == 0) {
      ASSERT_TRUE(AwaitChange(0x5000)) << "round " << round;
      ASSERT_TRUE(AwaitChange(0x5010)) << "round " << round;
    }
  }
}

// A vCPU that waits for others when all are ended must not wait for ever.
TEST_F(StressTest, DestroyWhileVcpusWaitForEachOther_Ends) {
  std::mt19937_64 random(1);
  calls.on_write = [&] {
    calls.writes.clear();
    SignalEventFd(stopped_fd.get());
    AskSomething(random);
  };
  for (int round = 0; round < 30; ++round) {
    Start(kVcpus);
    all = vcpus.get();
    const auto region = memory::MemoryRegion::NewIo(topology, "calls", 1, calls);
    ASSERT_TRUE(io_root->Add(0x80, region));
    Load(0x6000, GuestCode_other_counts_and_calls());
    Run(GuestCode_start_all_and_call());
    EXPECT_TRUE(Await(stopped_fd.get())) << "round " << round;
    Stop();
    io_root->Remove(region);
  }
}

// async_safe_run_on_cpu of the seed: on another's thread, alone, without waiting for it.
TEST_F(StressTest, ExclusiveWorkOnAnotherVcpu_RunsThereAlone) {
  Start(2);
  Load(0x6000, GuestCode_other_counts());
  Run(GuestCode_start_all_and_count());
  ASSERT_TRUE(AwaitChange(0x5010));
  int thread = 0;
  vcpus->RunOnLater(VcpuIndex(1), [&] {
    vcpus->RunExclusive([&] {
      thread = ::gettid();
      ExpectStill();
    });
    SignalEventFd(stopped_fd.get());
  });
  EXPECT_EQ(thread, 0);
  ASSERT_TRUE(Await(stopped_fd.get()));
  EXPECT_EQ(thread, vcpus->thread_id(VcpuIndex(1)));
  EXPECT_TRUE(AwaitChange(0x5000));  // and all go on
  EXPECT_TRUE(AwaitChange(0x5010));
}

// A paused VM stays paused after an exclusive section.
TEST_F(StressTest, ExclusiveWorkWhilePaused_ResumesNobody) {
  Start(2);
  Load(0x6000, GuestCode_other_counts());
  Run(GuestCode_start_all_and_count());
  ASSERT_TRUE(AwaitChange(0x5010));
  vcpus->PauseAll();
  int ran = 0;
  vcpus->RunExclusive([&ran] { ++ran; });
  EXPECT_EQ(ran, 1);
  EXPECT_TRUE(vcpus->all_paused());
  ExpectStill();
}

}  // namespace
}  // namespace gyre::kvm
