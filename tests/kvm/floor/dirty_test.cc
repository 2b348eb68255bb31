// Dirty tracking of a guest that writes all the time, by bitmaps and by rings, held
// against its memory. SEED= repeats a run, ROUNDS= sets its length.
#include <sys/ioctl.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "floor_fixture.h"
#include "gyre/base/format.h"
#include "kvm/kvm_api.h"

// Each vCPU counts up a word of its own (%ecx tells which) on one page after another of
// the 8192 from 16 MiB on, as a generator of %eax says, and then its writes at 0x5000.
// There is neither paging nor a stack, so nothing else is written. Some hosts emulate
// this code, and look at a ring's end only between an exit and the next: hence the OUT.
GUEST_CODE(write_pages, 32, R"(
1: imull $1664525, %eax, %eax
  addl $1013904223, %eax
  movl %eax, %edx
  shrl $19, %edx
  shll $12, %edx
  incl 0x1000000(%edx,%ecx,4)
  incl 0x5000(,%ecx,4)
  incl %esi
  testl $15, %esi
  jnz 1b
  outb %al, $0x80
  jmp 1b
)")

namespace gyre::kvm {
namespace {

using enum memory::DirtyClient;

constexpr std::uint64_t kBig = 16 * kMiB;
constexpr std::uint64_t kBigPages = 8192;
constexpr std::uint64_t kCounts = 0x5000;
constexpr unsigned kVcpus = 2;

// A device that takes writes and forgets them.
class Nobody final : public memory::RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t, unsigned) override { return 0; }
  void Write(std::uint64_t, unsigned, std::uint64_t) override {}
};

class DirtyTest : public FloorTest, public testing::WithParamInterface<std::uint32_t> {
 protected:
  // What a block looked like once, and which of its pages have been taken since.
  struct Watched {
    memory::RamBlock* block = nullptr;
    std::vector<std::byte> before;
    std::vector<bool> marked;
  };

  DirtyTest() {
    EXPECT_TRUE(root->Add(kBig, big_region));
    vm_config.dirty_ring_entries = GetParam();
    std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  }

  ~DirtyTest() override { Stop(); }  // before the overlay's handler goes

  void SetUp() override {
    if (auto probe = Vm::Create(system, vm_config); !probe && probe.error().kind() == ErrorKind::kUsage) {
      GTEST_SKIP() << probe.error().message();
    }
    ASSERT_NO_FATAL_FAILURE(Start(kVcpus));
    Load(kCode, GuestCode_write_pages());
    ASSERT_TRUE(vcpus->ResetAll(Flat32()));
    kvm_sregs boot{};
    ASSERT_EQ(::ioctl(vcpus->fd(VcpuIndex(0)), KVM_GET_SREGS, &boot), 0);
    for (std::uint32_t i = 0; i < kVcpus; ++i) {
      const int fd = vcpus->fd(VcpuIndex(i));
      kvm_sregs sregs{};
      ASSERT_EQ(::ioctl(fd, KVM_GET_SREGS, &sregs), 0);
      boot.apic_base = sregs.apic_base;
      ASSERT_EQ(::ioctl(fd, KVM_SET_SREGS, &boot), 0);
      kvm_regs regs{};
      regs.rip = kCode;
      regs.rflags = 2;
      regs.rax = static_cast<std::uint32_t>(random());
      regs.rcx = i;
      ASSERT_EQ(::ioctl(fd, KVM_SET_REGS, &regs), 0);
      kvm_mp_state state{.mp_state = KVM_MP_STATE_RUNNABLE};
      ASSERT_EQ(::ioctl(fd, KVM_SET_MP_STATE, &state), 0);
    }
  }

  // Once every vCPU has written so many pages more.
  void AwaitWrites(std::uint32_t more) {
    for (std::uint64_t i = 0; i < kVcpus; ++i) {
      const std::uint64_t address = kCounts + (4 * i);
      const auto start = Ram<std::uint32_t>(address);
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      while (Ram<std::uint32_t>(address) - start < more) {
        ASSERT_LT(std::chrono::steady_clock::now(), deadline)
            << "vCPU " << i << " does not go on: " << Trouble();
        std::this_thread::yield();
      }
    }
  }

  // What the vCPUs have to say.
  std::string Trouble() {
    std::string text;
    for (const VcpuEvent& event : vcpus->TakeEvents()) {
      text += event.detail + "\n";
    }
    for (std::uint32_t i = 0; i < kVcpus; ++i) {
      const ExitCounters exits = vcpus->counters(VcpuIndex(i));
      text += format("vCPU {}: {} full rings, {} mmio, {} interrupted, {} other\n", i, exits.dirty_ring_full,
                     exits.mmio, exits.interrupted, exits.other);
    }
    return text;
  }

