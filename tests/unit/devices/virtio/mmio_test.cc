// virtio-mmio by the sections of virtio 1.2.
#include "gyre/devices/virtio/mmio.h"

#include <array>

#include "gyre/memory/listener.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::MmioDriver;

class Mmio : public DeviceTest {
 protected:
  Mmio() {
    auto owned = std::make_unique<FakeDevice>(context());
    device = owned.get();
    Plug(std::move(owned));
  }
  std::uint64_t refused() const { return transport->counters().refused_writes; }
  FakeDevice* device;
};
constexpr std::uint32_t kUpToFeatures =
    MmioDriver::kAcknowledge | MmioDriver::kDriver | MmioDriver::kFeaturesOk;

TEST_F(Mmio, S_4_2_2_IdentifiesItself) {
  EXPECT_EQ(mmio.Read(MmioDriver::kMagic), 0x74726976U);
  EXPECT_EQ(mmio.Read(MmioDriver::kVersion), 2U);
  EXPECT_EQ(mmio.Read(MmioDriver::kDeviceId), 42U);
  EXPECT_EQ(mmio.Features(), 1U | kFeatureVersion1 | kFeatureIndirect | kFeatureEventIndex | kFeaturePacked |
                                 kFeatureInOrder | kFeatureRingReset);
  mmio.Write(MmioDriver::kDeviceFeaturesSel, 2);
  EXPECT_EQ(mmio.Read(MmioDriver::kDeviceFeatures), 0U);
}

TEST_F(Mmio, S_4_2_2_2_ControlRegistersTakeWholeWordsOnly) {
  memory::ViewCache cache;
  std::array<std::byte, 2> half{};
  memory.space->Read(cache, GuestAddress(kBase), half);
  EXPECT_EQ(half[0], std::byte{0});
  half[0] = std::byte{1};
  memory.space->Write(cache, GuestAddress(kBase + MmioDriver::kStatus), half);
  EXPECT_EQ(status(), 0U);
  EXPECT_EQ(refused(), 1U);
}

TEST_F(Mmio, S_4_2_2_ConfigurationSpaceTakesAnyWidth) {
  EXPECT_EQ(mmio.ReadConfig<std::uint8_t>(1), 0x11);
  EXPECT_EQ(mmio.ReadConfig<std::uint16_t>(2), 0x1312);
  EXPECT_EQ(mmio.ReadConfig<std::uint64_t>(0), 0x1716151413121110U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(12), 0U) << "beyond its end";
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0xfc), 0U);
}

TEST_F(Mmio, S_3_1_1_StatusGoesStepByStep) {
  mmio.Write(MmioDriver::kStatus, MmioDriver::kDriver);
  EXPECT_EQ(status(), 0U);
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge);
  EXPECT_EQ(status(), 1U);
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge | MmioDriver::kDriver | MmioDriver::kDriverOk);
  EXPECT_EQ(status(), 3U) << "DRIVER_OK without FEATURES_OK";
  EXPECT_EQ(device->activations, 0);
  EXPECT_EQ(refused(), 2U);
}

TEST_F(Mmio, S_2_1_1_ADriverCannotClearABit) {
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1));
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge);
  EXPECT_EQ(status(), kUpToFeatures);
  mmio.Write(MmioDriver::kStatus, kUpToFeatures | MmioDriver::kFailed);
  EXPECT_EQ(status(), kUpToFeatures | MmioDriver::kFailed);
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(status(), 0U);
}

TEST_F(Mmio, S_2_2_2_FeaturesThatWereNotOfferedAreRefused) {
  EXPECT_FALSE(mmio.Negotiate(kFeatureVersion1 | 2));
  EXPECT_FALSE(mmio.Negotiate(kFeatureVersion1 | 1ULL << 63));
  EXPECT_TRUE(mmio.Negotiate(kFeatureVersion1 | 1));
  mmio.Write(MmioDriver::kStatus, 0);
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge | MmioDriver::kDriver);
  mmio.Write(MmioDriver::kDriverFeaturesSel, 1);
  mmio.Write(MmioDriver::kDriverFeatures, 1);
  mmio.Write(MmioDriver::kDriverFeaturesSel, 3);
  mmio.Write(MmioDriver::kDriverFeatures, 1);
  mmio.Write(MmioDriver::kStatus, kUpToFeatures);
  EXPECT_EQ(status() & MmioDriver::kFeaturesOk, 0U) << "a feature beyond the 64 that there are";
}

