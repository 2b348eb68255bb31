// Packets that come several at a time (virtio 1.2, 5.1.6.3 and 5.1.6.4): each into buffers of its own, in
// their order, whatever happens to those among them.
#include <map>
#include <random>
#include <string>

#include "tests/unit/devices/virtio/net_fixture.h"

namespace gyre::virtio {
namespace {

// Which are not the same, by their numbers; thousands of bytes tell nobody anything.
std::string Differences(const std::vector<Bytes>& got, const std::vector<Bytes>& wanted) {
  std::string text = got.size() == wanted.size() ? "" : "so many: " + std::to_string(got.size());
  for (std::size_t i = 0; i < std::min(got.size(), wanted.size()); ++i) {
    text += got[i] == wanted[i] ? "" : " " + std::to_string(i);
  }
  return text;
}

class NetReceive : public NetTest, public testing::WithParamInterface<bool> {
 protected:
  static constexpr std::uint64_t kPlaces = 0x50000;  // beyond what the fixture uses
  static constexpr std::uint64_t kPlaceSize = 8192;
  static constexpr unsigned kPlaceCount = 64;

  void Start(std::uint64_t features = kNetMergeable, std::uint32_t entries = kPlaceCount) {
    Make();
    Bring(features | (GetParam() ? kFeaturePacked : 0), entries);
    for (unsigned i = 0; i < kPlaceCount; ++i) {
      free_.push_back(i);
    }
  }
  void Offer(unsigned count, std::uint32_t size = 2000) {
    for (unsigned i = 0; i < count; ++i) {
      const unsigned place = free_.front();
      free_.pop_front();
      offered_[OfferRoom(kPlaces + kPlaceSize * place, size)] = place;
    }
    Kick(0);
  }
  // All at once, and then whoever waits for them is told.
  void ArriveTogether(std::vector<Bytes> packets) {
    auto& pair = network->pairs.front();
    std::ranges::move(packets, std::back_inserter(pair.to_guest));
    if (std::exchange(pair.awaited, false)) {
      pair.readable();
    }
    Settle();
  }
  // What the guest has got since the last time, its count of buffers taken out.
  std::vector<Bytes> Taken() {
    std::vector<Bytes> packets;
    unsigned missing = 0;
    while (const auto used = rings[0]->TakeUsed()) {
      const auto at = offered_.find(used->id);
      EXPECT_NE(at, offered_.end());
      Bytes piece = Guest(kPlaces + kPlaceSize * at->second, used->written);
      free_.push_back(at->second);
      offered_.erase(at);
      if (missing == 0) {
        missing = piece.at(kNetBuffersAt);
        piece.at(kNetBuffersAt) = 0;
        packets.emplace_back();
      }
      packets.back().insert(packets.back().end(), piece.begin(), piece.end());
      --missing;
    }
    EXPECT_EQ(missing, 0U) << "all buffers of a packet are shown at once";
    return packets;
  }
  // Packets of that many sizes, which tell them apart.
  static std::vector<Bytes> Packets(std::size_t first, std::size_t count) {
    std::vector<Bytes> packets;
    for (std::size_t i = 0; i < count; ++i) {
      packets.push_back(Packet(kMac, first + i));
    }
    return packets;
  }
  // Of 20 packets four are delivered, and the next one needs more buffers than there are.
  std::vector<Bytes> StartWithOneThatWaits() {
    Start();
    Offer(12, 1000);
    auto packets = Packets(100, 20);
    packets[4] = Packet(kMac, 12'000);
    ArriveTogether(packets);
    return packets;
  }
  std::uint64_t dropped() const { return nic->counters().received.dropped; }

  std::deque<unsigned> free_;                  // places
  std::map<std::uint32_t, unsigned> offered_;  // by their chains
};
INSTANTIATE_TEST_SUITE_P(Format, NetReceive, testing::Values(false, true),
                         [](const auto& test) { return test.param ? "Packed" : "Split"; });

TEST_P(NetReceive, ManyComeInTheirOrder) {
  for (const std::uint64_t features : {std::uint64_t{0}, kNetMergeable}) {
    free_.clear();
    offered_.clear();
    Start(features);
    for (unsigned round = 0; round < 5; ++round) {
      Offer(60);
      const auto packets = Packets(100 * round + 50, 60);
      ArriveTogether(packets);
      EXPECT_EQ(Differences(Taken(), packets), "");
    }
    EXPECT_EQ(dropped(), 0U);
  }
}

TEST_P(NetReceive, OneBehindARead_ThatFoundNothing_IsNotLost) {
  Start();
  Offer(50);
  network->pairs[0].gap = 3;
  const auto packets = Packets(50, 40);
  for (unsigned i = 0; i < 40; i += 10) {
    ArriveTogether({packets.begin() + i, packets.begin() + i + 10});
    for (int polls = 0; polls < 20 && !network->pairs[0].to_guest.empty(); ++polls) {
      EXPECT_TRUE(network->pairs[0].awaited);
      ArriveTogether({});  // as a poll says it: there are more
    }
  }
  EXPECT_EQ(Differences(Taken(), packets), "");
}

TEST_P(NetReceive, WhatIsForOthersTakesNoBuffer) {
  Start(kNetMergeable | kNetCtrlQueue | kNetCtrlRx);
  EXPECT_EQ(Control(0, 0, {0}), 0);  // no longer promiscuous
  Offer(40);
  std::vector<Bytes> all;
  const auto wanted = Packets(50, 40);
  for (const Bytes& packet : wanted) {
    all.push_back(Packet(kOther, 300));
    all.push_back(packet);
  }
  ArriveTogether(all);
  EXPECT_EQ(Differences(Taken(), wanted), "") << "40 buffers for 40 packets";
  EXPECT_EQ(dropped(), 40U);
}

TEST_P(NetReceive, ALargeOneAmongOthersComesIntoSeveralBuffers) {
  Start();
  for (unsigned round = 0; round < 5; ++round) {
    Offer(60, 1000);
    auto packets = Packets(100, 20);
    packets[7] = Packet(kMac, 5000);
    packets[15] = Packet(kMac, 20'000);
    ArriveTogether(packets);
    EXPECT_EQ(Differences(Taken(), packets), "");
    Offer(static_cast<unsigned>(free_.size()), 1000);
    ArriveTogether(Packets(30, 64));  // all buffers are there, and small packets are expected again
    EXPECT_EQ(Taken().size(), 64U);
  }
  EXPECT_EQ(dropped(), 0U);
}

TEST_P(NetReceive, OneThatWaitsForBuffersIsNotOvertaken) {
  const auto packets = StartWithOneThatWaits();
  EXPECT_EQ(Differences(Taken(), (std::vector<Bytes>{packets.begin(), packets.begin() + 4})), "");
  Offer(3, 1000);
  Settle();
  EXPECT_TRUE(Taken().empty());
  Offer(static_cast<unsigned>(free_.size()), 1000);
  Settle();
  EXPECT_EQ(Differences(Taken(), (std::vector<Bytes>{packets.begin() + 4, packets.end()})), "");
  EXPECT_EQ(dropped(), 0U);
}

// More bytes than a packet can have, of which the device has room for the most.
TEST_P(NetReceive, OversizeOnesAreDropped_AndHarmNoOther) {
  Start();
  for (unsigned round = 0; round < 10; ++round) {
    Offer(static_cast<unsigned>(free_.size()), 8000);
    std::vector<Bytes> wanted;
    std::vector<Bytes> all;
    for (unsigned i = 0; i < 20; ++i) {
      all.push_back(Packet(kMac, kMaxPacket + 2000));
      wanted.push_back(Packet(kMac, 100 + i));
      all.push_back(wanted.back());
    }
    ArriveTogether(all);
    EXPECT_EQ(Differences(Taken(), wanted), "");
    EXPECT_EQ(dropped(), 20 * (round + 1));
  }
}

// The last of as many as are read at once, and the first, whose drop has the others kept in memory of the
// device's.
TEST_P(NetReceive, AnOversizeOneAtABatchsEndIsNotWrittenBeyondIt) {
  Start();
  Offer(64);
  auto all = Packets(100, 64 + 64);
  all.at(64) = all.at(127) = Packet(kMac, kMaxPacket + 1900);
  ArriveTogether(all);
  EXPECT_EQ(Taken().size(), 64U);
  Offer(64);
  Settle();
  EXPECT_EQ(Differences(Taken(), {all.begin() + 65, all.begin() + 127}), "");
  EXPECT_EQ(dropped(), 2U);
}

TEST_P(NetReceive, WhatAResetMeetsIsCounted) {
  const auto packets = StartWithOneThatWaits();
  EXPECT_EQ(Taken().size(), 4U);
  EXPECT_EQ(dropped(), 0U);
  mmio.Write(mmio.kStatus, 0);
  Settle();
  EXPECT_EQ(dropped() + network->pairs[0].to_guest.size(), 16U);
  EXPECT_GT(dropped(), 0U);
}

TEST_P(NetReceive, OfABackEndThatGoes_NothingComesLater) {
  const auto packets = StartWithOneThatWaits();
  EXPECT_EQ(Taken().size(), 4U);
  network->Change(false);
  Settle();
  network->pairs[0].to_guest.clear();
  network->Change(true);
  Offer(static_cast<unsigned>(free_.size()), 1000);
  ArriveTogether(Packets(500, 3));
  EXPECT_EQ(Differences(Taken(), Packets(500, 3)), "");
  EXPECT_GT(dropped(), 0U);
}

// Chains that the device may not write to come back empty.
TEST_P(NetReceive, BuffersOfNoUseAmongOthersHarmNoPacket) {
  Start();
  for (unsigned round = 0; round < 5; ++round) {
    for (unsigned i = 0; i < 12; ++i) {
      Offer(1, 1000);
      if (i % 3 == 0) {
        rings[0]->Offer(std::array{test::Buffer{kData, 100}});
      }
    }
    Kick(0);
    const auto packets = Packets(100, 12);
    ArriveTogether(packets);
    Bytes got;
    while (const auto used = rings[0]->TakeUsed()) {
      const auto at = offered_.find(used->id);
      if (at == offered_.end()) {
        EXPECT_EQ(used->written, 0U);
        continue;
      }
      const Bytes piece = Guest(kPlaces + kPlaceSize * at->second, used->written);
      got.insert(got.end(), piece.begin(), piece.end());
      free_.push_back(at->second);
      offered_.erase(at);
    }
    std::size_t size = 0;
    for (const Bytes& packet : packets) {
      size += packet.size();
    }
    EXPECT_EQ(got.size(), size);
  }
  EXPECT_EQ(dropped(), 0U);
}

TEST_P(NetReceive, WhileTheLinkIsDownWhatWaitedIsGone) {
  const auto packets = StartWithOneThatWaits();
  EXPECT_EQ(Taken().size(), 4U);
  nic->SetLink(false);
  Settle();
  EXPECT_EQ(dropped(), 16U);
  nic->SetLink(true);
  Offer(20, 1000);
  ArriveTogether(Packets(500, 3));
  EXPECT_EQ(Differences(Taken(), Packets(500, 3)), "");
}

TEST_P(NetReceive, RandomTrafficComesWholeAndInOrder) {
  Start(kNetMergeable | kNetCtrlQueue | kNetCtrlRx);
  EXPECT_EQ(Control(0, 0, {0}), 0);
  std::mt19937 random(7);
  const auto pick = [&](unsigned low, unsigned high) {
    return low + static_cast<unsigned>(random() % (high - low + 1));
  };
  std::vector<Bytes> sent;
  std::vector<Bytes> got;
  std::uint64_t others = 0;
  for (unsigned round = 0; round < 2000; ++round) {
    network->pairs[0].gap = pick(0, 9);
    std::vector<Bytes> packets;
    for (unsigned i = pick(0, 12); i > 0; --i) {
      const bool mine = pick(0, 4) != 0;
      const unsigned size = pick(0, 5) == 0 ? pick(1000, 12'000) : pick(50, 1400);
      packets.push_back(Packet(mine ? kMac : kOther, size));
      mine ? sent.push_back(packets.back()) : void(++others);
    }
    Offer(std::min<unsigned>(static_cast<unsigned>(free_.size()), pick(0, 40)), pick(300, 4000));
    ArriveTogether(packets);
    std::ranges::move(Taken(), std::back_inserter(got));
  }
  // What is still on its way.
  for (unsigned i = 0; i < 2000 && got.size() < sent.size(); ++i) {
    Offer(static_cast<unsigned>(free_.size()), 4000);
    network->pairs[0].readable();
    Settle();
    std::ranges::move(Taken(), std::back_inserter(got));
  }
  // Some that the whole ring had no room for may have been dropped: the rest is there, in its order.
  const std::uint64_t lost = dropped() - others;
  EXPECT_EQ(got.size() + lost, sent.size());
  EXPECT_LT(lost, sent.size() / 50);
  std::size_t next = 0;
  for (const Bytes& packet : got) {
    while (next < sent.size() && sent[next] != packet) {
      ++next;
    }
    ASSERT_LT(next, sent.size());
    ++next;
  }
}

}  // namespace
}  // namespace gyre::virtio
