// The bus's devices and the memory map: what a device shares is placed, and RAM that is taken out of the map
// is not touched any more, by whatever thread serves the device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gyre/memory/ram.h"
#include "src/machine/layout.h"
#include "src/machine/virtio_bus.h"
#include "tests/support/virtio/fake_driver.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::machine {
namespace {

using virtio::Chain;
using virtio::test::Buffer;
using virtio::test::MmioDriver;

// Writes to the buffers that it has again and again, from its loop, and completes them after a while. With
// `parks` it does not complete them, and gives them back when it is stopped.
class Writer final : public virtio::VirtioDevice {
 public:
  explicit Writer(const virtio::DeviceContext& context)
      : VirtioDevice(context, {.name = "writer", .id = 42, .queue_size = 16}),
        turn_(loop(0), [this] { Turn(); }, loop::Tier::kIo) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() override {
    OnLoop(0, [this] { turn_.Cancel(); });
  }

  static constexpr int kTurns = 1000;
  static inline Writer* last = nullptr;  // that was made
  std::atomic<bool> parks = false;
  std::atomic<int> turns = 0;

 protected:
  Served Serve(unsigned /*index*/, virtio::Queue& queue) override {
    while (auto chain = queue.Pop()) {
      held_.push_back(*std::move(chain));
      left_ = kTurns;
      turn_.Schedule();
    }
    return Served::kAll;
  }
  void GiveBack(unsigned /*index*/) override {
    if (parks) {
      for (Chain& chain : std::exchange(held_, {})) {
        chain.Park();
      }
    }
  }

 private:
  void Turn() {
    for (Chain& chain : held_) {
      for (const iovec& piece : chain.writable()) {
        std::memset(piece.iov_base, 0xaa, piece.iov_len);
      }
    }
    ++turns;
    if (parks || --left_ > 0) {
      return turn_.Schedule();
    }
    for (Chain& chain : std::exchange(held_, {})) {
      chain.Complete(1);
    }
  }

  loop::BottomHalf turn_;
  std::vector<Chain> held_;
  int left_ = 0;
};

// Has so many bytes of shared memory.
std::uint64_t shared_size = 0;
class Sharer final : public virtio::VirtioDevice {
 public:
  Sharer(const virtio::DeviceContext& context, memory::RegionPtr region)
      : VirtioDevice(
            context,
            {.name = "sharer", .id = 43, .shared_memory = {{.id = 7, .region = std::move(region)}}}) {}

 protected:
  Served Serve(unsigned /*index*/, virtio::Queue& /*queue*/) override { return Served::kAll; }
};
memory::Topology* sharers_topology = nullptr;

using MadeDevice = Result<std::unique_ptr<virtio::VirtioDevice>>;
constexpr std::array kProperties = {virtio::kIoThreadProperty};
const virtio::Module kWriter{
    .option = "writer",
    .help = "",
    .properties = kProperties,
    .create = [](const virtio::DeviceContext& context, const virtio::Properties&) -> MadeDevice {
      auto made = std::make_unique<Writer>(context);
      Writer::last = made.get();
      return made;
    }};
const virtio::Module kSharer{
    .option = "sharer",
    .help = "",
    .properties = kProperties,
    .create = [](const virtio::DeviceContext& context, const virtio::Properties&) -> MadeDevice {
      return std::make_unique<Sharer>(
          context,
          memory::MemoryRegion::NewRam(*sharers_topology, "shared",
                                       memory::RamBlock::NewAnonymous("shared", shared_size).value()));
    }};

class NoMsi final : public MsiSink {
 public:
  void Send(const MsiMessage& /*message*/) override {}
  void SetRoute(Gsi /*gsi*/, const std::optional<MsiMessage>& /*message*/) override {}
};

class BusMemory : public devices::LoopTest {
 protected:
  static constexpr std::uint64_t kBuffer = 0x400000;
  static constexpr std::uint64_t kBufferSize = 64 * kKiB;

