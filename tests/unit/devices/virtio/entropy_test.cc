// The entropy device (virtio 1.2, 5.4).
#include <algorithm>
#include <array>

#include "gyre/devices/virtio/registry.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

const Module& FindModule(std::string_view option) {
  return **std::ranges::find(Modules(), option, [](const Module* module) { return module->option; });
}

class Entropy : public DeviceTest {
 protected:
  void Make(std::string_view options) {
    const Module& module = FindModule("entropy");
    Unplug();
    Plug(module.create(context(), Properties::Parse(options, module.properties).value()).value());
  }
  std::size_t Zeros(std::uint64_t from, std::uint64_t size) const {
    return static_cast<std::size_t>(
        std::count(memory.host() + from, memory.host() + from + size, std::byte{0}));
  }
};

TEST_F(Entropy, S_5_4_6_FillsTheWholeBuffer) {
  for (const std::uint64_t features :
       {std::uint64_t{0}, kFeaturePacked | kFeatureIndirect | kFeatureInOrder}) {
    Make("packed=on");
    EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 4U);
    std::memset(memory.host() + kData, 0, 8192);
    Bring(features);
    const auto id = rings[0]->Offer(std::array{Buffer{kData, 4096, true}, Buffer{kData + 4096, 100, true}});
    Kick();
    EXPECT_EQ(rings[0]->TakeUsed(), (test::Used{id, 4196}));
    EXPECT_LT(Zeros(kData, 4196), 200U) << "one byte in 256 is";
    EXPECT_EQ(Zeros(kData + 4196, 3996), 3996U) << "beyond the buffer";
    EXPECT_EQ(line.edges, features == 0 ? 1 : 2);
  }
}

TEST_F(Entropy, ARequestGetsAtMost64KiB) {
  Make("on");
  Bring(0);
  const auto id = rings[0]->Offer(std::array{Buffer{kData, 40 << 10, true}, Buffer{kData, 40 << 10, true}});
  Kick();
  EXPECT_EQ(rings[0]->TakeUsed(), (test::Used{id, 64 << 10}));
}

TEST_F(Entropy, ABatchIsServedInPartsOf256KiB) {
  Make("on");
  Bring(0, 64);
  for (int i = 0; i < 10; ++i) {
    rings[0]->Offer(std::array{Buffer{kData, 64 << 10, true}});
  }
  const auto count = [this] {
    int used = 0;
    while (rings[0]->TakeUsed()) {
      ++used;
    }
    return used;
  };
  mmio.Kick(0);
  int total = 0;
  for (int i = 0; i < 20; ++i) {
    RunPending();
    const int used = count();
    EXPECT_LE(used, 4);
    total += used;
  }
  EXPECT_EQ(total, 10);
}

TEST_F(Entropy, S_5_4_6_ARequestWithoutRoomGetsNothing) {
  Make("on");
  Bring(0);
  const auto id = rings[0]->Offer(std::array{Buffer{kData, 16, false}});
  Kick();
  EXPECT_EQ(rings[0]->TakeUsed(), (test::Used{id, 0}));
}

TEST_F(Entropy, ARateLimitHoldsRequestsBackUntilTheirTime) {
  Make("rate=1000,burst=500");
  Bring(0);
  time_.Advance(10'000'000'000);
  for (int i = 0; i < 3; ++i) {
    rings[0]->Offer(std::array{Buffer{kData, 1000, true}});
  }
  Kick();
  EXPECT_EQ(rings[0]->TakeUsed()->written, 1000U) << "the burst, and 500 bytes of debt";
  EXPECT_FALSE(rings[0]->TakeUsed());
  Advance(400'000'000);
  Settle();
  EXPECT_FALSE(rings[0]->TakeUsed());
  Advance(110'000'000);
  Settle();
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_FALSE(rings[0]->TakeUsed());
  // A reset in that time drops what waits.
  mmio.Write(test::MmioDriver::kStatus, 0);
  Advance(5'000'000'000);
  Settle();
  EXPECT_FALSE(rings[0]->TakeUsed());
}

// A request waits for its time when the VM is saved.
TEST_F(Entropy, ASavedDeviceServesWhatWaits) {
  for (const std::uint64_t features : {std::uint64_t{0}, kFeaturePacked}) {
    Make("rate=1000,burst=500,packed=on");
    Bring(features);
    time_.Advance(10'000'000'000);
    rings[0]->Offer(std::array{Buffer{kData, 1000, true}});
    const auto id = rings[0]->Offer(std::array{Buffer{kData, 100, true}});
    Kick();
    EXPECT_TRUE(rings[0]->TakeUsed());
    EXPECT_FALSE(rings[0]->TakeUsed());
    transport->Stop();
    transport->Drain();
    const auto saved = transport->SaveState();
    Make("packed=on");
    transport->Stop();
    ASSERT_TRUE(transport->LoadState(saved));
    transport->Start();
    Settle();
    EXPECT_EQ(rings[0]->TakeUsed(), (test::Used{id, 100}));
  }
}

TEST(EntropyOptions, MistakesAreToldInOneLine) {
  const Module& module = FindModule("entropy");
  EXPECT_EQ(Properties::Parse("speed=1", module.properties).error().message(),
            "'speed' is not one of rate, burst, packed, iothread");
  EXPECT_EQ(Properties::Parse("rate=1,rate=2", module.properties).error().message(), "'rate' comes twice");
  EXPECT_EQ(Properties::Parse("rate", module.properties).value().Number("rate", 0, 0, 9).error().message(),
            "rate=rate: must be a number from 0 to 9");
  EXPECT_EQ(Properties::Parse("rate=64K", module.properties).value().Number("rate", 0, 0, kMiB).value(),
            64 * kKiB);
}

}  // namespace
}  // namespace gyre::virtio
