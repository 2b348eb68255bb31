// The memory balloon (virtio 1.2, 5.5).
#include "gyre/devices/virtio/balloon.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "gyre/base/endian.h"
#include "gyre/devices/virtio/registry.h"
#include "gyre/memory/discard.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kStats = 2;  // features
constexpr std::uint64_t kOom = 4;
constexpr std::uint64_t kReporting = 32;

class BalloonTest : public DeviceTest {
 protected:
  static constexpr std::uint64_t kPages = 0x100000;  // which the guest gives
  static constexpr std::uint64_t kPage = 4096;

  ~BalloonTest() override { Unplug(); }
  void Make(std::string_view options) {
    Unplug();
    const Module& module = **std::ranges::find(Modules(), "balloon", &Module::option);
    DeviceContext with = context();
    with.balloon_changed = [this](std::uint64_t size) { sizes.push_back(size); };
    auto device = module.create(with, Properties::Parse(options, module.properties).value()).value();
    balloon = dynamic_cast<Balloon*>(device.get());
    Plug(std::move(device));
  }
  // The driver gives these pages, and gets the chain back.
  void Inflate(const std::vector<Le32>& pages, unsigned queue = 0) {
    const auto bytes = std::as_bytes(std::span(pages));
    std::ranges::copy(bytes, memory.host() + kData);
    rings.at(queue)->Offer(std::array{test::Buffer{kData, static_cast<std::uint32_t>(bytes.size())}});
    Kick(queue);
    EXPECT_TRUE(rings.at(queue)->TakeUsed());
  }
  void Fill() { std::memset(memory.host() + kPages, 0x5a, 64 * kPage); }
  bool Full(unsigned page) const {
    return std::all_of(memory.host() + kPages + page * kPage, memory.host() + kPages + (page + 1) * kPage,
                       [](std::byte byte) { return byte == std::byte{0x5a}; });
  }
  bool Gone(unsigned page) const {
    return std::all_of(memory.host() + kPages + page * kPage, memory.host() + kPages + (page + 1) * kPage,
                       [](std::byte byte) { return byte == std::byte{0}; });
  }
  static Le32 Number(unsigned page) { return static_cast<std::uint32_t>(kPages / kPage + page); }
  struct Stat {
    Le16 tag;
    Le64 value;
  };
  // The driver's buffer of the statistics' queue.
  void OfferStats(std::initializer_list<Stat> stats) {
    std::memcpy(memory.host() + kTable, stats.begin(), stats.size() * sizeof(Stat));
    rings[2]->Offer(
        std::array{test::Buffer{kTable, static_cast<std::uint32_t>(stats.size() * sizeof(Stat))}});
    Kick(2);
  }

  Balloon* balloon = nullptr;
  std::vector<std::uint64_t> sizes;
};

TEST_F(BalloonTest, S_5_5_3_OffersWhatTheOptionsSay) {
  Make("on");
  EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 5U);
  EXPECT_EQ(mmio.Features() & 0xff, kStats);
  Make("deflate-on-oom=on,free-page-reporting=on");
  EXPECT_EQ(mmio.Features() & 0xff, kStats | kOom | kReporting);
}

TEST_F(BalloonTest, S_5_5_4_TheTargetAndTheSizeAreInItsConfiguration) {
  Make("size=1M");
  Bring(0);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), 256U);
  const std::uint32_t generation = mmio.Read(test::MmioDriver::kGeneration);
  balloon->SetTarget(8 * kPage);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), 8U);
  EXPECT_NE(mmio.Read(test::MmioDriver::kGeneration), generation);
  mmio.Write(test::MmioDriver::kConfig + 4, 5);
  mmio.Write(test::MmioDriver::kConfig, 77);
  Settle();
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), 8U) << "the device's own";
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(4), 5U);
  EXPECT_EQ(balloon->size(), 5 * kPage);
  mmio.Write(test::MmioDriver::kConfig + 4, 5);
  Settle();
  mmio.Write(test::MmioDriver::kStatus, 0);
  Settle();
  EXPECT_EQ(sizes, (std::vector<std::uint64_t>{5 * kPage, 0})) << "each change is told once";
  EXPECT_EQ(balloon->size(), 0U);
}

