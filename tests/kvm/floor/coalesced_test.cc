// Writes that KVM keeps back: none is lost, and their order is the guest's.
#include "ring3.h"

// Each vCPU writes 1, 2, 3... to its own word of the queued register, and after each
// sixth the same number to its word of the one that exits; 600 in all.
GUEST_CODE(write_sixths, 64, R"(
  leal 0x30000000(,%rdi,4), %r8d
  leal 0x30000800(,%rdi,4), %r9d
  xorl %ebx, %ebx
1: movl $6, %ecx
2: incl %ebx
  movl %ebx, (%r8)
  decl %ecx
  jnz 2b
  movl %ebx, (%r9)
  cmpl $600, %ebx
  jb 1b
  movl $1, 0x5000(,%rdi,4)
3: pause
  jmp 3b
)")
// More than the ring holds, without anything between.
GUEST_CODE(write_many, 64, R"(
  xorl %ebx, %ebx
1: incl %ebx
  movl %ebx, 0x30000000
  cmpl $1000, %ebx
  jb 1b
  movl $1, 0x30000800
  movl $1, 0x5000
3: pause
  jmp 3b
)")
// Queued writes to a port (in ring 0, which has ports), then one that exits.
GUEST_CODE(port_writes, 32, R"(
  movb $1, %al
  movw $0x100, %dx
1: outb %al, %dx
  incb %al
  cmpb $20, %al
  jbe 1b
  movw $0x120, %dx
  outb %al, %dx
)" DONE)

namespace gyre::kvm {
namespace {

constexpr unsigned kVcpus = 3;

class CoalescedTest : public RingThreeTest {
 protected:
  CoalescedTest() {
    EXPECT_TRUE(root->Add(kMmio, queued, 1));
    EXPECT_TRUE(root->Add(kMmio + 0x800, direct, 1));
    EXPECT_TRUE(queued->AddCoalescing(0, 0x800));
  }
  ~CoalescedTest() override { Stop(); }

  struct Made {
    bool queued;
    std::uint64_t vcpu;
    std::uint64_t value;
  };
  struct Journal final : memory::RegionHandler {
    Journal(std::vector<Made>& all, bool waits) : made(all), queued(waits) {}
    std::uint64_t Read(std::uint64_t, unsigned) override { return 0; }
    void Write(std::uint64_t offset, unsigned, std::uint64_t value) override {
      made.push_back({queued, offset / 4, value});
      if (on_write) {
        on_write();
      }
    }
    std::vector<Made>& made;
    bool queued;
    std::function<void()> on_write;
  };

  bool AllDone(unsigned count) {
    return AwaitThat([&] {
      for (unsigned i = 0; i < count; ++i) {
        if (Ram<std::uint32_t>(0x5000 + (4 * i)) == 0) {
          return false;
        }
      }
      return true;
    });
  }
  std::uint64_t MmioExits(unsigned count) const {
    std::uint64_t exits = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      exits += vcpus->counters(VcpuIndex(i)).mmio;
    }
    return exits;
  }

