// The region tree and what is seen of it (semantics 1.2).
#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

class Render : public testing::Test {
 protected:
  World world;
  RegionPtr root = world.Container(kWholeSpace, "root");
  AddressSpace space{world.topology, "space", root};
};

TEST_F(Render, EmptyRoot_ShowsNothing) { EXPECT_EQ(Describe(space), ""); }

TEST_F(Render, HigherPriority_CoversLowerWhicheverCameFirst) {
  ASSERT_TRUE(root->Add(0x100, world.Ram(0x100, "high"), 1));
  ASSERT_TRUE(root->Add(0x000, world.Ram(0x400, "low"), 0));
  ASSERT_TRUE(root->Add(0x080, world.Ram(0x400, "negative"), -1));
  EXPECT_EQ(Describe(space), "0-ff low@0 | 100-1ff high@0 | 200-3ff low@200 | 400-47f negative@380");
}

TEST_F(Render, EqualPriority_NewestWins) {
  ASSERT_TRUE(root->Add(0, world.Ram(0x100, "old")));
  ASSERT_TRUE(root->Add(0x80, world.Ram(0x100, "new")));
  EXPECT_EQ(Describe(space), "0-7f old@0 | 80-17f new@0");
}

TEST_F(Render, PriorityInsideAContainer_DoesNotCompeteOutside) {
  const auto container = world.Container(0x100);
  ASSERT_TRUE(container->Add(0, world.Ram(0x100, "inner"), 100));
  ASSERT_TRUE(root->Add(0, container, 0));
  ASSERT_TRUE(root->Add(0x80, world.Ram(0x100, "outer"), 1));
  EXPECT_EQ(Describe(space), "0-7f inner@0 | 80-17f outer@0");
}

TEST_F(Render, HolesOfAContainer_ShowWhatLiesBelow) {
  const auto container = world.Container(0x1000);
  ASSERT_TRUE(container->Add(0x100, world.Ram(0x100, "inner")));
  ASSERT_TRUE(root->Add(0, container, 1));
  ASSERT_TRUE(root->Add(0, world.Ram(0x300, "below"), 0));
  EXPECT_EQ(Describe(space), "0-ff below@0 | 100-1ff inner@0 | 200-2ff below@200");
}

TEST_F(Render, ChildrenOfATerminatingRegion_CoverIt) {
  FakeHandler handler;
  const auto ports = MemoryRegion::NewIo(world.topology, "ports", 0x1000, handler);
  ASSERT_TRUE(ports->Add(0x10, world.Ram(0x10, "child"), -5));
  ASSERT_TRUE(root->Add(0, ports));
  EXPECT_EQ(Describe(space), "0-f ports@0 | 10-1f child@0 | 20-fff ports@20");
}

TEST_F(Render, ChildBeyondItsContainer_IsClipped) {
  const auto container = world.Container(0x100);
  ASSERT_TRUE(container->Add(0x80, world.Ram(0x1000)));
  ASSERT_TRUE(root->Add(0x1000, container));
  EXPECT_EQ(Describe(space), "1080-10ff ram@0");
}

TEST_F(Render, Alias_ShowsItsPartOfTheTarget) {
  const auto ram = world.Ram(0x1000);
  ASSERT_TRUE(root->Add(0x10000, world.Alias(ram, 0x400, 0x200)));
  EXPECT_EQ(Describe(space), "10000-101ff ram@400");
}

TEST_F(Render, AliasBeyondItsTarget_ShowsNothingThere) {
  ASSERT_TRUE(root->Add(0, world.Alias(world.Ram(0x100), 0x80, 0x1000)));
  EXPECT_EQ(Describe(space), "0-7f ram@80");
}

