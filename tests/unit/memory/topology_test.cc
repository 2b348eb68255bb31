// Transactions and listeners (semantics 1.2, 7 I4 and I5).
#include <thread>

#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

using Journal = std::vector<std::string>;

class Transactions : public testing::Test {
 protected:
  RegionPtr Io(std::uint64_t size, const std::string& name = "io") {
    return MemoryRegion::NewIo(world.topology, name, size, handler);
  }

  // A listener that outlives the address space.
  Mirror& NewMirror(int priority = 0, Journal* notes = nullptr, std::string name = "") {
    return *mirrors.emplace_back(std::make_unique<Mirror>(priority, notes, std::move(name)));
  }

  World world;
  FakeHandler handler;
  Journal journal;
  std::vector<std::unique_ptr<Mirror>> mirrors;
  RegionPtr root = world.Container(kWholeSpace, "root");
  AddressSpace space{world.topology, "space", root};
};

TEST_F(Transactions, Nested_ApplyOnceAtTheOutermostEnd) {
  Mirror& mirror = NewMirror();
  ASSERT_TRUE(space.AddListener(mirror));
  mirror.commits = 0;
  const auto renders = world.topology.renders();
  Transaction outer(world.topology);
  {
    Transaction inner(world.topology);
    ASSERT_TRUE(root->Add(0, world.Ram(0x100)));
    ASSERT_TRUE(inner.Commit());
  }
  ASSERT_TRUE(root->Add(0x1000, world.Ram(0x100)));
  EXPECT_EQ(Describe(space), "");
  ASSERT_TRUE(outer.Commit());
  EXPECT_EQ(mirror.commits, 1);
  EXPECT_EQ(world.topology.renders() - renders, 1U);
  EXPECT_EQ(mirror.ranges(), space.view()->ranges());
  EXPECT_EQ(Describe(space), "0-ff ram@0 | 1000-10ff ram@0");
}

TEST_F(Transactions, DestructorWithoutCommit_Commits) {
  {
    const Transaction transaction(world.topology);
    ASSERT_TRUE(root->Add(0, world.Ram(0x100)));
  }
  EXPECT_EQ(Describe(space), "0-ff ram@0");
}

TEST_F(Transactions, EveryAddressSpace_IsRenderedOncePerCommit) {
  const AddressSpace second(world.topology, "second", world.Alias(root, 0, 0x1000));
  const auto renders = world.topology.renders();
  {
    const Transaction transaction(world.topology);
    ASSERT_TRUE(root->Add(0, world.Ram(0x100)));
    ASSERT_TRUE(root->Add(0x100, world.Ram(0x100)));
  }
  EXPECT_EQ(world.topology.renders() - renders, 2U);
  EXPECT_EQ(Describe(second), Describe(space));
}

TEST_F(Transactions, EditsThatCannotShow_RenderNothing) {
  const auto detached = world.Container(0x1000);
  const auto disabled = world.Container(0x1000);
  disabled->SetEnabled(false);
  ASSERT_TRUE(root->Add(0, disabled));
  const auto renders = world.topology.renders();
  for (const auto& container : {detached, disabled}) {
    const auto ram = world.Ram(0x100);
    const auto io = Io(0x100);
    ASSERT_TRUE(container->Add(0, ram));
    ASSERT_TRUE(container->Add(0x100, io));
    ASSERT_TRUE(ram->SetOffset(0x200));
    ASSERT_TRUE(ram->SetSize(0x80));
    ram->SetReadonly(true);
    io->SetEnabled(false);
    io->AddIoEventFd({.offset = 0, .size = 4, .match = {}, .fd = 3});
    container->Remove(ram);
  }
  EXPECT_EQ(world.topology.renders(), renders);
}

TEST_F(Transactions, SettersThatChangeNothing_RenderNothing) {
  const auto ram = world.Ram(0x100);
  ASSERT_TRUE(root->Add(0x10, ram));
  const auto renders = world.topology.renders();
  ram->SetEnabled(true);
  ASSERT_TRUE(ram->SetOffset(0x10));
  ASSERT_TRUE(ram->SetSize(0x100));
  ram->SetReadonly(false);
  EXPECT_EQ(world.topology.renders(), renders);
}

TEST_F(Transactions, EditOfAnAliasTarget_Shows) {
  const auto target = world.Container(0x1000);
  ASSERT_TRUE(root->Add(0, world.Alias(target, 0, 0x1000)));
  ASSERT_TRUE(target->Add(0, world.Ram(0x100)));
  EXPECT_EQ(Describe(space), "0-ff ram@0");
}

TEST_F(Transactions, RootDisabled_ShowsNothingUntilEnabled) {
  ASSERT_TRUE(root->Add(0, world.Ram(0x100)));
  root->SetEnabled(false);
  EXPECT_EQ(Describe(space), "");
  root->SetEnabled(true);
  EXPECT_EQ(Describe(space), "0-ff ram@0");
}

