// The persistent memory device (virtio 1.2, 5.19).
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "gyre/base/endian.h"
#include "gyre/base/format.h"
#include "gyre/devices/virtio/device_space.h"
#include "gyre/devices/virtio/memory_device.h"
#include "gyre/devices/virtio/registry.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kStart = 4 * kGiB;
constexpr std::uint64_t kImageSize = 4 * kMiB;
constexpr std::uint32_t kFailed = UINT32_MAX;

class PmemTest : public DeviceTest {
 protected:
  PmemTest() : image(::memfd_create("pmem", MFD_CLOEXEC)) {
    EXPECT_EQ(::ftruncate(image.get(), kImageSize), 0);
    EXPECT_EQ(::pwrite(image.get(), "gyre", 4, 4096), 4);
  }
  ~PmemTest() override { Unplug(); }
  std::string path() const { return format("/proc/self/fd/{}", image.get()); }
  Result<std::unique_ptr<VirtioDevice>> Try(const std::string& options) {
    const Module& module = **std::ranges::find(Modules(), "pmem", &Module::option);
    DeviceContext with = context();
    with.space = &space;
    const auto properties = TRY(Properties::Parse(options, module.properties));
    with.id = TRY(DeviceId(module, properties, 0));
    return module.create(with, properties);
  }
  void Make(const std::string& more = "") {
    Unplug();
    auto made = Try(format("path={}{}", path(), more)).value();
    device = dynamic_cast<MemoryDevice*>(made.get());
    Plug(std::move(made));
    start = device->info().address;
  }
  void Offer(std::uint32_t type, std::uint32_t size = 4, std::uint32_t room = 4,
             std::uint64_t answer = kTable) {
    const Le32 request = type;
    std::memcpy(memory.host() + kData, &request, sizeof(request));
    std::memset(memory.host() + answer, 0x55, 4);
    rings[0]->Offer(std::array{test::Buffer{kData, size}, test::Buffer{answer, room, true}});
  }
  std::uint32_t AnswerAt(std::uint64_t answer) const {
    std::uint32_t value = 0;
    std::memcpy(&value, memory.host() + answer, 4);
    return value;
  }
  bool Wait() {
    taken = AwaitUsed();
    return !HasFailure();
  }
  std::uint32_t Read(std::uint64_t address) {
    std::uint32_t value = 0;
    memory.space->Read(cache, GuestAddress(address), std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void Write(std::uint64_t address, std::uint32_t value) {
    memory.space->Write(cache, GuestAddress(address), std::as_bytes(std::span(&value, 1)));
  }
  std::uint32_t InFile(off_t offset) const {
    std::uint32_t value = 0;
    EXPECT_EQ(::pread(image.get(), &value, 4, offset), 4);
    return value;
  }

  UniqueFd image;
  DeviceSpace space{memory.topology, memory.root, kStart, [] { return 64 * kGiB; }, nullptr};
  MemoryDevice* device = nullptr;
  memory::ViewCache cache;
  std::uint64_t start = 0;
  test::Used taken;
};

TEST_F(PmemTest, S_5_19_1_to_5_19_4_IsDevice27AndTellsItsRange) {
  Make();
  Bring(0);
  EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 27U);
  EXPECT_EQ(mmio.Features() & 0xff, 0U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), 0U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(4), kStart >> 32);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(8), kImageSize);
  EXPECT_EQ(device->info().size, kImageSize);
  EXPECT_TRUE(device->ram().empty()) << "a disk, not RAM";
  EXPECT_FALSE(device->Resize(kImageSize));
}

TEST_F(PmemTest, S_5_19_5_TheImageIsMemoryOfTheGuests) {
  Make();
  EXPECT_EQ(std::memcmp(std::array{Read(start + 4096)}.data(), "gyre", 4), 0);
  Write(start + kImageSize - 4, 0x1234);
  EXPECT_EQ(InFile(kImageSize - 4), 0x1234U);
  EXPECT_EQ(memory.space->view()->Find(start + kImageSize), nullptr);
}

