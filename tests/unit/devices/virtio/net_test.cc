// The network device (virtio 1.2, 5.1) with a network that the test holds.
#include "tests/unit/devices/virtio/net_fixture.h"

namespace gyre::virtio {
namespace {

using test::Used;

class Net : public NetTest, public testing::WithParamInterface<bool> {
 protected:
  std::uint64_t With(std::uint64_t features) const { return features | (GetParam() ? kFeaturePacked : 0); }
};
INSTANTIATE_TEST_SUITE_P(Format, Net, testing::Values(false, true),
                         [](const auto& test) { return test.param ? "Packed" : "Split"; });

TEST_P(Net, S_5_1_3_OffersWhatTheBackEndCan) {
  NetOptions options = Options();
  options.mtu = 9000;
  Make(options, 2);
  const std::uint64_t all = mmio.Features();
  constexpr std::uint64_t kOffloads = kNetGuestOffloads | kNetHostOffloads | kNetCtrlGuestOffloads;
  EXPECT_EQ(all & kOffloads, kOffloads);
  EXPECT_NE(all & kNetMtu, 0U);
  EXPECT_NE(all & kNetMultiQueue, 0U);
  options.offloads = false;
  options.mtu = 0;
  Make(options);
  EXPECT_EQ(mmio.Features() & (kOffloads | kNetMtu | kNetMultiQueue), 0U);
}

TEST_P(Net, S_5_1_4_TellsItsAddressItsLinkItsPairsAndItsMtu) {
  NetOptions options = Options();
  options.mtu = 1400;
  Make(options, 3);
  EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 1U);
  for (std::size_t i = 0; i < kMac.size(); ++i) {
    EXPECT_EQ(mmio.ReadConfig<std::uint8_t>(i), kMac.at(i));
  }
  EXPECT_EQ(ConfigStatus(), 1U);
  EXPECT_EQ(mmio.ReadConfig<std::uint16_t>(8), 3U);
  EXPECT_EQ(mmio.ReadConfig<std::uint16_t>(10), 1400U);
}

TEST_P(Net, S_5_1_6_2_AFrameGoesOutWithItsHeader) {
  Make();
  Bring(With(kNetCsum));
  Bytes packet = Packet(kOther, 1400);
  packet[0] = 1;  // its checksum is to be completed
  SendPacket(packet);
  EXPECT_EQ(network->pairs[0].from_guest, std::vector<Bytes>(1, packet));
  EXPECT_TRUE(rings[1]->TakeUsed());
  EXPECT_EQ(nic->counters().sent.packets, 1U);
  EXPECT_EQ(nic->counters().sent.bytes, 1414U);
}

TEST_P(Net, S_5_1_6_2_WhatIsNoFrameIsDroppedAndTheNextOneGoes) {
  Make();
  Bring(With(0));
  rings[1]->Offer(std::array{test::Buffer{kSend, 25}});
  rings[1]->Offer(std::array{test::Buffer{kSend, 70'000}});
  rings[1]->Offer(std::array{test::Buffer{kSend, 100, true}});
  Kick(1);
  for (int i = 0; i < 3; ++i) {
    const auto used = rings[1]->TakeUsed();
    EXPECT_TRUE(used && used->written == 0);
  }
  SendPacket(Packet(kOther));
  EXPECT_EQ(network->pairs[0].from_guest.size(), 1U);
  EXPECT_EQ(nic->counters().sent.dropped, 3U);
}

TEST_P(Net, S_5_1_6_4_AFrameComesIntoOneBuffer) {
  Make();
  Bring(With(0));
  const auto first = OfferRoom(0, 1600);
  const auto second = OfferRoom(2048, 1600);
  Kick(0);
  const Bytes packet = Packet(kMac, 1000);
  Arrive(packet);
  EXPECT_EQ(rings[0]->TakeUsed(), (Used{first, static_cast<std::uint32_t>(packet.size())}));
  EXPECT_FALSE(rings[0]->TakeUsed());
  Bytes expected = packet;
  expected[kNetBuffersAt] = 1;  // 5.1.6.4.1: also without mergeable buffers
  EXPECT_EQ(Guest(0, packet.size()), expected);
  EXPECT_EQ(transport->device().queue(0)->in_flight(), 0U) << "the other one is the driver's still";
  Arrive(packet);
  EXPECT_EQ(rings[0]->TakeUsed(), (Used{second, static_cast<std::uint32_t>(packet.size())}));
  EXPECT_EQ(nic->counters().received.bytes, 2 * (packet.size() - kNetHeaderSize));
}

TEST_P(Net, AFrameLargerThanItsBufferIsDroppedWithoutMergeableBuffers) {
  Make();
  Bring(With(0));
  const auto id = OfferRoom(0, 500);
  Kick(0);
  Arrive(Packet(kMac, 1000));
  EXPECT_FALSE(rings[0]->TakeUsed());
  EXPECT_EQ(nic->counters().received.dropped, 1U);
  Arrive(Packet(kMac, 400));
  EXPECT_EQ(rings[0]->TakeUsed(), (Used{id, 12 + 14 + 400}));
}

TEST_P(Net, S_5_1_6_3_1_ALargeFrameComesIntoSeveralBuffers) {
  Make();
  Bring(With(kNetMergeable), 64);
  // The first such frame by a copy of what is beyond its first buffer, the second without.
  for (int round = 0; round < 2; ++round) {
    std::vector<std::uint16_t> ids;
    for (unsigned i = 0; i < 40; ++i) {
      ids.push_back(OfferRoom(2000 * std::uint64_t{i}, 1500 + 10 * i));
    }
    Kick(0);
    const Bytes packet = Packet(kMac, 20'000);
    Arrive(packet);
    Bytes got;
    unsigned count = 0;
    for (; const auto used = rings[0]->TakeUsed(); ++count) {
      EXPECT_EQ(used->id, ids.at(count));
      const Bytes piece = Guest(2000 * std::uint64_t{count}, used->written);
      got.insert(got.end(), piece.begin(), piece.end());
    }
    Bytes expected = packet;
    expected[kNetBuffersAt] = static_cast<std::uint8_t>(count);
    EXPECT_GT(count, 12U);
    EXPECT_EQ(got, expected);
    // A new ring for the second round.
    if (round == 0) {
      Bring(With(kNetMergeable), 64);
    }
  }
}

TEST_P(Net, AFrameWaitsUntilTheDriverHasOfferedEnough) {
  Make();
  Bring(With(kNetMergeable), 16);
  OfferRoom(0, 1000);
  Kick(0);
  const Bytes packet = Packet(kMac, 2500);
  Arrive(packet);
  EXPECT_FALSE(rings[0]->TakeUsed());
  OfferRoom(1000, 1000);
  Kick(0);
  EXPECT_FALSE(rings[0]->TakeUsed());
  OfferRoom(2000, 1000);
  Kick(0);
  Bytes expected = packet;
  expected[kNetBuffersAt] = 3;
  EXPECT_EQ(Guest(0, packet.size()), expected);
  EXPECT_EQ(rings[0]->TakeUsed()->written, 1000U);
  EXPECT_EQ(rings[0]->TakeUsed()->written, 1000U);
  EXPECT_EQ(rings[0]->TakeUsed()->written, 526U);
  EXPECT_EQ(nic->counters().received.dropped, 0U);
}

TEST_P(Net, AFrameThatTheWholeRingHasNoRoomForIsDropped) {
  Make();
  Bring(With(kNetMergeable), 8);
  for (unsigned i = 0; i < 8; ++i) {
    OfferRoom(100 * std::uint64_t{i}, 100);
  }
  Kick(0);
  Arrive(Packet(kMac, 2000));
  Settle();
  EXPECT_EQ(nic->counters().received.dropped, 1U);
  Arrive(Packet(kMac, 20));
  EXPECT_EQ(rings[0]->TakeUsed()->written, 46U);
}

TEST_P(Net, BuffersThatComeLateTakeWhatHasArrived) {
  Make();
  Bring(With(0));
  Kick(0);
  Arrive(Packet(kMac));
  Arrive(Packet(kMac));
  OfferRoom(0, 1600);
  Kick(0);
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_FALSE(rings[0]->TakeUsed());
  OfferRoom(0, 1600);
  EXPECT_TRUE(rings[0]->MustKick());
  Kick(0);
  EXPECT_TRUE(rings[0]->TakeUsed());
}

TEST_P(Net, BuffersOfNoUseAreNotUsedForEver) {
  Make();
  Bring(With(kNetMergeable));
  rings[0]->Offer(std::array{test::Buffer{kData, 100}});  // the device may not write there
  const auto id = OfferRoom(0, 1600);
  Kick(0);
  Arrive(Packet(kMac));
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_EQ(rings[0]->TakeUsed()->id, id);
}

TEST_P(Net, S_5_1_6_5_1_ReceiveModes) {
  Make();
  Bring(With(kNetCtrlQueue | kNetCtrlRx | kNetCtrlRxExtra));
  EXPECT_TRUE(Passes(kOther)) << "promiscuous until told otherwise";
  EXPECT_EQ(Control(0, 0, {0}), 0);
  EXPECT_TRUE(Passes(kMac));
  EXPECT_FALSE(Passes(kOther));
  EXPECT_FALSE(Passes(kGroup));
  EXPECT_TRUE(Passes(kAll));
  EXPECT_EQ(Control(0, 1, {1}), 0);
  EXPECT_TRUE(Passes(kGroup)) << "all multicast";
  EXPECT_EQ(Control(0, 2, {1}), 0);
  EXPECT_TRUE(Passes(kOther)) << "all unicast";
  EXPECT_EQ(Control(0, 3, {1}), 0);
  EXPECT_FALSE(Passes(kGroup)) << "no multicast";
  EXPECT_EQ(Control(0, 4, {1}), 0);
  EXPECT_FALSE(Passes(kMac)) << "no unicast";
  EXPECT_EQ(Control(0, 5, {1}), 0);
  EXPECT_FALSE(Passes(kAll)) << "no broadcast";
  EXPECT_EQ(Control(0, 0, {1}), 0);
  EXPECT_TRUE(Passes(kAll)) << "promiscuous";
}

TEST_P(Net, S_5_1_6_5_2_AddressesAndTheirTables) {
  Make();
  Bring(With(kNetCtrlQueue | kNetCtrlRx | kNetCtrlMac));
  EXPECT_EQ(Control(0, 0, {0}), 0);
  EXPECT_EQ(Control(1, 1, Bytes(kOther.begin(), kOther.end())), 0);
  EXPECT_TRUE(Passes(kOther));
  EXPECT_FALSE(Passes(kMac)) << "no more its address";
  EXPECT_EQ(mmio.ReadConfig<std::uint8_t>(5), 2U);
  Bytes tables = {1, 0, 0, 0};
  tables.insert(tables.end(), kMac.begin(), kMac.end());
  tables.insert(tables.end(), {1, 0, 0, 0});
  tables.insert(tables.end(), kGroup.begin(), kGroup.end());
  EXPECT_EQ(Control(1, 0, tables), 0);
  EXPECT_TRUE(Passes(kMac));
  EXPECT_TRUE(Passes(kGroup));
  EXPECT_EQ(nic->filter().unicast, std::vector{kMac});
  // More than the table takes: all of the kind get through.
  Bytes many = {100, 0, 0, 0};
  many.resize(4 + 600 + 4);
  EXPECT_EQ(Control(1, 0, many), 0);
  EXPECT_TRUE(nic->filter().unicast_overflow);
  EXPECT_TRUE(Passes(kMac));
  EXPECT_FALSE(Passes(kGroup));
}

TEST_P(Net, S_5_1_6_5_3_OnlyVlansThatWereAskedForGetThrough) {
  Make();
  Bring(With(kNetCtrlQueue | kNetCtrlRx | kNetCtrlVlan));
  EXPECT_EQ(Control(0, 0, {0}), 0);
  Bytes tagged = Packet(kMac);
  tagged[kNetHeaderSize + 12] = 0x81;
  tagged[kNetHeaderSize + 13] = 0;
  tagged[kNetHeaderSize + 14] = 0xa5;  // its priority does not count
  tagged[kNetHeaderSize + 15] = 0x12;
  EXPECT_FALSE(Passes(tagged));
  EXPECT_EQ(Control(2, 0, {0x12, 0x05}), 0);
  EXPECT_TRUE(Passes(tagged));
  EXPECT_TRUE(nic->filter().HasVlan(0x512));
  EXPECT_EQ(Control(2, 1, {0x12, 0x05}), 0);
  EXPECT_FALSE(Passes(tagged));
  EXPECT_TRUE(Passes(kMac)) << "untagged";
}

// By the time that the main loop has it, the device has no control queue.
TEST_P(Net, AResetRightBehindAChangeOfPairsIsHarmless) {
  StartThreads(1);
  Make(Options(), 3);
  Bring(With(kNetCtrlQueue | kNetMultiQueue));
  std::ranges::copy(std::array{std::byte{4}, std::byte{0}, std::byte{2}, std::byte{0}},
                    memory.host() + kControl);
  rings[6]->Offer(std::array{test::Buffer{kControl, 4}, test::Buffer{kAnswer, 1, true}});
  mmio.Kick(6);
  bool used = false;
  for (int i = 0; i < 5000 && !used; ++i) {
    ::usleep(1000);  // the thread serves it, and the main loop stands
    used = rings[6]->TakeUsed().has_value();
  }
  EXPECT_TRUE(used);
  mmio.Write(test::MmioDriver::kStatus, 0);
  RunPending();
  EXPECT_EQ(mmio.Read(test::MmioDriver::kStatus), 0U);
}

TEST_P(Net, S_5_1_6_5_5_PairsAreUsedOnceTheDriverSaysSo) {
  Make(Options(), 3);
  Bring(With(kNetCtrlQueue | kNetMultiQueue));
  EXPECT_EQ(network->pairs_in_use, 1U);
  OfferRoom(0, 1600, 2);
  Kick(2);
  network->pairs[1].to_guest.push_back(Packet(kMac));
  Kick(2);
  EXPECT_FALSE(rings[2]->TakeUsed());
  EXPECT_EQ(Control(4, 0, {2, 0}, 6), 0);
  EXPECT_EQ(network->pairs_in_use, 2U);
  Settle();
  EXPECT_TRUE(rings[2]->TakeUsed());
  SendPacket(Packet(kOther), 3);
  EXPECT_EQ(network->pairs[1].from_guest.size(), 1U);
  EXPECT_EQ(Control(4, 0, {0, 0}, 6), 1);
  EXPECT_EQ(Control(4, 0, {4, 0}, 6), 1);
  mmio.Write(test::MmioDriver::kStatus, 0);
  EXPECT_EQ(network->pairs_in_use, 1U);
}

TEST_P(Net, S_5_1_2_WithoutTheFeatureTheControlQueueIsTheThird) {
  Make(Options(), 3);
  Bring(With(kNetCtrlQueue | kNetCtrlRx));
  EXPECT_EQ(Control(0, 0, {0}, 2), 0);
  EXPECT_FALSE(nic->filter().promiscuous);
  // What is behind it is nobody's, and does no harm.
  rings[4]->Offer(std::array{test::Buffer{kSend, 100}});
  Kick(4);
  EXPECT_FALSE(rings[4]->TakeUsed());
}

TEST_P(Net, S_5_1_6_5_6_OffloadsAreThoseThatTheDriverTakes) {
  Make();
  constexpr std::uint64_t kTaken = kNetGuestCsum | kNetGuestTso4;
  Bring(With(kNetCtrlQueue | kNetCtrlGuestOffloads | kTaken | kNetCsum | kNetHostTso4));
  EXPECT_EQ(network->offloads.back(), kTaken);
  EXPECT_EQ(Control(5, 0, {2, 0, 0, 0, 0, 0, 0, 0}), 0);
  EXPECT_EQ(network->offloads.back(), kNetGuestCsum);
  EXPECT_EQ(Control(5, 0, {0, 1, 0, 0, 0, 0, 0, 0}), 1) << "TSO6 was not negotiated";
  mmio.Write(test::MmioDriver::kStatus, 0);
  EXPECT_EQ(network->offloads.back(), 0U);
}

TEST_P(Net, S_5_1_6_5_CommandsThatAreWrongAreRefused) {
  Make();
  Bring(With(kNetCtrlQueue | kNetCtrlRx | kNetCtrlMac), 16);
  EXPECT_EQ(Control(0, 0, {}), 1);
  EXPECT_EQ(Control(0, 2, {1}), 1) << "without the feature";
  EXPECT_EQ(Control(0, 77, {1}), 1);
  EXPECT_EQ(Control(99, 0, {1}), 1);
  EXPECT_EQ(Control(1, 1, {1, 2, 3}), 1);
  EXPECT_EQ(Control(1, 0, {0xff, 0xff, 0xff, 0xff, 1}), 1);
  EXPECT_EQ(Control(1, 0, {0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f}), 1);
  EXPECT_EQ(Control(4, 0, {1, 0}), 1);
  const NetFilter filter = nic->filter();
  EXPECT_EQ(filter.mac, kMac);
  EXPECT_TRUE(filter.promiscuous);
  // Neither has it room for an answer.
  rings[2]->Offer(std::array{test::Buffer{kControl, 2}});
  Kick(2);
  EXPECT_EQ(rings[2]->TakeUsed()->written, 0U);
  EXPECT_EQ(Control(0, 0, {0}), 0);
}

TEST_P(Net, RandomControlCommandsDoNoHarm) {
  Make(Options(), 2);
  Bring(With(kNetCtrlQueue | kNetCtrlRx | kNetCtrlRxExtra | kNetCtrlMac | kNetCtrlVlan | kNetMultiQueue |
             kNetCtrlGuestOffloads),
        16);
  std::uint64_t state = 88172645463325252ULL;
  const auto next = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  };
  int granted = 0;
  for (int i = 0; i < 3000; ++i) {
    Bytes data(next() % 40);
    for (std::uint8_t& byte : data) {
      byte = static_cast<std::uint8_t>(next() % 4 == 0 ? next() : next() % 3);
    }
    granted +=
        Control(static_cast<std::uint8_t>(next() % 7), static_cast<std::uint8_t>(next() % 7), data, 4) == 0;
  }
  EXPECT_GT(granted, 100);
  EXPECT_LE(nic->filter().unicast.size(), 64U);
  EXPECT_GE(network->pairs_in_use, 1U);
  EXPECT_LE(network->pairs_in_use, 2U);
}

}  // namespace
}  // namespace gyre::virtio