TEST_F(Transactions, EditsThatCancelOut_TellNobodyAndKeepTheView) {
  const auto ram = world.Ram(0x100);
  ASSERT_TRUE(root->Add(0, ram));
  Mirror& mirror = NewMirror();
  ASSERT_TRUE(space.AddListener(mirror));
  const auto view = space.view();
  const int commits = mirror.commits;
  {
    const Transaction transaction(world.topology);
    ram->SetEnabled(false);
    ram->SetEnabled(true);
  }
  EXPECT_EQ(mirror.commits, commits);
  EXPECT_EQ(space.view(), view);
}

TEST_F(Transactions, AttributeChange_RemovesAndReaddsThatRangeOnly) {
  const auto ram = world.Ram(0x100, "a");
  ASSERT_TRUE(root->Add(0, ram));
  ASSERT_TRUE(root->Add(0x1000, world.Ram(0x100, "b")));
  Mirror& mirror = NewMirror();
  ASSERT_TRUE(space.AddListener(mirror));
  ram->SetReadonly(true);
  ASSERT_EQ(mirror.removed().size(), 1U);
  ASSERT_EQ(mirror.added().size(), 1U);
  EXPECT_FALSE(mirror.removed()[0].readonly);
  EXPECT_TRUE(mirror.added()[0].readonly);
}

TEST_F(Transactions, Mutators_AbortWithoutTheBigLock) {
  const auto without_lock = [&] { std::thread([&] { root->SetEnabled(false); }).join(); };
  EXPECT_DEATH(without_lock(), "HeldByMe");
}

class Listeners : public Transactions {};

TEST_F(Listeners, Priorities_AddAscendingRemoveDescending) {
  Mirror& late = NewMirror(20, &journal, "B ");
  Mirror& early = NewMirror(10, &journal, "A ");
  ASSERT_TRUE(space.AddListener(late));
  ASSERT_TRUE(space.AddListener(early));
  const auto old = world.Ram(0x10);
  ASSERT_TRUE(root->Add(0, old));
  journal.clear();
  {
    const Transaction transaction(world.topology);
    root->Remove(old);
    ASSERT_TRUE(root->Add(0x100, world.Ram(0x10)));
  }
  EXPECT_EQ(journal, (Journal{"A begin", "B begin", "B del 0", "A del 0", "A add 100", "B add 100",
                              "A commit", "B commit"}));
}

TEST_F(Listeners, Late_IsReplayedTheViewAndItsIoEventFds) {
  const auto io = Io(0x100);
  io->AddIoEventFd({.offset = 0x10, .size = 2, .match = 7, .fd = 5});
  ASSERT_TRUE(root->Add(0x1000, io));
  Mirror& mirror = NewMirror();
  ASSERT_TRUE(space.AddListener(mirror));
  EXPECT_EQ(mirror.ranges(), space.view()->ranges());
  EXPECT_EQ(mirror.event_fds(),
            (std::vector<PlacedEventFd>{{.address = 0x1010, .size = 2, .match = 7, .fd = 5}}));
}

// Within an open transaction a late listener sees what is published, then the change.
TEST_F(Listeners, AddedInsideATransaction_FollowsTheCommit) {
  Mirror& mirror = NewMirror();
  {
    const Transaction transaction(world.topology);
    ASSERT_TRUE(root->Add(0, world.Ram(0x100)));
    ASSERT_TRUE(space.AddListener(mirror));
    EXPECT_TRUE(mirror.ranges().empty());
  }
  EXPECT_EQ(mirror.ranges(), space.view()->ranges());
}

TEST_F(Listeners, Removed_SeesEverythingRemovedAndNoMore) {
  const auto io = Io(0x100);
  io->AddIoEventFd({.offset = 0, .size = 4, .match = {}, .fd = 5});
  ASSERT_TRUE(root->Add(0, io));
  Mirror& mirror = NewMirror();
  ASSERT_TRUE(space.AddListener(mirror));
  space.RemoveListener(mirror);
  EXPECT_TRUE(mirror.ranges().empty());
  EXPECT_TRUE(mirror.event_fds().empty());
  ASSERT_TRUE(root->Add(0x1000, world.Ram(0x100)));
  EXPECT_TRUE(mirror.ranges().empty());
  space.RemoveListener(mirror);
}

TEST_F(Listeners, AddressSpaceDestroyed_SeeEverythingRemoved) {
  Mirror& mirror = NewMirror();
  {
    AddressSpace other(world.topology, "other", root);
    ASSERT_TRUE(root->Add(0, world.Ram(0x100)));
    ASSERT_TRUE(other.AddListener(mirror));
    EXPECT_EQ(mirror.ranges().size(), 1U);
  }
  EXPECT_TRUE(mirror.ranges().empty());
}

