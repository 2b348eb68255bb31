// More slots than one would think, and fewer than the map needs.
#include <gmock/gmock.h>

#include "ring3.h"

// Adds 1 to the first word of every second page from 0x20000000 on, as many as 0x4ff8 says.
GUEST_CODE(touch_pages, 64, R"(
  movl 0x4ff8, %ecx
  movl $0x20000000, %edx
1: incl (%rdx)
  addl $0x2000, %edx
  decl %ecx
  jnz 1b
  movl $1, 0x5000
2: pause
  jmp 2b
)")

namespace gyre::kvm {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kPagesAt = 0x2000'0000;

class SlotCountTest : public RingThreeTest {
 protected:
  void MakePages(std::size_t count) {
    block = memory::RamBlock::NewAnonymous("pages", count * kPageSize).value();
    const auto all = memory::MemoryRegion::NewRam(topology, "pages", block);
    for (std::size_t i = 0; i < count; ++i) {
      pages.push_back(memory::MemoryRegion::NewAlias(topology, "page", all, i * kPageSize, kPageSize));
    }
  }
  // The error of the whole change, or "".
  std::string AddPages(std::size_t first, std::size_t end) {
    memory::Transaction change(topology);
    for (std::size_t i = first; i < end; ++i) {
      (void)root->Add(kPagesAt + (2 * i * kPageSize), pages[i]);
    }
    const Status status = change.Commit();
    return status ? "" : status.error().message();
  }
  void TouchAll() {
    SetRam<std::uint32_t>(0x4ff8, static_cast<std::uint32_t>(pages.size()));
    SetRam<std::uint32_t>(0x5000, 0);
    vcpus->PauseAll();
    RunAll(1, GuestCode_touch_pages());
    ASSERT_TRUE(AwaitThat([this] { return Ram<std::uint32_t>(0x5000) != 0; }));
  }
  void ExpectEach(std::uint32_t value) const {
    for (std::size_t i = 0; i < pages.size(); ++i) {
      // Dispatch on the vCPU's thread may have written it.
      const auto* const place =
          static_cast<const std::uint32_t*>(static_cast<void*>(block->host() + (i * kPageSize)));
      ASSERT_EQ(__atomic_load_n(place, __ATOMIC_ACQUIRE), value) << "page " << i;
    }
  }

  std::shared_ptr<memory::RamBlock> block;
  std::vector<memory::RegionPtr> pages;
};

TEST_F(SlotCountTest, Thousands_AreMappedAndUnmapped) {
  constexpr std::size_t kPages = 3000;
  if (system.limits().memory_slots <= kPages) {
    GTEST_SKIP() << "this KVM has only " << system.limits().memory_slots << " slots";
  }
  MakePages(kPages);
  Start();
  ASSERT_EQ(AddPages(0, kPages), "");
  TouchAll();
  ExpectEach(1);
  EXPECT_EQ(vcpus->counters(VcpuIndex(0)).mmio, 0U);
  // Half of them go and come again in one change each, under the running guest.
  for (int round = 0; round < 2; ++round) {
    memory::Transaction change(topology);
    for (std::size_t i = 0; i < kPages; i += 2) {
      pages[i]->SetEnabled(round == 1);
    }
    ASSERT_TRUE(change.Commit());
  }
  TouchAll();
  ExpectEach(2);
  EXPECT_EQ(vcpus->counters(VcpuIndex(0)).mmio, 0U);
}

// What KVM does not map is served by dispatch, and is mapped when there is room again.
TEST_F(SlotCountTest, FewerThanNeeded_IsAnErrorAndTheGuestGoesOn) {
  vm_config.max_slots = 4;  // one of them is the fixture's RAM
  MakePages(6);
  Start();
  ASSERT_EQ(AddPages(0, 2), "");
  EXPECT_THAT(AddPages(2, 6), HasSubstr("no memory slot left of 4"));
  TouchAll();
  ExpectEach(1);
  EXPECT_EQ(vcpus->counters(VcpuIndex(0)).mmio, 6U);  // three pages: a read and a write each
  {
    memory::Transaction change(topology);
    for (std::size_t i = 0; i < 6; ++i) {
      root->Remove(pages[i]);
    }
    ASSERT_TRUE(change.Commit());
  }
  pages.resize(3);
  ASSERT_EQ(AddPages(0, 3), "");
  TouchAll();
  ExpectEach(2);
  EXPECT_EQ(vcpus->counters(VcpuIndex(0)).mmio, 6U);
}

// READONLY cannot change in a slot that lives: it goes and comes, under the guest.
TEST_F(SlotCountTest, Readonly_ChangesUnderTheGuest) {
  MakePages(2);
  Start();
  ASSERT_EQ(AddPages(0, 2), "");
  TouchAll();
  for (const auto& page : pages) {
    page->SetReadonly(true);
  }
  TouchAll();
  ExpectEach(1);  // read as memory, written to nobody
  EXPECT_EQ(memory_space.counters().readonly_writes, 2U);
  for (const auto& page : pages) {
    page->SetReadonly(false);
  }
  TouchAll();
  ExpectEach(2);
  EXPECT_EQ(memory_space.counters().readonly_writes, 2U);
}

// KVM maps whole pages: what sticks out of them exits, and is memory nevertheless.
TEST_F(SlotCountTest, EdgesBelowAPage_AreServedByDispatch) {
  MakePages(1);
  Start();
  ASSERT_TRUE(pages[0]->SetSize(kPageSize - 0x100));
  ASSERT_EQ(AddPages(0, 1), "");
  TouchAll();
  ExpectEach(1);
  EXPECT_EQ(vcpus->counters(VcpuIndex(0)).mmio, 2U);  // a read and a write
  EXPECT_EQ(memory_space.counters().unassigned_reads, 0U);
}

}  // namespace
}  // namespace gyre::kvm
