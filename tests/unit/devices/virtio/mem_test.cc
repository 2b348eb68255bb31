// The memory device (virtio 1.2, 5.15).
#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/mem_blocks.h"
#include "gyre/base/endian.h"
#include "gyre/devices/virtio/device_space.h"
#include "gyre/devices/virtio/memory_device.h"
#include "gyre/devices/virtio/registry.h"
#include "gyre/memory/discard.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

enum Type : std::uint16_t { kPlug = 0, kUnplug = 1, kUnplugAll = 2, kState = 3 };
enum Reply : std::uint16_t { kAck = 0, kNack = 1, kBusy = 2, kError = 3, kNone = 99 };
enum State : std::uint16_t { kPlugged = 0, kUnplugged = 1, kMixed = 2 };
constexpr std::uint64_t kInaccessible = 2;  // feature
constexpr std::uint64_t kBlock = 2 * kMiB;
constexpr std::uint64_t kStart = 4 * kGiB;

class MemTest : public DeviceTest {
 protected:
  struct Config {
    Le64 block_size;
    Le64 node;
    Le64 addr, region_size, usable, plugged, requested;
  };
  struct Answer {
    std::uint16_t type = kNone;
    std::uint16_t state = 0;
  };

  ~MemTest() override { Unplug(); }
  Result<std::unique_ptr<VirtioDevice>> Try(std::string_view options) {
    const Module& module = **std::ranges::find(Modules(), "mem-device", &Module::option);
    DeviceContext with = context();
    with.space = &space;
    with.memory_changed = [this](std::string_view, std::uint64_t size) { sizes.push_back(size); };
    const auto properties = TRY(Properties::Parse(options, module.properties));
    with.id = TRY(DeviceId(module, properties, 0));
    return module.create(with, properties);
  }
  void Make(std::string_view options) {
    Unplug();
    auto made = Try(options).value();
    device = dynamic_cast<MemoryDevice*>(made.get());
    Plug(std::move(made));
    start = device->info().address;
  }
  void MakeAndBring(std::string_view options) {
    Make(options);
    Bring(kInaccessible);
  }
  Config config() {
    Config all;
    for (std::size_t i = 0; i < sizeof(all); i += 4) {
      const auto part = mmio.ReadConfig<std::uint32_t>(i);
      std::memcpy(reinterpret_cast<std::byte*>(&all) + i, &part, sizeof(part));
    }
    return all;
  }
  // A request, as the driver makes it; the answer.
  Answer Ask(std::uint16_t type, std::uint64_t address = 0, std::uint16_t blocks = 0, std::uint32_t size = 24,
             std::uint32_t room = 10) {
    struct {
      Le16 type;
      std::array<std::uint8_t, 6> padding;
      Le64 address;
      Le16 blocks;
      std::array<std::uint8_t, 6> more;
    } request{.type = type,
              .padding = {9, 9, 9, 9, 9, 9},
              .address = address,
              .blocks = blocks,
              .more = {8, 8, 8, 8, 8, 8}};
    std::memcpy(memory.host() + kData, &request, sizeof(request));
    rings[0]->Offer(std::array{test::Buffer{kData, size}, test::Buffer{kTable, room, true}});
    Kick(0);
    const auto used = rings[0]->TakeUsed();
    if (!used || used->written < 10) {
      return {};
    }
    Answer answer;
    std::memcpy(&answer.type, memory.host() + kTable, 2);
    std::memcpy(&answer.state, memory.host() + kTable + 8, 2);
    return answer;
  }
  std::uint64_t At(unsigned block) const { return start + block * kBlock; }
  // Whether the guest has memory there.
  bool IsThere(unsigned block) const { return memory.space->view()->Find(At(block)) != nullptr; }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> runs() const {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> all;
    for (const auto& range : device->ram()) {
      all.emplace_back((range.start.value() - start) / kBlock, range.size / kBlock);
    }
    return all;
  }
  // As a vCPU does it.
  void Write(std::uint64_t address, std::uint64_t value) {
    memory.space->Write(cache, GuestAddress(address), std::as_bytes(std::span(&value, 1)));
  }
  std::uint64_t Read(std::uint64_t address) {
    std::uint64_t value = 0;
    memory.space->Read(cache, GuestAddress(address), std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }

  DeviceSpace space{memory.topology, memory.root, kStart, [] { return 64 * kGiB; }, nullptr};
  MemoryDevice* device = nullptr;
  memory::ViewCache cache;
  std::uint64_t start = 0;
  std::vector<std::uint64_t> sizes;
};
using Runs = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

TEST_F(MemTest, S_5_15_1_to_5_15_3_IsDevice24WithOneQueueAndKeepsUnpluggedMemoryAway) {
  MakeAndBring("size=64M");
  EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 24U);
  EXPECT_EQ(mmio.Features() & 0xff, kInaccessible);
  mmio.Write(test::MmioDriver::kQueueSel, 1);
  EXPECT_EQ(mmio.Read(test::MmioDriver::kQueueNumMax), 0U);
}