TEST_F(BalloonTest, S_5_5_6_PagesThatAreGivenGoBackToTheHost) {
  Make("packed=on");
  for (const std::uint64_t features : {std::uint64_t{0}, kFeaturePacked}) {
    Bring(features);
    Fill();
    const std::uint64_t before = balloon->returned();
    Inflate({Number(3), Number(1), Number(2), Number(7), Number(2)});
    for (const unsigned page : {1U, 2U, 3U, 7U}) {
      EXPECT_TRUE(Gone(page)) << page;
    }
    for (const unsigned page : {0U, 4U, 6U, 8U}) {
      EXPECT_TRUE(Full(page)) << page;
    }
    EXPECT_EQ(balloon->returned() - before, 4 * kPage);
    Inflate({Number(1)}, 1);
    memory.host()[kPages + kPage] = std::byte{1};
    EXPECT_EQ(memory.host()[kPages + kPage], std::byte{1}) << "deflated: it comes back by use";
  }
}

TEST_F(BalloonTest, S_5_5_6_WhatIsNoMemoryIsLeftAlone) {
  Make("on");
  Bring(0);
  Fill();
  Inflate({Le32(0xffff'ffff), Le32(GuestMemory::kRom / kPage), Le32(GuestMemory::kRegisters / kPage),
           Le32(GuestMemory::kHole / kPage), Number(0)});
  EXPECT_EQ(memory.registers.accesses, 0);
  EXPECT_TRUE(Gone(0));
  EXPECT_EQ(balloon->returned(), kPage);
  EXPECT_EQ(status() & test::MmioDriver::kNeedsReset, 0U);
  rings[0]->Offer(std::array{test::Buffer{kData, 3}});
  rings[0]->Offer(std::array{test::Buffer{kData, 100, true}});
  Kick(0);
  EXPECT_TRUE(rings[0]->TakeUsed() && rings[0]->TakeUsed());
}

TEST_F(BalloonTest, PagesThatHaveToStayDo) {
  Make("free-page-reporting=on");
  Bring(kReporting);
  Fill();
  {
    const auto ban = memory::DiscardBan::Of(memory.block).value();
    Inflate({Number(0), Number(1)});
    rings[2]->Offer(std::array{test::Buffer{kPages, 2 * kPage, true}});
    Kick(2);
    EXPECT_TRUE(rings[2]->TakeUsed());
    EXPECT_TRUE(Full(0) && Full(1));
    EXPECT_EQ(balloon->returned(), 0U);
  }
  Inflate({Number(0), Number(1)});
  EXPECT_TRUE(Gone(0) && Gone(1));
}

TEST_F(BalloonTest, S_5_5_6_7_FreePagesThatAreReportedGoBackToTheHost) {
  Make("free-page-reporting=on");
  // A driver numbers its queues without those that it does not take: Linux 2 or 3, by the text 4.
  for (const auto& [features, queue] :
       {std::pair{kReporting, 2U}, {kStats | kReporting, 3U}, {kReporting, 4U}}) {
    Bring(features);
    Fill();
    rings[queue]->Offer(
        std::array{test::Buffer{kPages, 4 * kPage, true}, test::Buffer{kPages + 8 * kPage, kPage, true}});
    Kick(queue);
    EXPECT_TRUE(rings[queue]->TakeUsed());
    EXPECT_TRUE(Gone(0) && Gone(3) && Gone(8));
    EXPECT_TRUE(Full(4) && Full(7) && Full(9));
  }
  // Without the feature there is no such queue.
  Bring(kStats);
  Fill();
  rings[3]->Offer(std::array{test::Buffer{kPages, kPage, true}});
  Kick(3);
  EXPECT_FALSE(rings[3]->TakeUsed());
  EXPECT_TRUE(Full(0));
}

TEST_F(BalloonTest, S_5_5_6_3_StatisticsComeByInterval) {
  Make("stats-interval=10");
  Bring(kStats);
  EXPECT_EQ(balloon->stats().updated_s, 0);
  EXPECT_EQ(balloon->stats().values[4], kBalloonStatUnknown);
  OfferStats({{4, 1000}, {5, 5000}, {99, 1}});
  EXPECT_FALSE(rings[2]->TakeUsed()) << "the device keeps it until it wants more";
  EXPECT_EQ(balloon->stats().values[4], 1000U);
  EXPECT_EQ(balloon->stats().values[5], 5000U);
  EXPECT_EQ(balloon->stats().values[0], kBalloonStatUnknown);
  EXPECT_NE(balloon->stats().updated_s, 0);
  Advance(9'900'000'000);
  Settle();
  EXPECT_FALSE(rings[2]->TakeUsed());
  Advance(200'000'000);
  Settle();
  EXPECT_TRUE(rings[2]->TakeUsed());
  OfferStats({{4, 900}});
  EXPECT_EQ(balloon->stats().values[4], 900U);
  EXPECT_EQ(balloon->stats().values[5], kBalloonStatUnknown);
  balloon->SetStatsInterval(0);
  Advance(60'000'000'000);
  Settle();
  EXPECT_FALSE(rings[2]->TakeUsed()) << "not asked any more";
  balloon->SetStatsInterval(1);
  Advance(1'100'000'000);
  Settle();
  EXPECT_TRUE(rings[2]->TakeUsed());
}

TEST_F(BalloonTest, ABufferOfStatisticsHoldsNoStopUp) {
  Make("on");
  Bring(kStats);
  OfferStats({{4, 1000}});
  transport->Stop();
  transport->Drain();
  const MmioState state = transport->Save();
  auto saved_rings = std::move(rings);
  Make("stats-interval=5");
  ASSERT_TRUE(transport->Load(state));
  rings = std::move(saved_rings);
  transport->Start();
  Settle();
  balloon->SetStatsInterval(1);
  Advance(1'100'000'000);
  Settle();
  EXPECT_TRUE(rings[2]->TakeUsed()) << "the buffer of before";
}

TEST_F(BalloonTest, OneThatFollowsTheHostAsksForMoreUnderPressure_AndGivesBackInCalm) {
  const std::string path = testing::TempDir() + "pressure." + std::to_string(::getpid());
  const auto say = [&path](std::uint64_t total_us) {
    std::ofstream(path) << "some avg10=0.00 avg60=0.00 avg300=0.00 total=" << total_us << "\n";
  };
  constexpr std::int64_t kTurn = 2'000'000'000;
  say(0);
  Make("size=4M,auto=64M,auto-reserve=32M,auto-pressure=" + path);
  Bring(kStats);
  ASSERT_TRUE(balloon->automatic());
  EXPECT_EQ(balloon->automatic()->limit, 64 * kMiB);
  OfferStats({{6, kGiB}});
  mmio.Write(test::MmioDriver::kConfig + 4, 1024);
  say(1'000'000);
  Advance(kTurn);
  Settle();
  EXPECT_EQ(balloon->automatic()->permille, 500U);
  EXPECT_EQ(balloon->target(), 20 * kMiB);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), 20 * kMiB / kPage);
  EXPECT_TRUE(rings[2]->TakeUsed()) << "it is asked for what it has now";
  // Until the guest has given that, and has told what it has left, nothing more is asked for.
  OfferStats({{6, kGiB}});
  say(3'000'000);
  Advance(kTurn);
  Settle();
  EXPECT_EQ(balloon->target(), 20 * kMiB);
  mmio.Write(test::MmioDriver::kConfig + 4, 20 * kMiB / kPage);
  for (int turn = 0; turn < 5; ++turn) {
    EXPECT_EQ(balloon->target(), 20 * kMiB) << turn;
    Advance(kTurn);
    Settle();
  }
  EXPECT_EQ(balloon->target(), 4 * kMiB) << "not below what was asked for by hand";
  balloon->SetTarget(8 * kMiB);
  EXPECT_EQ(balloon->automatic()->least, 8 * kMiB);
  // A file that goes changes nothing.
  std::remove(path.c_str());
  Advance(kTurn);
  Settle();
  EXPECT_EQ(balloon->target(), 8 * kMiB);
}

TEST_F(BalloonTest, OptionsThatAreWrongAreRefused) {
  const Module& module = **std::ranges::find(Modules(), "balloon", &Module::option);
  for (const char* const options :
       {"auto=64M,auto-pressure=/nowhere", "auto=64M,auto-pressure=/dev/null", "auto-reserve=1M",
        "auto-pressure=/proc/pressure/memory", "stats-interval=86401"}) {
    EXPECT_FALSE(module.create(context(), Properties::Parse(options, module.properties).value())) << options;
  }
  Make("on");
  EXPECT_FALSE(balloon->automatic());
}

TEST_F(BalloonTest, ASavedBalloonHasItsSizeAndItsTarget) {
  Make("size=64K");
  Bring(0);
  mmio.Write(test::MmioDriver::kConfig + 4, 9);
  transport->Stop();
  transport->Drain();
  const MmioState state = transport->Save();
  Make("on");
  ASSERT_TRUE(transport->Load(state));
  EXPECT_EQ(balloon->size(), 9 * kPage);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), 16U);
  MmioState bad = state;
  bad.device.pop_back();
  Make("on");
  EXPECT_FALSE(transport->Load(bad));
}

}  // namespace
}  // namespace gyre::virtio