TEST_F(PmemTest, S_5_19_7_AFlushIsAnswered) {
  Make(",packed=on");
  for (const std::uint64_t features : {std::uint64_t{0}, kFeaturePacked}) {
    Bring(features);
    Write(start, 7);
    Offer(0);
    Kick(0);
    ASSERT_TRUE(Wait());
    EXPECT_EQ(taken.written, 4U);
    EXPECT_EQ(AnswerAt(kTable), 0U);
  }
}

TEST_F(PmemTest, S_5_19_7_FlushesOfOneTurnAreAllAnswered) {
  Make();
  Bring(0);
  for (unsigned i = 0; i < 3; ++i) {
    Offer(0, 4, 4, kTable + 16 * i);
  }
  Kick(0);
  for (unsigned i = 0; i < 3; ++i) {
    ASSERT_TRUE(Wait());
    EXPECT_EQ(AnswerAt(kTable + 16 * i), 0U);
  }
}

TEST_F(PmemTest, S_5_19_6_WhatIsNoFlushIsRefused) {
  Make();
  Bring(0);
  for (const auto& [type, size] : {std::pair{1U, 4U}, {UINT32_MAX, 4U}, {0U, 3U}}) {
    Offer(type, size);
    Kick(0);
    ASSERT_TRUE(Wait());
    EXPECT_EQ(AnswerAt(kTable), kFailed);
  }
  Offer(0, 4, 3);
  Kick(0);
  ASSERT_TRUE(Wait());
  EXPECT_EQ(taken.written, 0U) << "no room for the answer";
}

TEST_F(PmemTest, AReadOnlyImageStaysAsItIs) {
  Make(",readonly=on");
  Bring(0);
  EXPECT_EQ(std::memcmp(std::array{Read(start + 4096)}.data(), "gyre", 4), 0);
  Write(start, 0x1234);
  EXPECT_EQ(Read(start), 0U);
  EXPECT_EQ(InFile(0), 0U);
  Offer(0);
  Kick(0);
  ASSERT_TRUE(Wait());
  EXPECT_EQ(AnswerAt(kTable), 0U);
}

TEST_F(PmemTest, AResetWithAFlushInFlightWaitsForIt) {
  Make();
  Bring(0);
  Offer(0);
  mmio.Kick(0);
  RunPending();
  mmio.Write(test::MmioDriver::kStatus, 0);
  for (int i = 0; status() != 0 && i < 5000; ++i) {
    RunPending();
    ::usleep(1000);
  }
  EXPECT_EQ(status(), 0U);
  Bring(0);
  Offer(0);
  Kick(0);
  EXPECT_TRUE(Wait());
}

TEST_F(PmemTest, AStopWaitsForWhatIsAtWork_AndTheRestIsSaved) {
  Make();
  Bring(0);
  Offer(0);
  mmio.Kick(0);
  RunPending();
  Offer(0, 4, 4, kTable + 16);
  mmio.Kick(0);
  RunPending();
  transport->Stop();
  transport->Drain();
  EXPECT_TRUE(transport->device().Idle());
  EXPECT_EQ(AnswerAt(kTable), 0U);
  const MmioState state = transport->Save();
  auto saved_rings = std::move(rings);
  Make();
  ASSERT_TRUE(transport->Load(state));
  rings = std::move(saved_rings);
  transport->Start();
  ASSERT_TRUE(Wait() && Wait()) << "both are answered, before or after";
  EXPECT_EQ(AnswerAt(kTable + 16), 0U);
}

TEST_F(PmemTest, ImagesThatAreWrongAreRefused) {
  EXPECT_FALSE(Try("path=/nowhere/image"));
  EXPECT_FALSE(Try("readonly=on"));
  EXPECT_FALSE(Try("path=/dev/null"));
  EXPECT_EQ(::ftruncate(image.get(), kImageSize + 512), 0);
  const auto odd = Try(format("path={}", path()));
  ASSERT_FALSE(odd);
  EXPECT_TRUE(odd.error().message().ends_with("are not whole parts of 2 MiB, as Linux maps them"));
  EXPECT_EQ(::ftruncate(image.get(), kImageSize), 0);
  const auto first = Try(format("path={}", path()));
  ASSERT_TRUE(first);
  EXPECT_FALSE(Try(format("path={}", path()))) << "is in use";
}

}  // namespace
}  // namespace gyre::virtio