TEST_F(MemTest, S_5_15_4_TellsItsRegion) {
  MakeAndBring("size=1G,requested-size=64M,block-size=4M");
  const Config told = config();
  EXPECT_EQ(told.block_size, 4 * kMiB);
  EXPECT_EQ(told.addr, kStart);
  EXPECT_EQ(told.region_size, kGiB);
  EXPECT_EQ(told.usable, 320 * kMiB) << "with room for the driver to choose";
  EXPECT_EQ(told.plugged, 0U);
  EXPECT_EQ(told.requested, 64 * kMiB);
  mmio.Write(test::MmioDriver::kConfig + 48, 77);
  EXPECT_EQ(config().requested, 64 * kMiB) << "read-only";
}

TEST_F(MemTest, S_5_15_4_2_AChangeOfWhatIsRequestedIsTold) {
  MakeAndBring("size=1G");
  EXPECT_EQ(config().usable, 0U);
  const std::uint32_t generation = mmio.Read(test::MmioDriver::kGeneration);
  ASSERT_TRUE(device->Resize(512 * kMiB));
  EXPECT_NE(mmio.Read(test::MmioDriver::kGeneration), generation);
  EXPECT_EQ(config().requested, 512 * kMiB);
  EXPECT_EQ(config().usable, 768 * kMiB);
  ASSERT_TRUE(device->Resize(0));
  EXPECT_EQ(config().requested, 0U);
  EXPECT_EQ(config().usable, 768 * kMiB) << "it does not shrink";
  ASSERT_TRUE(device->Resize(kGiB));
  EXPECT_EQ(config().usable, kGiB);
  for (const std::uint64_t wrong : {kGiB + kBlock, kMiB, kBlock + 1}) {
    EXPECT_FALSE(device->Resize(wrong)) << wrong;
  }
  EXPECT_EQ(device->info().requested, kGiB);
}

TEST_F(MemTest, S_5_15_5_2_ADriversResetLeavesBlocksAsTheyAre) {
  MakeAndBring("size=64M,requested-size=64M");
  EXPECT_EQ(Ask(kPlug, At(3), 2).type, kAck);
  Write(At(3), 0x1234);
  Bring(0);
  EXPECT_EQ(config().plugged, 2 * kBlock);
  EXPECT_EQ(Read(At(3)), 0x1234U);
  EXPECT_EQ(Ask(kState, At(3), 2).state, kPlugged);
}

TEST_F(MemTest, S_5_15_6_2_AResetOfTheMachineUnplugsAll) {
  MakeAndBring("size=1G");
  ASSERT_TRUE(device->Resize(512 * kMiB));
  EXPECT_EQ(Ask(kPlug, At(0), 128).type, kAck);
  ASSERT_TRUE(device->Resize(kBlock));
  transport->Stop();
  transport->Reset();
  transport->device().OnSystemReset();
  EXPECT_EQ(device->info().size, 0U);
  EXPECT_FALSE(IsThere(0));
  transport->Start();
  Bring(kInaccessible);
  EXPECT_EQ(config().usable, 258 * kMiB) << "what is requested, and room";
  EXPECT_EQ(config().requested, kBlock);
}