  std::vector<Made> made;
  Journal queued_handler{made, true};
  Journal direct_handler{made, false};
  memory::RegionPtr queued = memory::MemoryRegion::NewIo(topology, "queued", 0x800, queued_handler);
  memory::RegionPtr direct = memory::MemoryRegion::NewIo(topology, "direct", 0x800, direct_handler);
};

TEST_F(CoalescedTest, EachVcpusWrites_AreMadeInOrderBeforeItsNextExit) {
  if (system.limits().coalesced_page == 0) {
    GTEST_SKIP() << "this KVM coalesces no writes";
  }
  Start(kVcpus);
  RunAll(kVcpus, GuestCode_write_sixths());
  ASSERT_TRUE(AllDone(kVcpus));
  vcpus->PauseAll();
  std::vector<std::uint64_t> last(kVcpus, 0);
  for (const Made& write : made) {
    ASSERT_LT(write.vcpu, kVcpus);
    if (write.queued) {
      ASSERT_EQ(write.value, last[write.vcpu] + 1) << "vCPU " << write.vcpu;
      last[write.vcpu] = write.value;
    } else {
      ASSERT_EQ(write.value, last[write.vcpu])
          << "vCPU " << write.vcpu << " was served before what it had written";
    }
  }
  for (const std::uint64_t value : last) {
    EXPECT_EQ(value, 600U);
  }
  // One in seven writes exits, as long as the ring is not full.
  EXPECT_LT(MmioExits(kVcpus), kVcpus * 600U);
  EXPECT_GE(MmioExits(kVcpus), kVcpus * 100U);
}

TEST_F(CoalescedTest, MoreThanTheRingHolds_LosesNone) {
  Start();
  RunAll(1, GuestCode_write_many());
  ASSERT_TRUE(AllDone(1));
  vcpus->PauseAll();
  ASSERT_EQ(made.size(), 1001U);
  for (std::size_t i = 0; i < 1000; ++i) {
    ASSERT_TRUE(made[i].queued);
    ASSERT_EQ(made[i].value, i + 1);
  }
  EXPECT_FALSE(made.back().queued);
}

// The writes reach the handler wherever it stands when they were written.
TEST_F(CoalescedTest, MovedAndSwitchedMeanwhile_LosesNone) {
  Start(kVcpus);
  // An alias beside it takes its place while it moves away; both are the same handler.
  const auto alias = memory::MemoryRegion::NewAlias(topology, "alias", queued, 0, 0x800);
  RunAll(kVcpus, GuestCode_write_sixths());
  for (int round = 0; round < 60; ++round) {
    memory::Transaction change(topology);
    if (round % 3 == 0) {
      ASSERT_TRUE(root->Add(kMmio, alias, 2));
    } else if (round % 3 == 1) {
      queued->ClearCoalescing();
    } else {
      root->Remove(alias);
      ASSERT_TRUE(queued->AddCoalescing(0, 0x800));
    }
    ASSERT_TRUE(change.Commit());
    GiveTurn();
  }
  ASSERT_TRUE(AllDone(kVcpus));
  vcpus->PauseAll();
  std::vector<std::uint64_t> last(kVcpus, 0);
  for (const Made& write : made) {
    if (write.queued) {
      ASSERT_EQ(write.value, last.at(write.vcpu) + 1) << "vCPU " << write.vcpu;
      last[write.vcpu] = write.value;
    }
  }
  for (const std::uint64_t value : last) {
    EXPECT_EQ(value, 600U);
  }
}

TEST_F(CoalescedTest, ATransaction_MakesWhatWaits) {
  if (system.limits().coalesced_page == 0) {
    GTEST_SKIP() << "this KVM coalesces no writes";
  }
  Start();
  direct_handler.on_write = [this] {
    // On the vCPU's thread, in its exit: all has been made before.
    EXPECT_EQ(made.size() % 7, 0U);
    const memory::Transaction transaction(topology);
  };
  RunAll(1, GuestCode_write_sixths());
  ASSERT_TRUE(AllDone(1));
}

TEST_F(CoalescedTest, Ports_AreMadeBeforeTheNextExit) {
  if (!system.limits().coalesced_ports) {
    GTEST_SKIP() << "this KVM coalesces no port writes";
  }
  const auto region = memory::MemoryRegion::NewIo(topology, "queued ports", 1, queued_handler);
  ASSERT_TRUE(io_root->Add(0x100, region, 1));
  ASSERT_TRUE(region->AddCoalescing(0, 1));
  Start();
  Run(GuestCode_port_writes());
  ASSERT_TRUE(AwaitDone());
  ASSERT_EQ(made.size(), 20U);
  for (std::size_t i = 0; i < made.size(); ++i) {
    EXPECT_EQ(made[i].value, i + 1);
  }
  EXPECT_EQ(ports.writes.size(), 1U);
  EXPECT_LT(vcpus->counters(VcpuIndex(0)).pio, 20U);
  Stop();
  io_root->Remove(region);
}

}  // namespace
}  // namespace gyre::kvm
