// A network device's life: link, back end, stops, saves, rates.
#include "tests/unit/devices/virtio/net_fixture.h"

namespace gyre::virtio {
namespace {

class NetLife : public NetTest, public testing::WithParamInterface<bool> {
 protected:
  std::uint64_t With(std::uint64_t features) const { return features | (GetParam() ? kFeaturePacked : 0); }
};
INSTANTIATE_TEST_SUITE_P(Format, NetLife, testing::Values(false, true),
                         [](const auto& test) { return test.param ? "Packed" : "Split"; });

TEST_P(NetLife, S_5_1_5_TheLinkGoesDownAndUpAndTheGuestIsToldSo) {
  Make();
  Bring(With(kNetStatus | kNetCtrlQueue | kNetGuestAnnounce));
  OfferRoom(0, 1600);
  Kick(0);
  const std::uint32_t generation = mmio.Read(test::MmioDriver::kGeneration);
  nic->SetLink(false);
  EXPECT_EQ(ConfigStatus(), 0U);
  EXPECT_NE(mmio.Read(test::MmioDriver::kGeneration), generation);
  EXPECT_EQ(mmio.Read(test::MmioDriver::kInterruptStatus) & 2, 2U);
  Arrive(Packet(kMac));
  SendPacket(Packet(kOther));
  EXPECT_FALSE(rings[0]->TakeUsed());
  EXPECT_TRUE(rings[1]->TakeUsed()) << "sent, as far as the driver knows";
  EXPECT_TRUE(network->pairs[0].from_guest.empty());
  nic->SetLink(true);
  EXPECT_EQ(ConfigStatus(), 3U) << "and it is to say where it is";
  EXPECT_EQ(Control(3, 0, {}), 0);
  EXPECT_EQ(ConfigStatus(), 1U);
  EXPECT_EQ(Control(3, 0, {}), 1) << "nothing was asked for";
  Settle();
  EXPECT_FALSE(rings[0]->TakeUsed()) << "what came meanwhile is lost";
  Arrive(Packet(kMac));
  EXPECT_TRUE(rings[0]->TakeUsed());
}

TEST_P(NetLife, ABackEndThatGoesIsALinkThatGoesDown) {
  Make();
  Bring(With(kNetStatus));
  OfferRoom(0, 1600);
  Kick(0);
  network->Change(false);
  EXPECT_EQ(events, std::vector<std::string>{"net0 down"});
  EXPECT_EQ(ConfigStatus(), 0U);
  SendPacket(Packet(kOther));
  EXPECT_TRUE(rings[1]->TakeUsed());
  nic->SetLink(true);
  EXPECT_EQ(ConfigStatus(), 0U) << "wishing does not help";
  network->Change(true);
  EXPECT_EQ(events.back(), "net0 up");
  EXPECT_EQ(ConfigStatus(), 1U);
  Settle();
  Arrive(Packet(kMac));
  EXPECT_TRUE(rings[0]->TakeUsed());
}

TEST_P(NetLife, ABackEndThatIsFullHoldsTheDriverUpAndNobodyElse) {
  Make();
  Bring(With(0));
  network->has_room = false;
  SendPacket(Packet(kOther));
  EXPECT_FALSE(rings[1]->TakeUsed());
  EXPECT_EQ(transport->device().queue(1)->in_flight(), 0U) << "a stop has nothing to wait for";
  network->has_room = true;
  network->pairs[0].room();
  Settle();
  EXPECT_TRUE(rings[1]->TakeUsed());
  EXPECT_EQ(network->pairs[0].from_guest.size(), 1U);
}

// Once a turn, whatever it is done with: the driver would else be shown each packet by itself.
TEST_P(NetLife, ABackEndThatMakesRoomManyTimesIsServedOnce) {
  Make();
  Bring(With(0));
  network->has_room = false;
  for (int i = 0; i < 3; ++i) {
    SendPacket(Packet(kOther));
  }
  const auto batches = transport->device().queue(1)->counters().batches;
  network->has_room = true;
  for (int i = 0; i < 3; ++i) {
    network->pairs[0].room();
  }
  EXPECT_TRUE(network->pairs[0].from_guest.empty()) << "the back end is still at work";
  Settle();
  EXPECT_EQ(network->pairs[0].from_guest.size(), 3U);
  EXPECT_EQ(transport->device().queue(1)->counters().batches, batches + 1);
}

TEST_P(NetLife, AStopAndAResetHaveNothingToWaitFor) {
  Make();
  Bring(With(kNetMergeable));
  OfferRoom(0, 1000);
  Kick(0);
  Arrive(Packet(kMac, 2500));
  transport->Stop();
  EXPECT_TRUE(transport->device().Idle());
  network->pairs[0].to_guest.push_back(Packet(kMac));
  transport->Drain();
  transport->Start();
  OfferRoom(1000, 1600);
  Kick(0);
  EXPECT_TRUE(rings[0]->TakeUsed());
  mmio.Write(test::MmioDriver::kStatus, 0);
  EXPECT_EQ(status(), 0U);
}

TEST_P(NetLife, ASavedDeviceGoesOnAsItWas) {
  Make(Options(), 2);
  constexpr std::uint64_t kFeatures = kNetCtrlQueue | kNetCtrlRx | kNetCtrlMac | kNetCtrlVlan |
                                      kNetMultiQueue | kNetGuestCsum | kNetMergeable;
  Bring(With(kFeatures), 16);
  EXPECT_EQ(Control(0, 0, {0}, 4), 0);
  EXPECT_EQ(Control(2, 0, {7, 0}, 4), 0);
  Bytes tables = {1, 0, 0, 0};
  tables.insert(tables.end(), kOther.begin(), kOther.end());
  tables.insert(tables.end(), {1, 0, 0, 0});
  tables.insert(tables.end(), kGroup.begin(), kGroup.end());
  EXPECT_EQ(Control(1, 0, tables, 4), 0);
  EXPECT_EQ(Control(4, 0, {2, 0}, 4), 0);
  OfferRoom(0, 1600);
  Kick(0);
  transport->Stop();
  transport->Drain();
  const MmioState saved = transport->Save();
  transport->Reset();
  EXPECT_TRUE(nic->filter().promiscuous);
  ASSERT_TRUE(transport->Load(saved));
  EXPECT_EQ(transport->Save(), saved);
  transport->Start();
  Settle();
  EXPECT_EQ(network->pairs_in_use, 2U);
  EXPECT_EQ(network->offloads.back(), kNetGuestCsum);
  const NetFilter filter = nic->filter();
  EXPECT_FALSE(filter.promiscuous);
  EXPECT_EQ(filter.unicast, std::vector{kOther});
  EXPECT_EQ(filter.multicast, std::vector{kGroup});
  EXPECT_TRUE(filter.HasVlan(7));
  EXPECT_FALSE(filter.HasVlan(8));
  // The buffer that was offered before the save takes the frame that comes after.
  Arrive(Packet(kOther));
  EXPECT_TRUE(rings[0]->TakeUsed());
  for (std::size_t size = 0; size < saved.device.size(); size += 7) {
    transport->Stop();
    transport->Reset();
    MmioState cut = saved;
    cut.device.resize(size);
    EXPECT_FALSE(transport->Load(cut));
  }
  transport->Reset();
}

TEST_P(NetLife, ARateLimitHoldsPacketsBackAndLosesNone) {
  NetOptions options = Options();
  options.to_guest = {.bytes = 0, .packets = 10};
  options.from_guest = {.bytes = 10'000, .packets = 0};
  Make(options);
  Bring(With(0), 16);
  time_.Advance(1'000'000'000);
  for (unsigned i = 0; i < 3; ++i) {
    OfferRoom(2048 * std::uint64_t{i}, 1600);
    network->pairs[0].to_guest.push_back(Packet(kMac));
  }
  Kick(0);
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_FALSE(rings[0]->TakeUsed()) << "one in 100 ms";
  Advance(60'000'000);
  Settle();
  EXPECT_FALSE(rings[0]->TakeUsed());
  Advance(60'000'000);
  Settle();
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_FALSE(rings[0]->TakeUsed());
  for (int i = 0; i < 2; ++i) {
    SendPacket(Packet(kOther, 2000));
  }
  EXPECT_EQ(network->pairs[0].from_guest.size(), 1U) << "2014 bytes are a fifth of a second's";
  Advance(300'000'000);
  Settle();
  EXPECT_EQ(network->pairs[0].from_guest.size(), 2U);
}

}  // namespace
}  // namespace gyre::virtio
