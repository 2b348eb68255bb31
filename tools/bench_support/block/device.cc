// gyre-block-device IMAGE direct|cached PHASES [IOTHREAD-POLL-NS]: gyre's disk, served by an I/O thread, with
// a driver that is a thread of ours: what gyred does with a disk, without KVM and without a guest. The phases
// and what is printed are those of the guest block_bench; kicks write the queue's eventfd.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>

#include "tools/bench_support/block/board_guest.h"
#include "tools/bench_support/block/phases.h"

namespace gyre::bench {
namespace {

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
  Guest guest = BringUpGuest(board);
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
