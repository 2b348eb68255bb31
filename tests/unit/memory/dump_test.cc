#include "gyre/memory/dump.h"

#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

TEST(Dump, Tree_ShowsNestingKindsAndStates) {
  World world;
  FakeHandler handler;
  const auto root = world.Container(kWholeSpace, "system");
  const auto ram = world.Ram(0x2000);
  const auto inner = world.Container(0x1000, "inner");
  const auto io = MemoryRegion::NewIo(world.topology, "uart", 8, handler);
  ASSERT_TRUE(root->Add(0, world.Alias(ram, 0x1000, 0x1000, "ram-low")));
  ASSERT_TRUE(root->Add(0x1000, inner, -1));
  ASSERT_TRUE(inner->Add(0x10, io));
  io->AddIoEventFd({.offset = 0, .size = 1, .match = {}, .fd = 3});
  io->SetEnabled(false);
  EXPECT_EQ(
      DumpTree(*root),
      "0000000000000000-ffffffffffffffff (prio 0, container): system\n"
      "  0000000000000000-0000000000000fff (prio 0, alias): ram-low @ram 0000000000001000-0000000000001fff\n"
      "  0000000000001000-0000000000001fff (prio -1, container): inner\n"
      "    0000000000001010-0000000000001017 (prio 0, i/o): uart [ioeventfds 1] [disabled]\n");
}

TEST(Dump, WhatNoAddressReaches_IsSaid) {
  World world;
  const auto root = world.Container(kWholeSpace, "root");
  const auto container = world.Container(0x10, "container");
  ASSERT_TRUE(root->Add(UINT64_MAX - 0xf, container));
  ASSERT_TRUE(container->Add(0x10, world.Ram(0x10)));
  ASSERT_TRUE(container->Add(0x8, world.Ram(0x10, "clipped")));
  const auto text = DumpTree(*root);
  EXPECT_NE(text.find("(out of reach) (prio 0, ram): ram\n"), std::string::npos) << text;
  EXPECT_NE(text.find("fffffffffffffff8-ffffffffffffffff (prio 0, ram): clipped\n"), std::string::npos)
      << text;
}

TEST(Dump, FlatView_ShowsOneLineARange) {
  World world;
  const auto root = world.Container(kWholeSpace, "root");
  const AddressSpace space(world.topology, "space", root);
  EXPECT_EQ(DumpFlatView(*space.view()), "(nothing)\n");
  ASSERT_TRUE(root->Add(0, world.Alias(world.Ram(0x2000), 0x1000, 0x1000)));
  ASSERT_TRUE(root->Add(0x1000, world.Rom(0x1000)));
  EXPECT_EQ(DumpFlatView(*space.view()),
            "0000000000000000-0000000000000fff (ram): ram @0000000000001000\n"
            "0000000000001000-0000000000001fff (rom): rom\n");
}

TEST(Dump, FlatView_ShowsIoEventFdsAndWhatListenersSay) {
  World world;
  FakeHandler handler;
  const auto root = world.Container(kWholeSpace, "root");
  const AddressSpace space(world.topology, "space", root);
  const auto io = MemoryRegion::NewIo(world.topology, "a \"b\\", 0x100, handler);
  ASSERT_TRUE(root->Add(0x2000, io));
  ASSERT_TRUE(root->Add(0, world.Ram(0x1000)));
  io->AddIoEventFd({.offset = 0x50, .size = 4, .match = 7, .fd = 3});
  io->AddIoEventFd({.offset = 0x60, .size = 0, .match = {}, .fd = 4});
  const Annotate slots = [](const FlatRange& range) {
    return range.region->kind() == RegionKind::kRam ? std::string("slot 0") : std::string();
  };
  EXPECT_EQ(DumpFlatView(*space.view(), slots),
            "0000000000000000-0000000000000fff (ram): ram [slot 0]\n"
            "0000000000002000-00000000000020ff (i/o): a \"b\\\n"
            "  0000000000002050 ioeventfd 3, size 4, value 0x7\n"
            "  0000000000002060 ioeventfd 4, any size\n");
  EXPECT_EQ(DumpJson("space", *space.view(), slots),
            R"({"space": "space", "ranges": [
  {"first": "0x0", "last": "0xfff", "kind": "ram", "name": "ram", "offset": "0x0", "readonly": false, "note": "slot 0", "ioeventfds": []},
  {"first": "0x2000", "last": "0x20ff", "kind": "i/o", "name": "a \"b\\", "offset": "0x0", "readonly": false, "note": "", "ioeventfds": [{"address": "0x2050", "size": 4, "match": "0x7", "fd": 3}, {"address": "0x2060", "size": 0, "match": null, "fd": 4}]}]}
)");
}

TEST(Dump, Tree_ShowsCountersOnceThereAreAny) {
  World world;
  FakeHandler handler;
  const auto root = world.Container(0x1000, "root");
  AddressSpace space(world.topology, "space", root);
  const auto io = MemoryRegion::NewIo(world.topology, "io", 0x10, handler);
  ASSERT_TRUE(root->Add(0, io));
  ViewCache cache;
  std::byte byte{};
  space.Read(cache, GuestAddress(0), {&byte, 1});
  EXPECT_NE(DumpTree(*root).find("(prio 0, i/o): io [accesses 1, refused 0]\n"), std::string::npos)
      << DumpTree(*root);
}

}  // namespace
}  // namespace gyre::memory