  static Watched Watch(const std::shared_ptr<memory::RamBlock>& block) {
    return {.block = block.get(),
            .before = {block->host(), block->host() + block->size()},
            .marked = std::vector<bool>(block->size() / kPageSize)};
  }
  void TakeMarks(Watched& watched) {
    const auto pages = dirty.TakeAll(kSnapshot, *watched.block);
    ASSERT_TRUE(pages) << pages.error().message();
    for (std::uint64_t page = 0; page < watched.marked.size(); ++page) {
      watched.marked[page] = watched.marked[page] || pages->Test(page);
    }
  }
  // No page too few, none too many.
  static void ExpectExact(const Watched& watched) {
    std::uint64_t missed = 0;
    std::uint64_t surplus = 0;
    for (std::uint64_t page = 0; page < watched.marked.size(); ++page) {
      const bool changed = std::memcmp(watched.before.data() + (page * kPageSize),
                                       watched.block->host() + (page * kPageSize), kPageSize) != 0;
      missed += changed && !watched.marked[page] ? 1U : 0U;
      surplus += !changed && watched.marked[page] ? 1U : 0U;
    }
    EXPECT_EQ(missed, 0U) << watched.block->name();
    EXPECT_EQ(surplus, 0U) << watched.block->name();
  }
  void SyncAll() {
    const Status status = dirty.Sync();
    ASSERT_TRUE(status) << status.error().message();
  }
  // One round of a migration: what is marked, to `copy`, in parts that are no whole words.
  void CopyMarked(memory::RamBlock& block, std::vector<std::byte>& copy) {
    constexpr std::uint64_t kPart = 1000;
    const std::uint64_t pages = block.size() / kPageSize;
    for (std::uint64_t first = 0; first < pages; first += kPart) {
      const auto taken = dirty.Take(kMigration, block, first, std::min(kPart, pages - first));
      ASSERT_TRUE(taken) << taken.error().message();
      taken->ForEachRun([&](std::uint64_t start, std::uint64_t count) {
        copied += count;
        std::memcpy(copy.data() + (start * kPageSize), block.host() + (start * kPageSize), count * kPageSize);
      });
    }
  }
  // A device over so many pages of RAM, which needs no lock: this thread has the big one.
  memory::RegionPtr Overlay(std::uint64_t pages) {
    return memory::MemoryRegion::NewIo(topology, "overlay", pages * kPageSize, nobody,
                                       {.lock = memory::LockPolicy::kNone});
  }
  std::uint64_t RingFullExits() const {
    return vcpus->counters(VcpuIndex(0)).dirty_ring_full + vcpus->counters(VcpuIndex(1)).dirty_ring_full;
  }
  // Rounds with `change` in each; then the pause and the last round. The copy is the original.
  void Migrate(std::uint64_t length, const std::function<void(std::uint64_t)>& change) {
    vcpus->ResumeAll();
    ASSERT_NO_FATAL_FAILURE(AwaitWrites(500));
    ASSERT_TRUE(dirty.Start(kMigration));
    std::vector<std::byte> copy(ram->size());
    std::vector<std::byte> big_copy(big->size());
    for (std::uint64_t round = 0; round < length; ++round) {
      ASSERT_NO_FATAL_FAILURE(CopyMarked(*ram, copy));
      ASSERT_NO_FATAL_FAILURE(CopyMarked(*big, big_copy));
      change(round);
      ASSERT_NO_FATAL_FAILURE(AwaitWrites(50));
      ASSERT_NO_FATAL_FAILURE(SyncAll());
    }
    vcpus->PauseAll();
    ASSERT_NO_FATAL_FAILURE(SyncAll());
    const std::uint64_t before = copied;
    ASSERT_NO_FATAL_FAILURE(CopyMarked(*ram, copy));
    ASSERT_NO_FATAL_FAILURE(CopyMarked(*big, big_copy));
    EXPECT_GT(copied, before);
    EXPECT_EQ(std::memcmp(copy.data(), ram->host(), copy.size()), 0);
    EXPECT_EQ(std::memcmp(big_copy.data(), big->host(), big_copy.size()), 0);
    dirty.Stop(kMigration);
    EXPECT_TRUE(vcpus->TakeEvents().empty());
  }

  std::uint64_t seed = FromEnvironment("SEED", std::random_device()());
  std::mt19937_64 random{seed};
  std::uint64_t rounds = FromEnvironment("ROUNDS", 8);
  std::shared_ptr<memory::RamBlock> big = memory::RamBlock::NewAnonymous("big", kBigPages* kPageSize).value();
  Nobody nobody;
  memory::RegionPtr big_region = memory::MemoryRegion::NewRam(topology, "big", big);
  memory::DirtyTracker& dirty = topology.dirty();
  std::uint64_t copied = 0;  // pages
};