TEST_F(Mmio, S_6_1_ADriverWithoutVersion1IsRefused) { EXPECT_FALSE(mmio.Negotiate(1)); }

TEST_F(Mmio, S_3_1_1_FeaturesStandOnceTheyAreAccepted) {
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1 | 1));
  mmio.Write(MmioDriver::kDriverFeaturesSel, 0);
  mmio.Write(MmioDriver::kDriverFeatures, 0);
  mmio.SetDriverOk();
  EXPECT_EQ(device->features_seen, kFeatureVersion1 | 1);
  EXPECT_EQ(refused(), 1U);
}

TEST_F(Mmio, S_4_2_2_2_QueuesAreSetUpAfterFeaturesOk) {
  mmio.Write(MmioDriver::kStatus, MmioDriver::kAcknowledge | MmioDriver::kDriver);
  mmio.SetUpQueue(0, test::FakeDriver::LayoutAt(0x1000, 8, false));
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
}

TEST_F(Mmio, S_4_2_2_AQueueThatIsNotThereHasNoSize) {
  mmio.Write(MmioDriver::kQueueSel, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueNumMax), 16U);
  mmio.Write(MmioDriver::kQueueSel, 2);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueNumMax), 0U);
  mmio.Write(MmioDriver::kQueueSel, UINT32_MAX);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueNumMax), 0U);
  mmio.Write(MmioDriver::kQueueReady, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
}

TEST_F(Mmio, S_2_7_AQueueOfAWrongSizeDoesNotBecomeReady) {
  for (const std::uint32_t size : {0U, 3U, 32U, UINT32_MAX}) {
    ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1));
    QueueLayout layout = test::FakeDriver::LayoutAt(0x1000, 8, false);
    layout.size = size;
    mmio.SetUpQueue(0, layout);
    EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U) << size;
  }
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1 | kFeaturePacked));
  mmio.SetUpQueue(0, test::FakeDriver::LayoutAt(0x1000, 3, true));
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 1U) << "a packed ring takes any size";
}

TEST_F(Mmio, S_2_1_2_ChainsAreTakenAfterDriverOkAlone) {
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1));
  const auto layout = test::FakeDriver::LayoutAt(0x1000, 8, false);
  auto ring = test::FakeDriver::New(memory.host(), layout, {});
  mmio.SetUpQueue(0, layout);
  ring->Offer(std::array{Buffer{kData, 8}});
  Kick();
  EXPECT_TRUE(device->held.empty());
  mmio.SetDriverOk();
  Kick();
  EXPECT_EQ(device->held.size(), 1U);
  device->CompleteAll();
}

TEST_F(Mmio, S_4_2_2_InterruptStatusTellsWhyAndIsAcknowledged) {
  Bring(0);
  rings[1]->Offer(std::array{Buffer{kData, 8}});
  Kick(1);
  device->CompleteAll();
  Settle();
  EXPECT_EQ(line.edges, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kInterruptStatus), 1U);
  device->Change();
  EXPECT_EQ(line.edges, 2);
  EXPECT_EQ(mmio.Read(MmioDriver::kInterruptStatus), 3U);
  mmio.Write(MmioDriver::kInterruptAck, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kInterruptStatus), 2U);
  mmio.Write(MmioDriver::kInterruptAck, 2);
  EXPECT_EQ(mmio.Read(MmioDriver::kInterruptStatus), 0U);
}

TEST_F(Mmio, AnEdgeThatWasMaskedIsMadeAgain) {
  Bring(0);
  line.resend();
  EXPECT_EQ(line.edges, 0) << "nothing to say";
  device->Change();
  line.resend();
  EXPECT_EQ(line.edges, 2);
}