// The target's start falls below address 0.
TEST_F(Render, AliasNearZeroOfAHighPart_DoesNotWrap) {
  const auto target = world.Container(kWholeSpace);
  ASSERT_TRUE(target->Add(0xffff'ffff'ffff'f000, world.Ram(0x1000)));
  ASSERT_TRUE(root->Add(0x10, world.Alias(target, 0xffff'ffff'ffff'f800, 0x800)));
  EXPECT_EQ(Describe(space), "10-80f ram@800");
}

TEST_F(Render, AliasOfAnAlias_AddsUp) {
  const auto inner = world.Alias(world.Ram(0x1000), 0x100, 0x800);
  ASSERT_TRUE(root->Add(0, world.Alias(inner, 0x100, 0x100)));
  EXPECT_EQ(Describe(space), "0-ff ram@200");
}

TEST_F(Render, DisabledTarget_HidesItsAliases) {
  const auto ram = world.Ram(0x100);
  ASSERT_TRUE(root->Add(0, world.Alias(ram, 0, 0x100)));
  ram->SetEnabled(false);
  EXPECT_EQ(Describe(space), "");
  ram->SetEnabled(true);
  EXPECT_EQ(Describe(space), "0-ff ram@0");
}

TEST_F(Render, WholeSpace_ReachesTheLastAddress) {
  FakeHandler handler;
  ASSERT_TRUE(root->Add(0, MemoryRegion::NewIo(world.topology, "all", kWholeSpace, handler)));
  ASSERT_TRUE(root->Add(UINT64_MAX, world.Ram(1, "top"), 1));
  EXPECT_EQ(Describe(space), "0-fffffffffffffffe all@0 | ffffffffffffffff-ffffffffffffffff top@0");
  EXPECT_EQ(space.view()->Find(UINT64_MAX)->region->name(), "top");
  EXPECT_EQ(space.view()->Find(UINT64_MAX - 1)->region->name(), "all");
}

TEST_F(Render, Readonly_IsInheritedDownwardAndThroughAliases) {
  const auto container = world.Container(0x1000);
  ASSERT_TRUE(container->Add(0, world.Ram(0x100)));
  const auto alias = world.Alias(container, 0, 0x1000);
  ASSERT_TRUE(root->Add(0, container));
  ASSERT_TRUE(root->Add(0x1000, alias));
  alias->SetReadonly(true);
  EXPECT_EQ(Describe(space), "0-ff ram@0 | 1000-10ff ram@0 ro");
  container->SetReadonly(true);
  EXPECT_EQ(Describe(space), "0-ff ram@0 ro | 1000-10ff ram@0 ro");
  container->SetReadonly(false);
  EXPECT_EQ(Describe(space), "0-ff ram@0 | 1000-10ff ram@0 ro");
}

TEST_F(Render, Rom_IsAlwaysReadonly) {
  const auto rom = world.Rom(0x100);
  ASSERT_TRUE(root->Add(0, rom));
  rom->SetReadonly(false);
  EXPECT_EQ(Describe(space), "0-ff rom@0 ro");
}

// Splitting by an overlay and removing it must leave one range: each is a KVM slot.
TEST_F(Render, RemovedOverlay_LeavesNoSeam) {
  const auto overlay = world.Rom(0x10);
  ASSERT_TRUE(root->Add(0, world.Ram(0x1000)));
  ASSERT_TRUE(root->Add(0x100, overlay, 1));
  EXPECT_EQ(space.view()->ranges().size(), 3U);
  root->Remove(overlay);
  EXPECT_EQ(Describe(space), "0-fff ram@0");
}

TEST_F(Render, AdjacentAliasesOfOneBlock_Merge) {
  const auto ram = world.Ram(0x2000);
  ASSERT_TRUE(root->Add(0, world.Alias(ram, 0, 0x1000)));
  ASSERT_TRUE(root->Add(0x1000, world.Alias(ram, 0x1000, 0x1000)));
  EXPECT_EQ(Describe(space), "0-1fff ram@0");
}

TEST_F(Render, SetOffset_MovesAndMakesNewest) {
  const auto first = world.Ram(0x100, "first");
  ASSERT_TRUE(root->Add(0, first));
  ASSERT_TRUE(root->Add(0x80, world.Ram(0x100, "second")));
  ASSERT_TRUE(first->SetOffset(0x40));
  EXPECT_EQ(Describe(space), "40-13f first@0 | 140-17f second@c0");
}

TEST_F(Render, SetSize_GrowsAndShrinks) {
  const auto container = world.Container(0x10);
  ASSERT_TRUE(container->Add(0, world.Ram(0x100)));
  ASSERT_TRUE(root->Add(0, container));
  ASSERT_TRUE(container->SetSize(0x80));
  EXPECT_EQ(Describe(space), "0-7f ram@0");
  ASSERT_TRUE(container->SetSize(0));
  EXPECT_EQ(Describe(space), "");
}

TEST_F(Render, SetAliasOffset_Slides) {
  const auto alias = world.Alias(world.Ram(0x1000), 0, 0x100);
  ASSERT_TRUE(root->Add(0, alias));
  ASSERT_TRUE(alias->SetAliasOffset(0x800));
  EXPECT_EQ(Describe(space), "0-ff ram@800");
}

TEST_F(Render, RomDevice_SaysWhoServesReads) {
  FakeHandler handler;
  const auto flash = MemoryRegion::NewRomDevice(world.topology, "flash", World::Block(0x100), handler);
  ASSERT_TRUE(root->Add(0, flash));
  EXPECT_TRUE(space.view()->Find(0)->rom_direct);
  flash->SetRomDirect(false);
  EXPECT_FALSE(space.view()->Find(0)->rom_direct);
}

TEST_F(Render, HostOfAPart_IsItsBytes) {
  const auto block = World::Block(0x1000);
  const auto ram = MemoryRegion::NewRam(world.topology, "ram", block);
  ASSERT_TRUE(root->Add(0, world.Alias(ram, 0x300, 0x100)));
  EXPECT_EQ(space.view()->Find(0x20)->host(), block->host() + 0x300);
}

class Refused : public Render {};

TEST_F(Refused, SecondContainer_IsAnError) {
  const auto ram = world.Ram(0x100);
  const auto container = world.Container(0x100);
  ASSERT_TRUE(root->Add(0, ram));
  const auto status = container->Add(0, ram);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "memory region ram: already in container root");
  root->Remove(ram);
  EXPECT_TRUE(container->Add(0, ram));
}

TEST_F(Refused, ContainerThatHasGone_HoldsNobody) {
  const auto ram = world.Ram(0x100);
  ASSERT_TRUE(world.Container(0x100)->Add(0, ram));
  EXPECT_EQ(ram->container(), nullptr);
  EXPECT_TRUE(root->Add(0, ram));
}

TEST_F(Refused, Cycles_AreErrors) {
  const auto a = world.Container(0x100, "a");
  const auto b = world.Container(0x100, "b");
  EXPECT_FALSE(a->Add(0, a));
  ASSERT_TRUE(a->Add(0, b));
  EXPECT_FALSE(b->Add(0, a));
  EXPECT_FALSE(b->Add(0, world.Alias(a, 0, 0x10)));
  EXPECT_FALSE(a->Add(0, world.Alias(world.Alias(a, 0, 0x10), 0, 0x10)));
  EXPECT_EQ(a->children().size(), 1U);
}

TEST_F(Refused, WrappingRanges_AreErrorsAndChangeNothing) {
  const auto ram = world.Ram(0x100);
  EXPECT_FALSE(root->Add(UINT64_MAX - 0xfe, ram));
  ASSERT_TRUE(root->Add(UINT64_MAX - 0xff, ram));
  EXPECT_FALSE(ram->SetOffset(UINT64_MAX));
  EXPECT_EQ(Describe(space), "ffffffffffffff00-ffffffffffffffff ram@0");
  EXPECT_FALSE(ram->SetSize(0x101));  // more than its memory
  EXPECT_FALSE(root->Add(1, world.Container(kWholeSpace)));
  const auto container = world.Container(0x100);
  ASSERT_TRUE(root->Add(1, container));
  EXPECT_FALSE(container->SetSize(kWholeSpace));
  EXPECT_EQ(container->size(), 0x100U);
}

TEST_F(Refused, WrappingAlias_IsAnError) {
  const auto target = world.Container(kWholeSpace);
  EXPECT_FALSE(root->Add(0, world.Alias(target, 3, UINT64_MAX - 1)));
  const auto alias = world.Alias(target, 0, 0x100);
  ASSERT_TRUE(root->Add(0, alias));
  EXPECT_FALSE(alias->SetAliasOffset(UINT64_MAX - 0x10));
  EXPECT_EQ(alias->alias_offset(), 0U);
}

TEST_F(Refused, ChildOfAnAlias_IsAnError) {
  EXPECT_FALSE(world.Alias(root, 0, 0x100)->Add(0, world.Ram(0x10)));
}

TEST_F(Refused, RemovalOfAStranger_DoesNothing) {
  const auto ram = world.Ram(0x100);
  root->Remove(ram);
  ASSERT_TRUE(root->Add(0, ram));
  root->Remove(root->children().front());  // the list's own reference
  EXPECT_EQ(Describe(space), "");
}

// Inherited through containers: two windows of one RAM, side by side.
TEST_F(Render, Unmergeable_KeepsNeighboursApartThatContinueEachOther) {
  const auto windows = world.Container(0x3000, "windows");
  const auto ram = world.Ram(0x2000);
  ASSERT_TRUE(root->Add(0, windows));
  ASSERT_TRUE(windows->Add(0, world.Alias(ram, 0, 0x1000)));
  ASSERT_TRUE(windows->Add(0x1000, world.Alias(ram, 0x1000, 0x1000)));
  EXPECT_EQ(Describe(space), "0-1fff ram@0");
  windows->SetUnmergeable(true);
  EXPECT_EQ(Describe(space), "0-fff ram@0 | 1000-1fff ram@1000");
  // What has covered one for a while leaves no seam in it.
  const auto overlay = world.Rom(0x100);
  ASSERT_TRUE(root->Add(0x800, overlay, 1));
  EXPECT_EQ(Describe(space), "0-7ff ram@0 | 800-8ff rom@0 ro | 900-fff ram@900 | 1000-1fff ram@1000");
  root->Remove(overlay);
  EXPECT_EQ(Describe(space), "0-fff ram@0 | 1000-1fff ram@1000");
  windows->SetUnmergeable(false);
  EXPECT_EQ(Describe(space), "0-1fff ram@0");
}

}  // namespace
}  // namespace gyre::memory