TEST_P(DirtyTest, MarksAreExactlyThePagesThatChanged) {
  ASSERT_TRUE(dirty.Start(kSnapshot));
  memory::ViewCache cache;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    // A fresh beginning, while nobody writes.
    ASSERT_NO_FATAL_FAILURE(SyncAll());
    for (const auto& block : dirty.blocks()) {
      ASSERT_TRUE(dirty.TakeAll(kSnapshot, *block));
    }
    Watched low = Watch(ram);
    Watched high = Watch(big);
    vcpus->ResumeAll();
    for (int look = 0; look < 3; ++look) {
      ASSERT_NO_FATAL_FAILURE(AwaitWrites(60));
      const std::uint64_t value = random();  // a device's write
      memory_space.Write(cache, GuestAddress(kBig + (random() % kBigPages * kPageSize) + 64),
                         std::as_bytes(std::span(&value, 1)));
      ASSERT_NO_FATAL_FAILURE(SyncAll());
      TakeMarks(high);
      TakeMarks(low);
    }
    vcpus->PauseAll();
    ASSERT_NO_FATAL_FAILURE(SyncAll());
    TakeMarks(high);
    TakeMarks(low);
    ASSERT_NO_FATAL_FAILURE(ExpectExact(low)) << "round " << round;
    ASSERT_NO_FATAL_FAILURE(ExpectExact(high)) << "round " << round;
    EXPECT_GE(std::ranges::count(high.marked, true), 180) << "the guest wrote too little to say anything";
  }
  EXPECT_TRUE(vcpus->TakeEvents().empty());
}

// Nobody syncs, and this thread keeps the big lock: full rings are the vCPUs' own business.
TEST_P(DirtyTest, WithoutASync_TheGuestGoesOnAndNothingIsLost) {
  ASSERT_TRUE(dirty.Start(kSnapshot));
  ASSERT_NO_FATAL_FAILURE(SyncAll());
  for (const auto& block : dirty.blocks()) {
    ASSERT_TRUE(dirty.TakeAll(kSnapshot, *block));
  }
  Watched high = Watch(big);
  vcpus->ResumeAll();
  ASSERT_NO_FATAL_FAILURE(AwaitWrites(4000));
  vcpus->PauseAll();
  ASSERT_NO_FATAL_FAILURE(SyncAll());
  TakeMarks(high);
  ExpectExact(high);
  EXPECT_EQ(RingFullExits() > 0, GetParam() == 1024) << RingFullExits();
  EXPECT_TRUE(vcpus->TakeEvents().empty());
}

TEST_P(DirtyTest, CopyOfWhatIsMarkedRoundAfterRound_EqualsGuestMemory) {
  Migrate(rounds, [](std::uint64_t) {});
}

// Slots come and go under the guest, and with them their logs.
TEST_P(DirtyTest, CopyWhileTheMapChanges_EqualsGuestMemory) {
  const auto overlay = Overlay(16);
  Migrate(rounds, [&](std::uint64_t) {
    ASSERT_TRUE(root->Add(kBig + (random() % (kBigPages - 16) * kPageSize), overlay, 1));
    ASSERT_NO_FATAL_FAILURE(AwaitWrites(20));
    root->Remove(overlay);
  });
}

// An unchanged page does not count as written because a slot around it was made anew.
TEST_P(DirtyTest, MapThatChanges_MarksNothing) {
  ASSERT_TRUE(dirty.Start(kSnapshot));
  ASSERT_NO_FATAL_FAILURE(SyncAll());
  ASSERT_TRUE(dirty.TakeAll(kSnapshot, *big));
  const auto overlay = Overlay(1);
  ASSERT_TRUE(root->Add(kBig + (100 * kPageSize), overlay, 1));
  ASSERT_NO_FATAL_FAILURE(SyncAll());
  root->Remove(overlay);
  ASSERT_NO_FATAL_FAILURE(SyncAll());
  EXPECT_EQ(big->dirty().Count(kSnapshot), 0U);
}

TEST_P(DirtyTest, StopAndStartAgain_TracksAgain) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_NO_FATAL_FAILURE(Migrate(2, [](std::uint64_t) {}));
  }
}

std::string NameOf(const testing::TestParamInfo<std::uint32_t>& info) {
  return info.param == 0 ? "Bitmap" : "Ring" + std::to_string(info.param);
}

INSTANTIATE_TEST_SUITE_P(Logs, DirtyTest, testing::Values(0U, 1024U, 65'536U), NameOf);

TEST_F(FloorTest, DirtyRingLargerThanKvmHas_IsAUsersMistake) {
  const auto created = Vm::Create(system, {.dirty_ring_entries = 1U << 20});
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().kind(), ErrorKind::kUsage);
  EXPECT_TRUE(created.error().message().starts_with(
      "a dirty ring of 1048576 entries: this host's KVM takes at most "))
      << created.error().message();
}

}  // namespace
}  // namespace gyre::kvm