TEST_F(Mmio, S_2_5_1_TheGenerationChangesWithTheConfiguration) {
  const auto before = mmio.Read(MmioDriver::kGeneration);
  device->Change();
  EXPECT_NE(mmio.Read(MmioDriver::kGeneration), before);
  EXPECT_EQ(line.edges, 0) << "no driver to be told yet";
}

TEST_F(Mmio, S_2_1_2_ABrokenRingSetsNeedsResetAndTells) {
  Bring(0);
  rings[0]->Offer(std::array{Buffer{GuestMemory::kHole, 8}});
  Kick();
  EXPECT_NE(status() & MmioDriver::kNeedsReset, 0U);
  EXPECT_EQ(mmio.Read(MmioDriver::kInterruptStatus), 2U);
  EXPECT_EQ(transport->counters().needs_reset, 1U);
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(status(), 0U);
  Bring(0);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  EXPECT_EQ(device->held.size(), 1U) << "as good as new";
  device->CompleteAll();
}

TEST_F(Mmio, S_2_1_2_ARingInAHoleSetsNeedsResetAtDriverOk) {
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1));
  mmio.SetUpQueue(0, test::FakeDriver::LayoutAt(GuestMemory::kHole, 8, false));
  mmio.SetDriverOk();
  EXPECT_NE(status() & MmioDriver::kNeedsReset, 0U);
}

// --- Reset ---

TEST_F(Mmio, S_2_4_AResetWithNothingInFlightIsDoneAtOnce) {
  Bring(0);
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(status(), 0U);
  EXPECT_EQ(holds, 0);
  EXPECT_EQ(device->deactivations, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
}

TEST_F(Mmio, S_2_4_AResetWaitsForWhatIsInFlightAndHoldsTheCaller) {
  Bring(0);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  ASSERT_EQ(device->held.size(), 1U);
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(holds, 1);
  EXPECT_NE(status(), 0U);
  mmio.Write(MmioDriver::kStatus, 0);
  mmio.Write(MmioDriver::kQueueSel, 1);
  loop::BottomHalf later(*loop_, [this] { device->CompleteAll(); }, loop::Tier::kIo);
  later.Schedule();
  Settle();
  EXPECT_EQ(releases, 1);
  EXPECT_EQ(status(), 0U);
  EXPECT_FALSE(rings[0]->TakeUsed()) << "the driver's memory may be something else by now";
  EXPECT_EQ(line.edges, 0);
}

TEST_F(Mmio, S_4_2_2_1_AResetClearsInterruptStatusAndQueueReady) {
  Bring(0);
  device->Change();
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  device->CompleteAll();
  Settle();
  EXPECT_EQ(mmio.Read(MmioDriver::kInterruptStatus), 3U);
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(mmio.Read(MmioDriver::kInterruptStatus), 0U);
  for (const std::uint32_t queue : {0U, 1U}) {
    mmio.Write(MmioDriver::kQueueSel, queue);
    EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
    EXPECT_EQ(mmio.Read(MmioDriver::kQueueReset), 0U);
  }
}

TEST_F(Mmio, S_4_2_2_1_AQueueThatIsNotReadyIsLeftAlone) {
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1));
  const auto layout = test::FakeDriver::LayoutAt(0x1000, 8, false);
  const auto driver = test::FakeDriver::New(memory.host(), layout, {});
  mmio.SetUpQueue(1, test::FakeDriver::LayoutAt(0x5000, 8, false));
  mmio.Write(MmioDriver::kQueueSel, 0);
  mmio.Write(MmioDriver::kQueueNum, layout.size);
  mmio.WriteAddress(MmioDriver::kQueueDesc, layout.descriptors);
  mmio.WriteAddress(MmioDriver::kQueueDriver, layout.driver);
  mmio.WriteAddress(MmioDriver::kQueueDevice, layout.device);
  mmio.SetDriverOk();
  driver->Offer(std::array{Buffer{kData, 8}});
  Kick(0);
  EXPECT_TRUE(device->held.empty());
  EXPECT_EQ(status() & MmioDriver::kNeedsReset, 0U);
}