TEST_F(MemTest, S_5_15_6_3_PluggedBlocksAreMemoryAndOthersAreNot) {
  for (const std::string_view options :
       {"size=64M,requested-size=32M", "size=64M,requested-size=32M,share=on"}) {
    MakeAndBring(options);
    EXPECT_FALSE(IsThere(0));
    EXPECT_EQ(Read(At(0)), UINT64_MAX) << "nobody is there";
    EXPECT_EQ(Ask(kPlug, At(2), 3).type, kAck);
    EXPECT_EQ(config().plugged, 3 * kBlock);
    EXPECT_EQ(runs(), (Runs{{2, 3}}));
    EXPECT_FALSE(IsThere(1) || IsThere(5));
    Write(At(5) - 8, 77);
    EXPECT_EQ(Read(At(5) - 8), 77U);
    EXPECT_EQ(Read(At(2)), 0U);
    Settle();
    EXPECT_EQ(sizes.back(), 3 * kBlock);
  }
}

TEST_F(MemTest, S_5_15_6_3_2_PlugRequestsThatAreWrongAreRefused) {
  MakeAndBring("size=1G,requested-size=64M");
  EXPECT_EQ(Ask(kPlug, At(4), 2).type, kAck);
  EXPECT_EQ(Ask(kPlug, At(0) + 4096, 1).type, kError) << "not aligned";
  EXPECT_EQ(Ask(kPlug, At(0), 0).type, kError) << "no block";
  EXPECT_EQ(Ask(kPlug, At(0) - kBlock, 1).type, kError) << "below it";
  EXPECT_EQ(Ask(kPlug, At(160), 1).type, kError) << "beyond the usable region";
  EXPECT_EQ(Ask(kPlug, At(159), 2).type, kError);
  EXPECT_EQ(Ask(kPlug, UINT64_MAX - kBlock + 1, 65535).type, kError);
  EXPECT_EQ(Ask(kPlug, At(3), 2).type, kError) << "one of them is there";
  EXPECT_EQ(Ask(kPlug, At(5), 1).type, kError);
  EXPECT_EQ(Ask(kPlug, At(8), 31).type, kNack) << "more than is requested";
  EXPECT_EQ(Ask(kPlug, At(8), 30).type, kAck);
  EXPECT_EQ(config().plugged, 64 * kMiB);
  EXPECT_EQ(Ask(4).type, kError);
  EXPECT_EQ(Ask(65535, At(0), 1).type, kError);
  EXPECT_EQ(Ask(kPlug, At(0), 1, 23).type, kError) << "half a request";
  EXPECT_EQ(Ask(kUnplug, At(4), 1, 24, 9).type, kNone) << "no room for the answer";
  EXPECT_EQ(config().plugged, 64 * kMiB);
}

TEST_F(MemTest, S_5_15_6_4_UnpluggedBlocksAreGoneAndComeBackEmpty) {
  MakeAndBring("size=64M,requested-size=64M");
  EXPECT_EQ(Ask(kPlug, At(0), 8).type, kAck);
  for (unsigned block = 0; block < 8; ++block) {
    Write(At(block), block + 1);
  }
  EXPECT_EQ(Ask(kUnplug, At(2), 3).type, kAck);
  EXPECT_EQ(runs(), (Runs{{0, 2}, {5, 3}}));
  EXPECT_FALSE(IsThere(2) || IsThere(4));
  EXPECT_EQ(config().plugged, 5 * kBlock);
  EXPECT_EQ(Ask(kUnplug, At(1), 2).type, kError) << "one is not there";
  EXPECT_EQ(Ask(kUnplug, At(3), 1).type, kError);
  EXPECT_EQ(Ask(kUnplug, At(0) + 1, 1).type, kError);
  EXPECT_EQ(Ask(kPlug, At(2), 2).type, kAck);
  EXPECT_EQ(runs(), (Runs{{0, 4}, {5, 3}})) << "neighbours are one";
  EXPECT_EQ(Ask(kPlug, At(4), 1).type, kAck);
  EXPECT_EQ(runs(), (Runs{{0, 8}}));
  for (unsigned block = 0; block < 8; ++block) {
    EXPECT_EQ(Read(At(block)), block < 2 || block > 4 ? block + 1 : 0) << block;
  }
}