TEST_F(Listeners, Failure_IsReturnedAndTheOthersAreTold) {
  Mirror& first = NewMirror(1);
  Mirror& second = NewMirror(2);
  Mirror& third = NewMirror(3);
  for (Mirror* mirror : {&third, &second, &first}) {
    ASSERT_TRUE(space.AddListener(*mirror));
  }
  first.commit_result = Fail(Error::Host("first"));
  second.commit_result = Fail(Error::Host("second"));
  Transaction transaction(world.topology);
  ASSERT_TRUE(root->Add(0, world.Ram(0x100)));
  const auto status = transaction.Commit();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "first");
  EXPECT_EQ(third.ranges(), space.view()->ranges());
  EXPECT_EQ(Describe(space), "0-ff ram@0");
}

TEST_F(Listeners, FailureAtRegistration_LeavesNothingBehind) {
  ASSERT_TRUE(root->Add(0, world.Ram(0x100)));
  Mirror& mirror = NewMirror();
  mirror.commit_result = Fail(Error::Host("no slot"));
  ASSERT_FALSE(space.AddListener(mirror));
  EXPECT_TRUE(mirror.ranges().empty());
  const int commits = mirror.commits;
  ASSERT_TRUE(root->Add(0x1000, world.Ram(0x100)));
  EXPECT_EQ(mirror.commits, commits);
}

// I5: which view an exit meets while slots change (reasons at Topology::Apply).
TEST_F(Listeners, ViewIsPublished_AfterRemovalsAndBeforeAdditions) {
  class Witness final : public MemoryListener {
   public:
    explicit Witness(const AddressSpace& watched) : space_(watched) {}
    void RegionDel(const FlatRange& range) override { EXPECT_NE(space_.view()->Find(range.start), nullptr); }
    void RegionAdd(const FlatRange& range) override { EXPECT_EQ(*space_.view()->Find(range.start), range); }
    Status Commit() override {
      at_commit = Describe(space_);
      return {};
    }
    std::string at_commit;

   private:
    const AddressSpace& space_;
  };
  const auto ram = world.Ram(0x100);
  ASSERT_TRUE(root->Add(0, ram));
  Witness witness(space);
  ASSERT_TRUE(space.AddListener(witness));
  ASSERT_TRUE(ram->SetOffset(0x1000));
  space.RemoveListener(witness);
  EXPECT_EQ(witness.at_commit, "1000-10ff ram@0");
}

class IoEventFds : public Transactions {};

TEST_F(IoEventFds, ChangedAlone_DoNotTouchTheTopology) {
  const auto io = Io(0x100);
  ASSERT_TRUE(root->Add(0x1000, io));
  Mirror& mirror = NewMirror(0, &journal);
  ASSERT_TRUE(space.AddListener(mirror));
  const auto renders = world.topology.renders();
  journal.clear();
  const IoEventFd bell{.offset = 0x50, .size = 4, .match = 0, .fd = 9};
  io->AddIoEventFd(bell);
  io->AddIoEventFd(bell);
  io->RemoveIoEventFd(bell);
  EXPECT_EQ(journal, (Journal{"fd-add 1050", "fd-del 1050"}));
  EXPECT_EQ(world.topology.renders(), renders);
}

// KVM refuses a duplicate, so a move must not add before it has removed.
TEST_F(IoEventFds, OfAMovedRegion_AreRemovedBeforeAnyIsAdded) {
  const auto io = Io(0x100);
  for (std::uint64_t offset = 0; offset < 0x20; offset += 0x10) {
    io->AddIoEventFd({.offset = offset, .size = 4, .match = {}, .fd = 9});
  }
  ASSERT_TRUE(root->Add(0x1000, io));
  Mirror& mirror = NewMirror(0, &journal);
  ASSERT_TRUE(space.AddListener(mirror));
  journal.clear();
  ASSERT_TRUE(io->SetOffset(0x1010));
  EXPECT_EQ(journal, (Journal{"begin", "fd-del 1000", "del 1000", "add 1010", "fd-add 1020", "commit"}));
}

TEST_F(IoEventFds, AnotherDescriptorAtTheSamePlace_ReplacesTheFirst) {
  const auto io = Io(0x100);
  const IoEventFd first{.offset = 0, .size = 4, .match = 1, .fd = 8};
  io->AddIoEventFd(first);
  ASSERT_TRUE(root->Add(0, io));
  Mirror& mirror = NewMirror();
  ASSERT_TRUE(space.AddListener(mirror));
  {
    const Transaction transaction(world.topology);
    io->AddIoEventFd({.offset = 0, .size = 4, .match = 1, .fd = 9});
    io->RemoveIoEventFd(first);
  }
  ASSERT_EQ(mirror.event_fds().size(), 1U);
  EXPECT_EQ(mirror.event_fds()[0].fd, 9);
}

