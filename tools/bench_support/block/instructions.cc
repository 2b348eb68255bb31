// gyre-disk-instructions IMAGE read|write REQUESTS: so many 4k requests at depth 128 in any order, carried
// out by gyre's disk on the main loop with the driver on the same thread. Nothing in it depends on the time,
// so that the instructions of a request can be counted (`tools/bench instructions`).
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "tools/bench_support/block/board_guest.h"

namespace gyre::bench {
namespace {

int Main(int argc, char** argv) NO_THREAD_SAFETY_ANALYSIS {
  const std::string_view op = argc == 4 ? argv[2] : "";
  const std::uint64_t requests = argc == 4 ? std::strtoull(argv[3], nullptr, 10) : 0;
  if ((op != "read" && op != "write") || requests == 0) {
    std::fputs("usage: gyre-disk-instructions IMAGE read|write REQUESTS\n", stderr);
    return 2;
  }
  BigLock lock;
  lock.Lock();
  Board board(lock, "disk", std::string("path=") + argv[1] + ",queues=2", std::nullopt);
  Guest guest = BringUpGuest(board);
  auto doorbell = board.registers();
  guest.kick = [&](unsigned queue) { doorbell.Kick(queue); };
  const Phase phase{.write = op == "write", .random = true, .size = 4096, .depth = 128, .queues = 1};
  Tally tally;
  RingDriver driver(guest, phase, tally);
  driver.Begin();
  std::uint64_t answered = 0;
  std::uint64_t waited_for = phase.depth;
  while (waited_for != 0) {
    const bool again = answered < requests;
    const unsigned taken = driver.Look(again);
    answered += taken;
    waited_for -= again ? 0 : taken;
    board.Turn();
  }
  std::printf("%llu\n", static_cast<unsigned long long>(answered));
  return 0;
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) { return gyre::bench::Main(argc, argv); }
