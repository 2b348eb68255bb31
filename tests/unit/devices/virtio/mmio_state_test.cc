// virtio-mmio: a device that is saved and loaded, and memory that it shares.
#include <array>
#include <cstring>
#include <random>

#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

using devices::SavedState;
using test::Buffer;
using test::MmioDriver;

class MmioSaved : public DeviceTest {
 protected:
  MmioSaved() { PlugFake(); }
  void PlugFake() {
    auto owned = std::make_unique<FakeDevice>(context());
    device = owned.get();
    Plug(std::move(owned));
  }
  FakeDevice* device = nullptr;
};

TEST_F(MmioSaved, ASavedDeviceGoesOnWhereItWas) {
  for (const std::uint64_t features : {std::uint64_t{0}, kFeaturePacked | kFeatureEventIndex}) {
    Bring(features);
    for (int i = 0; i < 11; ++i) {
      rings[0]->Offer(std::array{Buffer{kData, 8}});
      Kick();
      device->CompleteAll();
      Settle();
      ASSERT_TRUE(rings[0]->TakeUsed());
    }
    transport->Stop();
    transport->Drain();
    const MmioState saved = transport->Save();
    const SavedState bytes = transport->SaveState();
    Unplug();
    PlugFake();
    ASSERT_TRUE(transport->LoadState(bytes));
    EXPECT_EQ(transport->Save(), saved);
    EXPECT_EQ(transport->SaveState(), bytes);
    const auto id = rings[0]->Offer(std::array{Buffer{kData, 8}});
    Kick();
    ASSERT_EQ(device->held.size(), 1U);
    device->CompleteAll();
    Settle();
    EXPECT_EQ(rings[0]->TakeUsed()->id, id);
  }
}

TEST_F(MmioSaved, AStateThatThisDeviceCannotBeInIsNotLoaded) {
  Bring(0);
  const MmioState good = transport->Save();
  mmio.Write(MmioDriver::kStatus, 0);
  MmioState state = good;
  state.queues.pop_back();
  EXPECT_FALSE(transport->Load(state));
  state = good;
  state.queues[0].layout.size = 1U << 20;
  EXPECT_FALSE(transport->Load(state));
  state = good;
  state.driver_features |= 2;
  EXPECT_FALSE(transport->Load(state));
  EXPECT_EQ(status(), 0U);
}

// A driver that is between two registers which belong together goes on with the second.
TEST_F(MmioSaved, ADriverInTheMiddleOfItsSetUpGoesOn) {
  const auto layout = test::FakeDriver::LayoutAt(0x5000, 8, false);
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1));
  mmio.Write(MmioDriver::kQueueSel, 1);
  mmio.Write(MmioDriver::kQueueNum, layout.size);
  mmio.Write(MmioDriver::kQueueDesc, static_cast<std::uint32_t>(layout.descriptors.value()));
  mmio.Write(MmioDriver::kDeviceFeaturesSel, 1);
  const SavedState saved = transport->SaveState();
  Unplug();
  PlugFake();
  ASSERT_TRUE(transport->LoadState(saved));
  EXPECT_EQ(mmio.Read(MmioDriver::kDeviceFeatures), static_cast<std::uint32_t>(device->features() >> 32));
  mmio.WriteAddress(MmioDriver::kQueueDriver, layout.driver);
  mmio.WriteAddress(MmioDriver::kQueueDevice, layout.device);
  mmio.Write(MmioDriver::kQueueReady, 1);
  mmio.SetDriverOk();
  const auto driver = test::FakeDriver::New(memory.host(), layout, {});
  const auto id = driver->Offer(std::array{Buffer{kData, 8}});
  Kick(1);
  device->CompleteAll();
  Settle();
  EXPECT_EQ(driver->TakeUsed(), (test::Used{id, 0}));
}

// 2.2.2: features beyond those that we know were accepted by the driver; FEATURES_OK has to fail after the
// load too.
TEST_F(MmioSaved, FeaturesThatDoNotExistAreRemembered) {
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge);
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge | MmioDriver::kDriver);
  mmio.Write(MmioDriver::kDriverFeaturesSel, 2);
  mmio.Write(MmioDriver::kDriverFeatures, 1);
  const SavedState saved = transport->SaveState();
  Unplug();
  PlugFake();
  ASSERT_TRUE(transport->LoadState(saved));
  mmio.Write(MmioDriver::kDriverFeaturesSel, 1);
  mmio.Write(MmioDriver::kDriverFeatures, 1);
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge | MmioDriver::kDriver | MmioDriver::kFeaturesOk);
  EXPECT_EQ(status(), MmioDriver::kAcknowledge | MmioDriver::kDriver);
}