// Its write would be split at the overlay's edge, so the kernel must not take it for the whole.
TEST_F(IoEventFds, PartlyCovered_IsNotPlaced) {
  const auto io = Io(0x100);
  io->AddIoEventFd({.offset = 0x10, .size = 4, .match = {}, .fd = 9});
  ASSERT_TRUE(root->Add(0, io));
  Mirror& mirror = NewMirror();
  ASSERT_TRUE(space.AddListener(mirror));
  const auto overlay = world.Ram(0x10);
  ASSERT_TRUE(root->Add(0x12, overlay, 1));
  EXPECT_TRUE(mirror.event_fds().empty());
  root->Remove(overlay);
  EXPECT_EQ(mirror.event_fds().size(), 1U);
}

TEST_F(IoEventFds, Failure_IsReturnedByCommit) {
  const auto io = Io(0x100);
  ASSERT_TRUE(root->Add(0, io));
  Mirror& mirror = NewMirror();
  ASSERT_TRUE(space.AddListener(mirror));
  mirror.event_fd_result = Fail(Error::Host("EEXIST"));
  Transaction transaction(world.topology);
  io->AddIoEventFd({.offset = 0, .size = 4, .match = {}, .fd = 9});
  EXPECT_FALSE(transaction.Commit());
}

// By the same root, and by roots that come to the same (semantics 1.2).
TEST(Sharing, SameCanonicalRoot_SharesOneViewThroughEveryCommit) {
  World world;
  FakeHandler handler;
  const auto system = world.Container(kWholeSpace, "system");
  const auto bus = world.Container(kWholeSpace, "bus");
  ASSERT_TRUE(bus->Add(0, world.Alias(system, 0, kWholeSpace)));
  ASSERT_TRUE(system->Add(0, world.Ram(0x1000)));
  AddressSpace cpu(world.topology, "cpu", system);
  const auto renders = world.topology.renders();
  AddressSpace twin(world.topology, "twin", system);
  AddressSpace dma(world.topology, "dma", bus);
  EXPECT_EQ(world.topology.renders(), renders);
  Mirror mirror;
  ASSERT_TRUE(dma.AddListener(mirror));
  const auto io = MemoryRegion::NewIo(world.topology, "io", 0x100, handler);
  ASSERT_TRUE(system->Add(0x2000, io));
  io->AddIoEventFd({.offset = 0, .size = 4, .match = {}, .fd = 3});
  EXPECT_EQ(world.topology.renders(), renders + 1);
  EXPECT_EQ(cpu.view(), twin.view());
  EXPECT_EQ(cpu.view(), dma.view());
  EXPECT_EQ(mirror.ranges(), cpu.view()->ranges());
  EXPECT_EQ(mirror.event_fds().size(), 1U);
  // A device that only the bus has parts them, until it has gone.
  const auto own = world.Rom(0x100);
  ASSERT_TRUE(bus->Add(0x800, own, 1));
  EXPECT_EQ(Describe(cpu), "0-fff ram@0 | 2000-20ff io@0");
  EXPECT_EQ(Describe(dma), "0-7ff ram@0 | 800-8ff rom@0 ro | 900-fff ram@900 | 2000-20ff io@0");
  bus->Remove(own);
  EXPECT_EQ(cpu.view(), dma.view());
  EXPECT_EQ(mirror.ranges(), cpu.view()->ranges());
  // What the alias adds is no longer the same.
  bus->SetReadonly(true);
  EXPECT_EQ(Describe(dma), "0-fff ram@0 ro | 2000-20ff io@0");
  EXPECT_EQ(Describe(cpu), "0-fff ram@0 | 2000-20ff io@0");
  dma.RemoveListener(mirror);
}

TEST(Placement, Destroyed_GivesItsPlaceUp) {
  World world;
  const auto root = world.Container(kWholeSpace, "root");
  AddressSpace space(world.topology, "space", root);
  Placement kept;
  {
    auto placement = Placement::Make(root, 0x1000, world.Ram(0x1000));
    ASSERT_TRUE(placement);
    auto other = Placement::Make(root, 0x2000, world.Rom(0x1000));
    ASSERT_TRUE(other);
    EXPECT_EQ(Describe(space), "1000-1fff ram@0 | 2000-2fff rom@0 ro");
    kept = std::move(*other);
    EXPECT_FALSE(Placement::Make(root, UINT64_MAX, world.Ram(0x1000)));
    EXPECT_FALSE(Placement::Make(root, 0, kept.child())) << "it has a place";
  }
  EXPECT_EQ(Describe(space), "2000-2fff rom@0 ro");
  kept = Placement();
  EXPECT_EQ(Describe(space), "");
}

}  // namespace
}  // namespace gyre::memory