TEST_F(Mmio, S_2_6_1_AQueueIsResetAlone) {
  Bring(kFeatureRingReset);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  mmio.Write(MmioDriver::kQueueSel, 0);
  mmio.Write(MmioDriver::kQueueReset, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReset), 1U) << "as long as it goes on";
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 1U);
  loop::BottomHalf later(*loop_, [this] { device->CompleteAll(); }, loop::Tier::kIo);
  later.Schedule();
  Settle();
  EXPECT_EQ(releases, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReset), 0U);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
  // The other one goes on, and this one anew with another ring.
  rings[1]->Offer(std::array{Buffer{kData, 8}});
  Kick(1);
  EXPECT_EQ(device->held.size(), 1U);
  const auto layout = test::FakeDriver::LayoutAt(0x20000, 4, false);
  rings[0] = test::FakeDriver::New(memory.host(), layout, {});
  mmio.SetUpQueue(0, layout);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick(0);
  EXPECT_EQ(device->held.size(), 2U);
  device->CompleteAll();
}

TEST_F(Mmio, S_2_6_1_WithoutTheFeatureAQueueIsNotReset) {
  Bring(0);
  mmio.Write(MmioDriver::kQueueSel, 0);
  mmio.Write(MmioDriver::kQueueReset, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 1U);
  mmio.Write(MmioDriver::kQueueReady, 0);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
  mmio.Write(MmioDriver::kQueueReady, 1);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
}

TEST_F(Mmio, EveryHoldIsGivenBackOnce) {
  Bring(kFeatureRingReset);
  for (unsigned queue = 0; queue < 2; ++queue) {
    rings[queue]->Offer(std::array{Buffer{kData, 8}});
    Kick(queue);
  }
  for (unsigned queue = 0; queue < 2; ++queue) {
    mmio.Write(MmioDriver::kQueueSel, queue);
    mmio.Write(MmioDriver::kQueueReset, 1);
  }
  EXPECT_EQ(holds, 2);
  EXPECT_EQ(releases, 0);
  loop::BottomHalf later(*loop_, [this] { device->CompleteAll(); }, loop::Tier::kIo);
  later.Schedule();
  Settle();
  EXPECT_EQ(releases, 2);
}

TEST_F(Mmio, AMachineResetGivesBackWhatADevicesResetHolds) {
  Bring(0);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(holds, 1);
  loop::BottomHalf later(*loop_, [this] { device->CompleteAll(); }, loop::Tier::kIo);
  later.Schedule();
  transport->Reset();
  EXPECT_EQ(releases, 1);
  Settle();
  EXPECT_EQ(releases, 1);
}

TEST_F(Mmio, AStopCompletesAResetThatIsPending) {
  Bring(0);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  mmio.Write(MmioDriver::kStatus, 0);
  transport->Stop();
  loop::BottomHalf later(*loop_, [this] { device->CompleteAll(); }, loop::Tier::kIo);
  later.Schedule();
  transport->Drain();
  EXPECT_EQ(status(), 0U);
  EXPECT_EQ(releases, 1);
  transport->Start();
  Bring(0);
  EXPECT_EQ(refused(), 0U) << "the driver's next writes";
  EXPECT_NE(status() & MmioDriver::kDriverOk, 0U);
  EXPECT_EQ(releases, 1);
}

TEST_F(Mmio, AResetDoesNotKeepTheLoopFromServingOthers) {
  Bring(0);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  mmio.Write(MmioDriver::kStatus, 0);
  bool served = false;
  loop::BottomHalf control(*loop_, [&served] { served = true; });
  control.Schedule();
  Settle();
  EXPECT_TRUE(served);
  EXPECT_NE(status(), 0U);
  std::exchange(device->held[0], std::move(device->held[1])).Complete(0);
  device->held.pop_back();
  Settle();
  EXPECT_NE(status(), 0U) << "one is in flight still";
  EXPECT_EQ(releases, 0);
  device->CompleteAll();
  Settle();
  EXPECT_EQ(status(), 0U);
  EXPECT_EQ(releases, 1);
  EXPECT_FALSE(rings[0]->TakeUsed());
  EXPECT_EQ(line.edges, 0);
}