TEST_F(MemTest, S_5_15_6_5_UnplugAllTakesAllAndMayShrinkTheRegion) {
  MakeAndBring("size=1G,requested-size=1G");
  EXPECT_EQ(Ask(kUnplugAll).type, kAck) << "of none";
  EXPECT_EQ(Ask(kPlug, At(1), 1).type, kAck);
  EXPECT_EQ(Ask(kPlug, At(60), 300).type, kAck);
  ASSERT_TRUE(device->Resize(0));
  EXPECT_EQ(Ask(kUnplugAll).type, kAck);
  EXPECT_EQ(config().plugged, 0U);
  EXPECT_EQ(config().usable, 0U);
  EXPECT_TRUE(runs().empty());
  Settle();
  EXPECT_EQ(sizes.back(), 0U);
}

TEST_F(MemTest, S_5_15_6_6_StatesOfBlocks) {
  MakeAndBring("size=64M,requested-size=64M");
  EXPECT_EQ(Ask(kPlug, At(4), 4).type, kAck);
  for (const auto& [first, blocks, state] : {std::tuple{4U, 4U, kPlugged},
                                             {5U, 2U, kPlugged},
                                             {0U, 4U, kUnplugged},
                                             {8U, 24U, kUnplugged},
                                             {3U, 2U, kMixed},
                                             {0U, 32U, kMixed}}) {
    const Answer answer = Ask(kState, At(first), static_cast<std::uint16_t>(blocks));
    EXPECT_EQ(answer.type, kAck);
    EXPECT_EQ(answer.state, state) << first << ' ' << blocks;
  }
  EXPECT_EQ(Ask(kState, At(31), 2).type, kError);
  EXPECT_EQ(Ask(kState, At(0), 0).type, kError);
}

TEST_F(MemTest, RunsEndAtChunks_SoThatAChangeRemapsLittle) {
  MakeAndBring("size=1G,requested-size=1G");
  EXPECT_EQ(Ask(kPlug, At(0), 512).type, kAck);
  EXPECT_EQ(runs().size(), 8U) << "128 MiB each";
  EXPECT_EQ(Ask(kUnplug, At(100), 1).type, kAck);
  EXPECT_EQ(runs().size(), 9U);
  EXPECT_EQ(Ask(kUnplug, At(60), 100).type, kError);
  EXPECT_EQ(Ask(kPlug, At(100), 1).type, kAck);
  EXPECT_EQ(Ask(kUnplug, At(60), 300).type, kAck);
  EXPECT_EQ(runs(), (Runs{{0, 60}, {360, 24}, {384, 64}, {448, 64}}));
}

TEST_F(MemTest, AGuestThatScattersItsBlocksIsToldToWait) {
  MakeAndBring("size=16G,requested-size=16G");
  Answer last{.type = kAck};
  unsigned block = 0;
  for (; last.type == kAck && block < 8192; block += 2) {
    last = Ask(kPlug, At(block), 1);
  }
  EXPECT_EQ(last.type, kBusy);
  EXPECT_LE(runs().size(), MemBlocks::kMostRuns);
  EXPECT_EQ(Ask(kUnplugAll).type, kAck);
  EXPECT_EQ(Ask(kPlug, At(0), 8192).type, kAck);
  EXPECT_EQ(runs().size(), 128U);
}

TEST_F(MemTest, WhoPinsMemoryCannotWhereItComesAndGoes) {
  MakeAndBring("size=64M,requested-size=64M");
  EXPECT_EQ(Ask(kPlug, At(0), 1).type, kAck);
  EXPECT_FALSE(memory::DiscardBan::Of(device->ram().front().block));
}