  BusMemory() {
    root_ = memory::MemoryRegion::NewContainer(topology_, "root", memory::kWholeSpace);
    ram_ = memory::RamBlock::NewAnonymous("ram", kMiB).value();
    EXPECT_TRUE(root_->Add(0, memory::MemoryRegion::NewRam(topology_, "ram", ram_)));
    space_.emplace(topology_, "memory", root_);
    device_space_.emplace(topology_, root_, 4 * kGiB, [] { return 8 * kGiB; }, nullptr);
    sharers_topology = &topology_;
  }
  ~BusMemory() override {
    bus_.reset();
    threads_ = {};
  }

  Status Make(const std::vector<virtio::DeviceConfig>& devices) {
    threads_ = TRY(IoThreads::Create(*loop_, {{.id = "a", .cpus = {}, .poll = {}}}));
    bus_ = TRY(
        VirtioBus::Create({.topology = topology_,
                           .root = *root_,
                           .memory = *space_,
                           .loop = *loop_,
                           .io_threads = threads_,
                           .chardevs = chardevs_,
                           .disks = disks_,
                           .space = *device_space_,
                           .ioapic = ioapic_,
                           .state_handlers = handlers_,
                           .new_irq_fd = [](Gsi) -> Result<UniqueFd> { return Fail(Error::Host("none")); },
                           .hold = {.hold = [] {}, .release = [] {}},
                           .acpi = true,
                           .name = {},
                           .net_changed = {},
                           .vhost_user_changed = {},
                           .balloon_changed = {},
                           .memory_changed = {}},
                          devices));
    return handlers_.Notify(true, RunState::kRunning);
  }
  static virtio::DeviceConfig Config(const virtio::Module& module, std::string_view options) {
    return {.module = &module, .properties = virtio::Properties::Parse(options, module.properties).value()};
  }
  // A writer, brought up, with a buffer of its own memory in hand.
  void MakeWriter(std::string_view options, bool parks) {
    ASSERT_TRUE(Make({Config(kWriter, options)}));
    Writer::last->parks = parks;
    AddBuffer();
    ASSERT_TRUE(mmio_.Negotiate(virtio::kFeatureVersion1));
    const auto layout = virtio::test::FakeDriver::LayoutAt(0x1000, 8, false);
    driver_ = virtio::test::FakeDriver::New(ram_->host(), layout, {});
    mmio_.SetUpQueue(0, layout);
    mmio_.SetDriverOk();
    Offer();
    ASSERT_TRUE(Await([] { return Writer::last->turns > 0; }));
  }
  void AddBuffer() {
    block_ = memory::RamBlock::NewAnonymous("buffer", kBufferSize).value();
    buffer_ = memory::MemoryRegion::NewRam(topology_, "buffer", block_);
    EXPECT_TRUE(root_->Add(kBuffer, buffer_));
  }
  void Offer() {
    driver_->Offer(std::array{Buffer{kBuffer, kBufferSize, true}});
    mmio_.Kick(0);
  }
  // For a few seconds at most.
  template <typename Function>
  bool Await(const Function& done) {
    for (int i = 0; i < 5000; ++i) {
      if (done()) {
        return true;
      }
      RunPending();
      ::usleep(1000);
    }
    return false;
  }
  bool NeedsReset() { return (mmio_.Read(MmioDriver::kStatus) & MmioDriver::kNeedsReset) != 0; }
  static bool IsAll(const memory::RamBlock& block, std::uint8_t value) {
    return std::all_of(block.host(), block.host() + kBufferSize,
                       [value](std::byte byte) { return byte == std::byte{value}; });
  }

