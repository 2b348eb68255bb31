// What a device stands on without KVM and without a guest: RAM, a main loop, an I/O thread where there is to
// be one, and virtio-mmio registers that a thread of ours reaches as a vCPU would.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "gyre/base/big_lock.h"
#include "gyre/devices/virtio/disk.h"
#include "gyre/devices/virtio/mmio.h"
#include "gyre/devices/virtio/registry.h"
#include "gyre/loop/io_thread.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tools/bench_support/driver_ring.h"

namespace gyre::bench {

// Nobody is interrupted.
class NoLine final : public EdgeLine {
 public:
  void Connect() override {}
  void Trigger() override {}
  void SetResend(std::function<void()>) override {}
};

template <typename T>
T OrDie(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message().c_str());
    std::_Exit(2);
  }
  if constexpr (!std::is_void_v<T>) {
    return std::move(*result);
  }
}

// Made, run and destroyed by one thread, with the lock held.
class Board {
 public:
  static constexpr std::uint64_t kRam = 128 * kMiB;
  static constexpr std::uint64_t kRegisters = 0xfeb0'0000;

  // A device as `--OPTION PROPERTIES` makes it, served by the main loop, or by an I/O thread that polls so
  // long.
  Board(BigLock& lock, std::string_view option, std::string_view properties,
        std::optional<std::int64_t> poll_ns)
      : loop_(OrDie(loop::MainLoop::Create(lock))), topology_(lock) {
    OrDie(root_->Add(0, memory::MemoryRegion::NewRam(topology_, "ram", ram_)));
    virtio::DeviceContext context{.loop = *loop_, .memory = space_};
    if (poll_ns) {
      thread_ =
          OrDie(loop::IoThread::Create(*loop_, {.name = "io-a", .cpus = {}, .poll = {.max_ns = *poll_ns}}));
      context.threads.push_back(thread_.get());
    }
    context.disks = &disks_;
    context.id = std::string(option) + "0";
    const virtio::Module& module = **std::ranges::find(virtio::Modules(), option, &virtio::Module::option);
    const auto parsed = OrDie(virtio::Properties::Parse(properties, module.properties));
    transport_ = OrDie(virtio::MmioTransport::Create(*loop_, OrDie(module.create(context, parsed)), line_,
                                                     {.hold = [] {}, .release = [] {}}));
    region_ = transport_->NewRegion(topology_);
    OrDie(root_->Add(kRegisters, region_));
    transport_->Start();
  }
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;
  ~Board() {
    registers().Write(virtio::test::MmioDriver::kStatus, 0);
    root_->Remove(region_);
    region_.reset();
    transport_.reset();
  }

  std::uint8_t* host(std::uint64_t address) const {
    return reinterpret_cast<std::uint8_t*>(ram_->host()) + address;
  }
  // A driver's way to the device: for one thread.
  virtio::test::MmioDriver registers() { return {space_, kRegisters}; }
  // Between features and DRIVER_OK. The ring is in the board's RAM.
  void SetUpQueue(unsigned index, const Ring& ring) {
    const auto where = [this](const auto& what) {
      return GuestAddress(static_cast<std::uint64_t>(reinterpret_cast<const std::uint8_t*>(&what) - host(0)));
    };
    registers().SetUpQueue(index, {.size = kEntries,
                                   .descriptors = where(ring.descriptors),
                                   .driver = where(ring.available),
                                   .device = where(ring.used)});
  }
  // As long as the driver's thread is at work, which wakes the loop at its end.
  void Run(const std::atomic<bool>& over) NO_THREAD_SAFETY_ANALYSIS {
    while (!over.load()) {
      loop_->RunOnce(false);
    }
  }
  void Wake() { loop_->Wake(); }
  // One iteration, which does not sleep: for who has the driver on the same thread.
  void Turn() NO_THREAD_SAFETY_ANALYSIS { loop_->RunOnce(true); }

 private:
  NoLine line_;
  std::unique_ptr<loop::MainLoop> loop_;
  memory::Topology topology_;
  std::shared_ptr<memory::RamBlock> ram_ = OrDie(memory::RamBlock::NewAnonymous("ram", kRam));
  memory::RegionPtr root_ = memory::MemoryRegion::NewContainer(topology_, "root", memory::kWholeSpace);
  memory::AddressSpace space_{topology_, "memory", root_};
  virtio::Disks disks_{*loop_, [](const virtio::DiskError&) {}};
  std::unique_ptr<loop::IoThread> thread_;
  std::unique_ptr<virtio::MmioTransport> transport_;
  memory::RegionPtr region_;
};

}  // namespace gyre::bench