TEST_F(Mmio, S_2_6_1_AnIdleQueuesResetLeavesTheOtherInFlight) {
  Bring(kFeatureRingReset);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  mmio.Write(MmioDriver::kQueueSel, 0);
  mmio.Write(MmioDriver::kQueueReset, 1);
  mmio.Write(MmioDriver::kQueueSel, 1);
  mmio.Write(MmioDriver::kQueueReset, 1);  // another vCPU's
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
  mmio.Write(MmioDriver::kQueueSel, 0);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReset), 1U);
  loop::BottomHalf later(*loop_, [this] { device->CompleteAll(); }, loop::Tier::kIo);
  later.Schedule();
  Settle();
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
}

// --- Doorbells ---

class EventFds final : public memory::MemoryListener {
 public:
  Status EventFdAdd(const memory::PlacedEventFd& event_fd) override {
    placed.push_back(event_fd);
    return {};
  }
  Status EventFdDel(const memory::PlacedEventFd&) override {
    ++removed;
    return {};
  }
  std::vector<memory::PlacedEventFd> placed;
  int removed = 0;
};

TEST_F(Mmio, DoorbellsAreRegisteredAtDriverOkByQueueAndStay) {
  EventFds listener;
  ASSERT_TRUE(memory.space->AddListener(listener));
  ASSERT_TRUE(mmio.Negotiate(kFeatureVersion1));
  mmio.SetUpQueue(1, test::FakeDriver::LayoutAt(0x1000, 8, false));
  EXPECT_TRUE(listener.placed.empty());
  mmio.SetDriverOk();
  ASSERT_EQ(listener.placed.size(), 1U);
  EXPECT_EQ(listener.placed[0].address, kBase + MmioDriver::kQueueNotify);
  EXPECT_EQ(listener.placed[0].size, 4U);
  EXPECT_EQ(listener.placed[0].match, 1U);
  EXPECT_EQ(listener.placed[0].fd, device->kick_fd(1));
  Bring(0);
  EXPECT_EQ(listener.placed.size(), 2U);
  EXPECT_EQ(listener.removed, 0);
  EXPECT_EQ(line.connects, 2);
  memory.space->RemoveListener(listener);
}

TEST_F(Mmio, AKickOfNoQueueIsIgnored) {
  Bring(0);
  Kick(2);
  Kick(UINT32_MAX);
  EXPECT_EQ(status() & MmioDriver::kNeedsReset, 0U);
  EXPECT_EQ(transport->counters().notify_exits, 0U);
}

// --- With the VM ---

TEST_F(Mmio, WhileTheVmStandsNothingIsTakenAndNothingIsLost) {
  Bring(0);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  transport->Stop();
  loop::BottomHalf later(*loop_, [this] { device->CompleteAll(); }, loop::Tier::kIo);
  later.Schedule();
  transport->Drain();
  EXPECT_TRUE(rings[0]->TakeUsed()) << "drained, and shown";
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  EXPECT_TRUE(device->held.empty());
  transport->Start();
  Settle();
  EXPECT_EQ(device->held.size(), 1U);
  device->CompleteAll();
}

TEST_F(Mmio, RandomRegisterSequencesNeverAbort) {
  memory::ViewCache cache;
  for (unsigned seed = 0; seed < 20; ++seed) {
    devices::FuzzRegisters(*transport, MmioTransport::kSize, seed, [&](std::uint64_t random) {
      static constexpr std::array kSteps = {1U, 3U, 11U, 15U};
      mmio.Write(MmioDriver::kStatus, kSteps[random % 4]);
      mmio.Write(MmioDriver::kDriverFeaturesSel, 1);
      mmio.Write(MmioDriver::kDriverFeatures, 1);
      mmio.Kick(static_cast<std::uint32_t>(random % 3));
      RunPending();
      device->CompleteAll();
    });
  }
  Bring(0);
  rings[0]->Offer(std::array{Buffer{kData, 8}});
  Kick();
  EXPECT_EQ(device->held.size(), 1U);
  device->CompleteAll();
}

}  // namespace
}  // namespace gyre::virtio