TEST_F(MemTest, ARingInMemoryThatIsUnpluggedIsAViolation) {
  MakeAndBring("size=64M,requested-size=64M");
  EXPECT_EQ(Ask(kPlug, At(0), 1).type, kAck);
  // The answer's place goes with the request.
  std::memset(memory.host() + kData, 0, 24);
  memory.host()[kData] = std::byte{kUnplugAll};
  rings[0]->Offer(std::array{test::Buffer{kData, 24}, test::Buffer{At(0), 10, true}});
  Kick(0);
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_EQ(config().plugged, 0U);
  rings[0]->Offer(std::array{test::Buffer{At(0), 24}, test::Buffer{kTable, 10, true}});
  Kick(0);
  EXPECT_NE(status() & test::MmioDriver::kNeedsReset, 0U);
  Bring(kInaccessible);
  EXPECT_EQ(Ask(kPlug, At(0), 1).type, kAck);
}

TEST_F(MemTest, ASavedDeviceHasItsBlocks) {
  MakeAndBring("size=1G,requested-size=64M");
  EXPECT_EQ(Ask(kPlug, At(0), 3).type, kAck);
  EXPECT_EQ(Ask(kPlug, At(62), 4).type, kAck);
  ASSERT_TRUE(device->Resize(32 * kMiB));
  const Runs before = runs();
  transport->Stop();
  transport->Drain();
  const MmioState state = transport->Save();
  Make("size=1G");
  ASSERT_TRUE(transport->Load(state));
  EXPECT_EQ(runs(), before);
  EXPECT_TRUE(IsThere(2) && IsThere(65));
  EXPECT_EQ(device->info().requested, 32 * kMiB);
  EXPECT_EQ(config().usable, 320 * kMiB);
  EXPECT_EQ(config().plugged, 7 * kBlock);
}

TEST_F(MemTest, AStateThatIsNoneIsNotLoaded) {
  MakeAndBring("size=64M,requested-size=64M");
  EXPECT_EQ(Ask(kPlug, At(1), 2).type, kAck);
  EXPECT_EQ(Ask(kPlug, At(8), 2).type, kAck);
  transport->Stop();
  transport->Drain();
  const MmioState state = transport->Save();
  const auto with = [&state](std::size_t at, std::uint64_t value) {
    MmioState bad = state;
    std::memcpy(bad.device.data() + at, &value, sizeof(value));
    return bad;
  };
  std::vector<MmioState> bad = {with(0, kMiB),       with(0, 128 * kMiB), with(8, kBlock),
                                with(8, 128 * kMiB), with(16, 1),         with(16, 63 * kMiB),
                                with(24, 0),         with(24, kMiB),      with(24, 16 * kBlock),
                                with(32, kBlock),    with(40, UINT64_MAX)};
  bad.push_back(state);
  bad.back().device.pop_back();
  for (std::size_t i = 0; i < bad.size(); ++i) {
    Make("size=64M");
    EXPECT_FALSE(transport->Load(bad[i])) << i;
    transport->Reset();
    transport->device().OnSystemReset();
    EXPECT_EQ(device->info().size, 0U);
  }
}

TEST_F(MemTest, TwoDevicesHaveRegionsApart_AndAddressesEnd) {
  auto first = Try("size=3G,id=a").value();
  auto second = Try("size=1G,id=b").value();
  EXPECT_EQ(dynamic_cast<MemoryDevice&>(*first).info().address, kStart);
  EXPECT_EQ(dynamic_cast<MemoryDevice&>(*second).info().address, kStart + 3 * kGiB);
  const auto third = Try("size=57G");
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().message(), "58368 MiB: the guest's processors address no more than 65536 MiB");
}

TEST_F(MemTest, OptionsThatAreWrongAreRefused) {
  for (const std::string_view options :
       {"size=0", "size=1M", "size=3M", "size=64M,block-size=3M", "size=64M,block-size=1M",
        "size=64M,requested-size=1M", "size=64M,requested-size=128M", "block-size=2M",
        "size=65M,block-size=4M"}) {
    EXPECT_FALSE(Try(options)) << options;
  }
}

}  // namespace
}  // namespace gyre::virtio
