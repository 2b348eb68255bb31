// Networks whose back end is another process.
#include <algorithm>
#include <array>

#include "devices/virtio/net_config.h"
#include "tests/unit/devices/virtio/vhost_user_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::MmioDriver;

class VhostUserNetTest : public VhostUserTest {
 protected:
  static constexpr std::uint64_t kReceive = 0xd0000;
  static constexpr std::uint64_t kSend = 0xe0000;
  static constexpr std::uint32_t kSize = 100;

  void StartNetwork() {
    StartBackEnd({.features = (1ULL << 32) | (1ULL << 30) | kNetMergeable | kNetCsum,
                  .protocol_features = kVhostMultiQueue | kVhostReplyAck,
                  .network = true});
  }
  Result<std::unique_ptr<VirtioDevice>> Create(const std::string& more) {
    const Module& module = **std::ranges::find(Modules(), "net", &Module::option);
    const auto properties = Properties::Parse("vhost-user=" + path + more, module.properties);
    return properties ? module.create(context(), *properties) : Fail(properties.error());
  }
  void MakeNet(const std::string& more = {}) {
    auto made = Create(",packed=on,mac=02:00:00:00:00:09" + more).value();
    nic = dynamic_cast<Nic*>(made.get());
    device = dynamic_cast<VhostUserDevice*>(made.get());
    Plug(std::move(made));
  }
  void OfferRoom(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      rings.at(0)->Offer(std::array{Buffer{kReceive + 2048 * i, 2048, true}});
    }
    mmio.Kick(0);
  }
  // Sends a frame of this byte, and says what comes.
  char Echo(char byte) {
    std::memset(memory.host() + kSend, byte, kSize);
    std::memset(memory.host() + kReceive, '-', 0x8000);
    rings.at(1)->Offer(std::array{Buffer{kSend, kSize}});
    mmio.Kick(1);
    EXPECT_EQ(AwaitUsed(1).written, 0U);
    EXPECT_EQ(AwaitUsed(0).written, kSize);
    const auto* const found =
        std::ranges::find_if(memory.host() + kReceive, memory.host() + kReceive + 0x8000,
                             [](std::byte at) { return at != std::byte{'-'}; });
    return static_cast<char>(*found);
  }
  bool LinkIsUp() { return (mmio.ReadConfig<std::uint16_t>(6) & kStatusLinkUp) != 0; }

  Nic* nic = nullptr;
};

TEST_F(VhostUserNetTest, FramesGoToTheBackEndAndComeFromIt) {
  StartNetwork();
  MakeNet();
  EXPECT_EQ(mmio.Read(MmioDriver::kDeviceId), 1U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(2), 0x09000000U) << "the address is ours to say";
  EXPECT_TRUE(LinkIsUp());
  for (const std::uint64_t features : {std::uint64_t{0}, kFeaturePacked}) {
    // Once the back end has given back what it has of the ring before.
    mmio.Write(MmioDriver::kStatus, 0);
    ASSERT_TRUE(Await([this] { return status() == 0 && releases == holds; }));
    Bring(features | kNetMac | kNetMergeable);
    OfferRoom(4);
    EXPECT_EQ(Echo('a'), 'a');
    EXPECT_EQ(Echo('b'), 'b');
  }
  EXPECT_EQ(back_end->driver_features() & (kNetMac | kNetMergeable), kNetMergeable);
}

// Receive buffers stay with a back end until there are frames; nobody waits for that.
TEST_F(VhostUserNetTest, AStopTakesBuffersBackByGetVringBase_AndTheyServeAgain) {
  StartNetwork();
  MakeNet();
  Bring(0);
  OfferRoom(3);
  EXPECT_EQ(Echo('a'), 'a');
  EXPECT_EQ(info().in_flight, 2U);
  transport->Stop();
  transport->Drain();
  EXPECT_EQ(info().in_flight, 0U);
  EXPECT_EQ(back_end->stopped(), 2U);
  EXPECT_TRUE(info().connected);
  EXPECT_EQ(transport->Save().queues[0].parked.size(), 2U);
  transport->Start();
  EXPECT_EQ(Echo('b'), 'b');
  EXPECT_EQ(Echo('c'), 'c');
  EXPECT_FALSE(rings[0]->TakeUsed());
}

TEST_F(VhostUserNetTest, AResetAndAResetOfAQueueTakeBuffersBack) {
  StartNetwork();
  MakeNet();
  Bring(kFeatureRingReset);
  OfferRoom(3);
  ASSERT_TRUE(Await([this] { return info().in_flight == 3; }));
  mmio.Write(MmioDriver::kQueueSel, 0);
  mmio.Write(MmioDriver::kQueueReset, 1);
  ASSERT_TRUE(Await([this] { return releases == holds && info().in_flight == 0; }));
  const auto layout = test::FakeDriver::LayoutAt(0x1000, 8, false);
  rings[0] = test::FakeDriver::New(memory.host(), layout, {});
  mmio.SetUpQueue(0, layout);
  OfferRoom(1);
  EXPECT_EQ(Echo('a'), 'a');
  OfferRoom(2);
  ASSERT_TRUE(Await([this] { return info().in_flight == 2; }));
  mmio.Write(MmioDriver::kStatus, 0);
  ASSERT_TRUE(Await([this] { return releases == holds && status() == 0; }));
  Bring(0);
  OfferRoom(1);
  EXPECT_EQ(Echo('b'), 'b');
  EXPECT_TRUE(info().connected);
  EXPECT_EQ(info().connections, 1U);
}

TEST_F(VhostUserNetTest, TheLinkIsDownWhileThereIsNoBackEnd) {
  StartNetwork();
  MakeNet();
  Bring(kNetStatus);
  OfferRoom(2);
  const int before = line.edges;
  back_end.reset();
  ASSERT_TRUE(Await([this] { return !LinkIsUp(); }));
  EXPECT_GT(line.edges.load(), before);
  StartNetwork();
  ASSERT_TRUE(Await([this] { return LinkIsUp(); }));
  EXPECT_EQ(Echo('a'), 'a');
  nic->SetLink(false);
  EXPECT_FALSE(LinkIsUp());
  nic->SetLink(true);
  EXPECT_TRUE(LinkIsUp());
  EXPECT_EQ(nic->back_end(), "vhost-user,path=" + path);
}

TEST_F(VhostUserNetTest, WhatABackEndDoesNotTakeIsRefused) {
  StartNetwork();
  EXPECT_EQ(Create(",tap=t").error().message(), "tap does not go with vhost-user");
  EXPECT_EQ(Create(",rx-rate=1").error().message(), "rx-rate does not go with vhost-user");
  EXPECT_EQ(Create(",queues=2").error().message(), "queues does not go with vhost-user");
}

}  // namespace
}  // namespace gyre::virtio
