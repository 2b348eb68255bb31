// gyre-block-device IMAGE direct|cached PHASES [IOTHREAD-POLL-NS]: gyre's disk, served by an I/O thread, with
// a driver that is a thread of ours: what gyred does with a disk, without KVM and without a guest. The phases
// and what is printed are those of the guest block_bench; kicks write the queue's eventfd.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>

#include "gyre/base/big_lock.h"
#include "gyre/devices/virtio/disk.h"
#include "gyre/devices/virtio/mmio.h"
#include "gyre/devices/virtio/registry.h"
#include "gyre/loop/io_thread.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tools/bench_support/block/phases.h"
#include "tools/bench_support/block/ring_driver.h"

namespace gyre::bench {
namespace {

constexpr std::uint64_t kRam = 128 * kMiB;
constexpr std::uint64_t kRegisters = 0xfeb0'0000;
constexpr std::uint64_t kShared = kMiB;        // guest addresses
constexpr std::uint64_t kBuffers = 32 * kMiB;  // as the guest has them

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

const virtio::Module& DiskModule() {
  return **std::ranges::find(virtio::Modules(), "disk", &virtio::Module::option);
}

// RAM, a disk, and the loops. On the main loop's thread, with the lock held.
class Board {
 public:
  Board(BigLock& lock, const std::string& disk, std::int64_t poll_ns)
      : loop_(OrDie(loop::MainLoop::Create(lock))), topology_(lock) {
    OrDie(root_->Add(0, memory::MemoryRegion::NewRam(topology_, "ram", ram_)));
    thread_ =
        OrDie(loop::IoThread::Create(*loop_, {.name = "io-a", .cpus = {}, .poll = {.max_ns = poll_ns}}));
    virtio::DeviceContext context{.loop = *loop_, .memory = space_, .threads = {thread_.get()}};
    context.disks = &disks_;
    context.id = "disk0";
    const auto properties = OrDie(virtio::Properties::Parse(disk, DiskModule().properties));
    transport_ = OrDie(virtio::MmioTransport::Create(*loop_, OrDie(DiskModule().create(context, properties)),
                                                     line_, {.hold = [] {}, .release = [] {}}));
    region_ = transport_->NewRegion(topology_);
    OrDie(root_->Add(kRegisters, region_));
    transport_->Start();
  }
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;
  ~Board() {
    root_->Remove(region_);
    region_.reset();
    transport_.reset();
  }

  std::uint8_t* host(std::uint64_t address) const {
    return reinterpret_cast<std::uint8_t*>(ram_->host()) + address;
  }
  memory::AddressSpace& space() { return space_; }
  // As long as the driver's thread is at work, which wakes the loop at its end.
  void Run(const std::atomic<bool>& over) NO_THREAD_SAFETY_ANALYSIS {
    while (!over.load()) {
      loop_->RunOnce(false);
    }
  }
  void Wake() { loop_->Wake(); }

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

// To DRIVER_OK, with both queues.
std::uint64_t BringUp(virtio::test::MmioDriver& registers, const Guest& guest) {
  constexpr std::uint64_t kFlush = 1U << 9, kMultiQueue = 1U << 12;
  if (!registers.Negotiate(kFlush | kMultiQueue | virtio::kFeatureIndirect | virtio::kFeatureEventIndex |
                           virtio::kFeatureVersion1)) {
    Die("the disk's features");
  }
  const auto where = [&](const auto& what) {
    return GuestAddress(reinterpret_cast<std::uint64_t>(&what) - guest.base);
  };
  for (unsigned i = 0; i < kMaxQueues; ++i) {
    Ring& ring = guest.shared.rings.at(i);
    registers.SetUpQueue(i, {.size = kEntries,
                             .descriptors = where(ring.descriptors),
                             .driver = where(ring.available),
                             .device = where(ring.used)});
  }
  registers.SetDriverOk();
  return registers.ReadConfig<std::uint64_t>(0) * 512;
}

int Main(int argc, char** argv) NO_THREAD_SAFETY_ANALYSIS {
  if (argc != 4 && argc != 5) {
    std::fputs(
        "usage: gyre-block-device IMAGE direct|cached MILLION_CYCLES,OP:SIZE:DEPTH:QUEUES,... "
        "[POLL-MAX-NS]\n",
        stderr);
    return 2;
  }
  const bool direct = std::string_view(argv[2]) == "direct";
  BigLock lock;
  lock.Lock();
  Board board(lock, std::string("path=") + argv[1] + ",queues=2,cache=" + (direct ? "none" : "writeback"),
              argc == 5 ? std::atoll(argv[4]) : 0);
  Guest guest{.shared = *new (board.host(kShared)) Shared,
              .buffers = board.host(kBuffers),
              .base = reinterpret_cast<std::uint64_t>(board.host(0)),
              .image_size = 0,
              .kick = {}};
  std::memset(guest.buffers, 1, kMaxDepth * kMaxSize);  // none of it is touched for the first time later
  virtio::test::MmioDriver registers(board.space(), kRegisters);
  guest.image_size = BringUp(registers, guest);
  const int status = ForEachPhase(argv[3], [&](const Phase& phase, std::uint64_t cycles) {
    std::atomic<bool> over{false};
    std::thread driver([&] {
      virtio::test::MmioDriver doorbell(board.space(), kRegisters);
      guest.kick = [&](unsigned queue) { doorbell.Kick(queue); };
      Tally tally;
      RingDriver(guest, phase, tally).Run(cycles);
      tally.Print(__rdtsc());
      over.store(true);
      board.Wake();
    });
    board.Run(over);
    driver.join();
  });
  registers.Write(virtio::test::MmioDriver::kStatus, 0);
  return status;
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) { return gyre::bench::Main(argc, argv); }
