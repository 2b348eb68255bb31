// gyre-block-device IMAGE direct|cached PHASES [IOTHREAD-POLL-NS]: gyre's disk, served by an I/O thread, with
// a driver that is a thread of ours: what gyred does with a disk, without KVM and without a guest. The phases
// and what is printed are those of the guest block_bench; kicks write the queue's eventfd.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <thread>

#include "tools/bench_support/block/phases.h"
#include "tools/bench_support/block/ring_driver.h"
#include "tools/bench_support/board.h"

namespace gyre::bench {
namespace {

constexpr std::uint64_t kShared = kMiB;        // guest addresses
constexpr std::uint64_t kBuffers = 32 * kMiB;  // as the guest has them

// To DRIVER_OK, with both queues.
std::uint64_t BringUp(Board& board, const Guest& guest) {
  constexpr std::uint64_t kFlush = 1U << 9, kMultiQueue = 1U << 12;
  auto registers = board.registers();
  if (!registers.Negotiate(kFlush | kMultiQueue | virtio::kFeatureIndirect | virtio::kFeatureEventIndex |
                           virtio::kFeatureVersion1)) {
    Die("the disk's features");
  }
  for (unsigned i = 0; i < kMaxQueues; ++i) {
    board.SetUpQueue(i, guest.shared.rings.at(i));
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
  Board board(lock, "disk",
              std::string("path=") + argv[1] + ",queues=2,cache=" + (direct ? "none" : "writeback"),
              argc == 5 ? std::atoll(argv[4]) : 0);
  Guest guest{.shared = *new (board.host(kShared)) Shared,
              .buffers = board.host(kBuffers),
              .base = reinterpret_cast<std::uint64_t>(board.host(0)),
              .image_size = 0,
              .kick = {}};
  std::memset(guest.buffers, 1, kMaxDepth * kStride);  // none of it is touched for the first time later
  guest.image_size = BringUp(board, guest);
  return ForEachPhase(argv[3], [&](const Phase& phase, std::uint64_t cycles) {
    std::atomic<bool> over{false};
    std::thread driver([&] {
      auto doorbell = board.registers();
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
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) { return gyre::bench::Main(argc, argv); }