// Found by the fuzzer of registers: such a device could be saved and not be loaded.
TEST_F(MmioSaved, FeaturesThatWereNotOfferedMayStandUntilTheyAreRefused) {
  EXPECT_FALSE(mmio.Negotiate(1ULL << 60 | kFeatureVersion1));
  const SavedState saved = transport->SaveState();
  Unplug();
  PlugFake();
  ASSERT_TRUE(transport->LoadState(saved));
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge | MmioDriver::kDriver | MmioDriver::kFeaturesOk);
  EXPECT_EQ(status(), MmioDriver::kAcknowledge | MmioDriver::kDriver);
}

// Found by the fuzzer of registers: such a device could be saved and not be loaded.
TEST_F(MmioSaved, ADeviceThatNeedsAResetIsLoadedAsOne) {
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1 | kFeaturePacked));
  mmio.SetUpQueue(0, test::FakeDriver::LayoutAt(GuestMemory::kHole, 7, true));
  mmio.SetDriverOk();
  EXPECT_NE(status() & MmioDriver::kNeedsReset, 0U);
  transport->Stop();
  transport->Drain();
  const SavedState saved = transport->SaveState();
  Unplug();
  PlugFake();
  ASSERT_TRUE(transport->LoadState(saved));
  EXPECT_EQ(transport->SaveState(), saved);
  EXPECT_NE(status() & MmioDriver::kNeedsReset, 0U);
  Bring(0);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  device->CompleteAll();
  Settle();
  EXPECT_TRUE(rings[0]->TakeUsed());
}

TEST_F(MmioSaved, HostileStatesAreRefusedOrAsGoodAsAny) {
  Bring(kFeaturePacked);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  device->CompleteAll();
  Settle();
  const SavedState good = transport->SaveState();
  std::minstd_rand random(3);
  for (int round = 0; round < 2000; ++round) {
    SavedState bad = good;
    if (round % 8 == 0) {
      bad.bytes.resize(random() % bad.bytes.size());
    }
    for (auto count = random() % 3 + 1; count != 0 && !bad.bytes.empty(); --count) {
      bad.bytes.at(random() % bad.bytes.size()) = static_cast<std::byte>(random());
    }
    bad.version = round % 16 == 1 ? 2 : 1;
    transport->Stop();
    transport->Reset();
    if (transport->LoadState(bad)) {
      EXPECT_EQ(bad.version, 1U);
      transport->Start();
      Kick();
      device->CompleteAll();
      Settle();
    }
  }
  transport->Stop();
  transport->Reset();
  ASSERT_TRUE(transport->LoadState(good));
  transport->Start();
  EXPECT_EQ(transport->SaveState(), good);
}

// 2.10: with one region of memory, told by the registers of 4.2.2.
class Sharer final : public VirtioDevice {
 public:
  Sharer(const DeviceContext& context, memory::RegionPtr region)
      : VirtioDevice(context,
                     {.name = "sharer",
                      .id = 42,
                      .shared_memory = {{.id = 0, .region = region}, {.id = 200, .region = region}}}) {}

 protected:
  Served Serve(unsigned /*index*/, Queue& /*queue*/) override { return Served::kAll; }
};

class MmioShared : public DeviceTest {
 protected:
  MmioShared() { Plug(std::make_unique<Sharer>(context(), memory.ram)); }
  std::uint64_t Long(std::uint64_t offset) {
    return mmio.Read(offset) | std::uint64_t{mmio.Read(offset + 4)} << 32;
  }
};

TEST_F(MmioShared, S_4_2_2_ASharedMemoryRegionThatIsNotThereIsAllOnes) {
  transport->PlaceSharedMemory(200, GuestAddress(0x12345'6789'0000));
  for (const std::uint32_t id : {0U, 1U, 199U, 456U, UINT32_MAX}) {
    mmio.Write(MmioDriver::kShmSel, id);
    EXPECT_EQ(Long(MmioDriver::kShmLen), UINT64_MAX) << id;
    EXPECT_EQ(Long(MmioDriver::kShmBase), UINT64_MAX) << id;
  }
}

TEST_F(MmioShared, S_4_2_2_SharedMemoryHasItsLengthAndItsBase) {
  transport->PlaceSharedMemory(0, GuestAddress(0xc000'0000));
  transport->PlaceSharedMemory(200, GuestAddress(0x12345'6789'0000));
  EXPECT_EQ(Long(MmioDriver::kShmBase), 0xc000'0000U) << "region 0 is selected at first";
  mmio.Write(MmioDriver::kShmSel, 200);
  EXPECT_EQ(Long(MmioDriver::kShmLen), GuestMemory::kSize);
  EXPECT_EQ(Long(MmioDriver::kShmBase), 0x12345'6789'0000U);
  const SavedState saved = transport->SaveState();
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(Long(MmioDriver::kShmBase), 0xc000'0000U) << "a reset selects it again";
  ASSERT_TRUE(transport->LoadState(saved));
  EXPECT_EQ(Long(MmioDriver::kShmBase), 0x12345'6789'0000U);
  mmio.Write(MmioDriver::kShmLen, 5);
  EXPECT_EQ(Long(MmioDriver::kShmLen), GuestMemory::kSize) << "read-only";
}

}  // namespace
}  // namespace gyre::virtio