  memory::Topology topology_{big_lock_};
  memory::RegionPtr root_;
  memory::RegionPtr buffer_;
  std::shared_ptr<memory::RamBlock> ram_;
  std::shared_ptr<memory::RamBlock> block_;
  std::optional<memory::AddressSpace> space_;
  std::optional<virtio::DeviceSpace> device_space_;
  NoMsi msi_;
  devices::IoApic ioapic_{msi_, 32};
  devices::Chardevs chardevs_{*loop_};
  virtio::Disks disks_{*loop_, [](const virtio::DiskError&) {}};
  StateHandlers handlers_;
  IoThreads threads_;
  std::unique_ptr<VirtioBus> bus_;
  MmioDriver mmio_{*space_, layout::kVirtio};
  std::unique_ptr<virtio::test::FakeDriver> driver_;
};

class BusMemoryOnLoops : public BusMemory, public testing::WithParamInterface<const char*> {};

// What it writes once the change is done would be a race with this test, too.
TEST_P(BusMemoryOnLoops, RamThatIsTakenOutIsNotTouchedAnyMore) {
  MakeWriter(GetParam(), false);
  bus_->ChangeMemory([&] { root_->Remove(buffer_); });
  std::memset(block_->host(), 0x55, kBufferSize);
  EXPECT_TRUE(driver_->TakeUsed()) << "what was in flight is complete";
  EXPECT_FALSE(NeedsReset());
  Offer();
  EXPECT_TRUE(Await([&] { return NeedsReset(); })) << "there is no such memory any more";
  EXPECT_TRUE(IsAll(*block_, 0x55));
}

TEST_P(BusMemoryOnLoops, WhatIsParkedIsLookedUpAnew) {
  MakeWriter(GetParam(), true);
  const auto old = block_;
  bus_->ChangeMemory([&] {
    memory::Transaction change(topology_);
    root_->Remove(buffer_);
    AddBuffer();
    EXPECT_TRUE(change.Commit());
  });
  Writer::last->parks = false;
  std::memset(old->host(), 0x55, kBufferSize);
  EXPECT_TRUE(Await([&] { return driver_->TakeUsed().has_value(); }));
  EXPECT_TRUE(IsAll(*old, 0x55));
  EXPECT_TRUE(IsAll(*block_, 0xaa)) << "the request is carried out where its addresses are now";
  EXPECT_FALSE(NeedsReset());
}

TEST_P(BusMemoryOnLoops, WhatIsParkedAndGoneNeedsAReset) {
  MakeWriter(GetParam(), true);
  bus_->ChangeMemory([&] { root_->Remove(buffer_); });
  EXPECT_TRUE(NeedsReset());
  mmio_.Write(MmioDriver::kStatus, 0);
  EXPECT_TRUE(Await([&] { return mmio_.Read(MmioDriver::kStatus) == 0; }));
}

// A change that takes nothing away needs no quiet: who is at work keeps what it has mapped.
TEST_P(BusMemoryOnLoops, MappedMemoryOutlivesItsPlaceInTheMap) {
  MakeWriter(GetParam(), false);
  root_->Remove(buffer_);
  buffer_.reset();
  block_.reset();
  EXPECT_TRUE(Await([&] { return driver_->TakeUsed().has_value(); }));
}

INSTANTIATE_TEST_SUITE_P(All, BusMemoryOnLoops, testing::Values("on", "iothread=a"), [](const auto& param) {
  return std::string(param.param) == "on" ? "MainLoop" : "IoThread";
});

TEST_F(BusMemory, S_2_10_SharedMemoryIsPlacedAndTold) {
  shared_size = 64 * kKiB;
  ASSERT_TRUE(Make({Config(kSharer, "on"), Config(kSharer, "on")}));
  for (const unsigned slot : {0U, 1U}) {
    MmioDriver mmio(*space_, layout::kVirtio + slot * layout::kVirtioSize);
    mmio.Write(MmioDriver::kShmSel, 7);
    const std::uint64_t base =
        mmio.Read(MmioDriver::kShmBase) | std::uint64_t{mmio.Read(MmioDriver::kShmBase + 4)} << 32;
    EXPECT_EQ(mmio.Read(MmioDriver::kShmLen), shared_size);
    EXPECT_EQ(base, layout::kVirtioShared + slot * shared_size);
    memory::ViewCache cache;
    const std::array value = {std::byte(0x10 + slot)};
    space_->Write(cache, GuestAddress(base + 5), value);
    std::array<std::byte, 1> read{};
    space_->Read(cache, GuestAddress(base + 5), read);
    EXPECT_EQ(read, value);
  }
}

TEST_F(BusMemory, SharedMemoryThatFindsNoPlaceIsRefused) {
  shared_size = 512 * kMiB;
  const auto status = Make({Config(kSharer, "on"), Config(kSharer, "on")});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(),
              testing::HasSubstr("--sharer: there is no place for 536870912 bytes of shared memory"));
}

}  // namespace
}  // namespace gyre::machine
