// A device behind virtio-mmio, with a driver of it and a loop that serves it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gyre/devices/virtio/mmio.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tests/unit/devices/device_fakes.h"
#include "tests/unit/devices/virtio/ring_fixture.h"

namespace gyre::virtio {

class FakeEdgeLine final : public EdgeLine {
 public:
  void Connect() override { ++connects; }
  void Trigger() override { ++edges; }
  void SetResend(std::function<void()> function) override { resend = std::move(function); }
  int fd() const override { return event_fd; }
  int connects = 0;
  int event_fd = -1;
  std::atomic<int> edges = 0;
  std::function<void()> resend;
};

// Keeps each chain until the test completes it.
class FakeDevice final : public VirtioDevice {
 public:
  explicit FakeDevice(const DeviceContext& context)
      : VirtioDevice(context, {.name = "fake",
                               .id = 42,
                               .features = 1 | kFeaturePacked | kFeatureInOrder,
                               .queues = 2,
                               .queue_size = 16,
                               .config_size = 12}) {}
  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    for (std::byte& byte : out) {
      byte = static_cast<std::byte>(offset++ + first_config_byte);
    }
  }
  void Change() {
    ++first_config_byte;
    transport()->ConfigChanged();
  }
  void CompleteAll() {
    for (Chain& chain : std::exchange(held, {})) {
      chain.Complete(0);
    }
  }

  std::vector<Chain> held;
  int activations = 0;
  int deactivations = 0;
  std::uint64_t features_seen = 0;
  std::uint8_t first_config_byte = 0x10;

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    (void)index;
    while (auto chain = queue.Pop()) {
      held.push_back(std::move(*chain));
    }
    return Served::kAll;
  }
  void OnActivate(std::uint64_t features) override {
    features_seen = features;
    ++activations;
  }
  void OnDeactivate() override { ++deactivations; }
};

// Any device on virtio-mmio at kBase.
class DeviceTest : public devices::LoopTest {
 protected:
  static constexpr std::uint64_t kBase = 0xfeb0'0000;
  static constexpr std::uint64_t kData = 0xd0000;
  static constexpr std::uint64_t kTable = 0xc0000;

  explicit DeviceTest(const loop::TimeSource* time = nullptr, bool shared_memory = false)
      : LoopTest(time), memory(big_lock_, shared_memory) {}
  ~DeviceTest() override { Unplug(); }

  DeviceContext context() {
    std::vector<loop::IoThread*> threads;
    for (const auto& thread : io_threads) {
      threads.push_back(thread.get());
    }
    return {.loop = *loop_, .memory = *memory.space, .threads = std::move(threads)};
  }
  // Devices that are made from now on are served by so many threads.
  void StartThreads(unsigned count, const loop::PollLimits& poll = {}) {
    for (unsigned i = 0; i < count; ++i) {
      io_threads.push_back(loop::IoThread::Create(*loop_, {.name = "io", .cpus = {}, .poll = poll}).value());
    }
  }
  void Plug(std::unique_ptr<VirtioDevice> device) {
    transport = MmioTransport::Create(*loop_, std::move(device), line,
                                      {.hold = [this] { ++holds; }, .release = [this] { ++releases; }})
                    .value();
    region = transport->NewRegion(memory.topology);
    EXPECT_TRUE(memory.root->Add(kBase, region));
    transport->Start();
  }
  void Unplug() {
    if (transport) {
      memory.root->Remove(region);
      region.reset();
      transport.reset();
    }
  }
  // Driver ready with these features (VERSION_1 besides) and a ring for each queue.
  void Bring(std::uint64_t features, std::uint32_t size = 8) {
    ASSERT_TRUE(mmio.Negotiate(features | kFeatureVersion1));
    rings.clear();
    const RingFeatures ring{.packed = (features & kFeaturePacked) != 0,
                            .indirect = (features & kFeatureIndirect) != 0,
                            .event_index = (features & kFeatureEventIndex) != 0,
                            .in_order = (features & kFeatureInOrder) != 0};
    for (unsigned i = 0; i < transport->device().traits().queues; ++i) {
      const auto layout = test::FakeDriver::LayoutAt(0x1000 + std::uint64_t{0x4000} * i, size, ring.packed);
      rings.push_back(test::FakeDriver::New(memory.host(), layout, ring));
      mmio.SetUpQueue(i, layout);
    }
    mmio.SetDriverOk();
  }
  void Kick(unsigned queue = 0) {
    mmio.Kick(queue);
    Settle();
  }
  // Runs the loop until what was started by now is done.
  void Settle() {
    for (int i = 0; i < 4; ++i) {
      RunPending();
    }
  }
  // Runs the loop until the ring has a used chain, for a few seconds at most.
  test::Used AwaitUsed(unsigned queue = 0) {
    for (int i = 0; i < 5000; ++i) {
      if (const auto used = rings.at(queue)->TakeUsed()) {
        return *used;
      }
      RunPending();
      if (i > 100) {
        ::usleep(1000);
      }
    }
    ADD_FAILURE() << "nothing was used";
    return {};
  }
  std::uint32_t status() { return mmio.Read(test::MmioDriver::kStatus); }

  std::vector<std::unique_ptr<loop::IoThread>> io_threads;
  GuestMemory memory;
  FakeEdgeLine line;
  int holds = 0;
  int releases = 0;
  memory::RegionPtr region;
  std::unique_ptr<MmioTransport> transport;
  test::MmioDriver mmio{*memory.space, kBase};
  std::vector<std::unique_ptr<test::FakeDriver>> rings;
};

}  // namespace gyre::virtio
