// The driver that `tools/bench block` measures disks with, under any VMM that has
// virtio-mmio slots where ours are. It polls the rings and takes no interrupt, so what is
// measured is the device's side. The command line names the phases,
//
//   MILLION_CYCLES,OP:SIZE:DEPTH:QUEUES,...      OP: randread, randwrite, read, write
//
// and for each it says "begin", and when the time is over
// "phase OPS CYCLES KICKS ERRORS P50 P99 P999", with latencies in cycles.
#include "runtime/polled_device.h"

using namespace guest;

namespace {

constexpr std::uint32_t kBlock = 2;
constexpr std::uint32_t kFlush = 1U << 9, kMultiQueue = 1U << 12;

constexpr unsigned kMaxQueues = 2;
constexpr unsigned kMaxDepth = 128;
constexpr std::uint32_t kMaxSize = 128 * 1024;
constexpr std::uint64_t kPause = 150'000'000;  // cycles
// Beyond the image, one buffer for each request. With a power of two from one to the next, all would be in
// the same few sets of the cache where the VMM has large pages.
constexpr std::uint64_t kBuffers = 32 << 20;
constexpr std::uint64_t kStride = kMaxSize + 4096;

struct alignas(64) Request {
  PolledRing::Descriptor table[3];
  struct {
    std::uint32_t type, reserved;
    std::uint64_t sector;
  } header;
  std::uint64_t started;
  std::uint8_t status;
};

struct Phase {
  bool write, random;
  std::uint32_t size;
  unsigned depth, queues;
};
struct Result {
  std::uint64_t operations, kicks, errors;
};

PolledDevice disk;
PolledRing rings[kMaxQueues];
Request requests[kMaxDepth];
std::uint32_t latencies[64 * 16];  // by the number of bits and the four after the first
std::uint64_t sectors;
std::uint64_t next_sector;
std::uint64_t random_state = 0x9e3779b97f4a7c15;

void Start() {
  if (!disk.Find(kBlock)) {
    Fail("block_bench", "there is no disk");
  }
  disk.Negotiate(kFlush | kMultiQueue);
  for (unsigned i = 0; i < kMaxQueues; ++i) {
    disk.AddRing(i, rings[i]);
  }
  if (!disk.Start()) {
    Fail("block_bench", "the disk does not come up");
  }
  sectors = disk.Config(0) | std::uint64_t{disk.Config(4)} << 32;
}

std::uint64_t NextSector(const Phase& phase) {
  const std::uint64_t step = phase.size / 512;
  if (phase.random) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % (sectors / step) * step;
  }
  const std::uint64_t sector = next_sector;
  next_sector += step;
  if (next_sector + step > sectors) {
    next_sector = 0;
  }
  return sector;
}

void Offer(PolledRing& ring, unsigned index, const Phase& phase) {
  Request& request = requests[index];
  request.header = {.type = phase.write ? 1U : 0U, .reserved = 0, .sector = NextSector(phase)};
  request.status = 0xee;
  request.table[0] = {.address = AddressOf(&request.header), .size = 16, .flags = 1, .next = 1};
  request.table[1] = {.address = kBuffers + kStride * index,
                      .size = phase.size,
                      .flags = static_cast<std::uint16_t>(phase.write ? 1 : 3),
                      .next = 2};
  request.table[2] = {.address = AddressOf(&request.status), .size = 1, .flags = 2, .next = 0};
  ring.descriptors[index] = {
      .address = AddressOf(request.table), .size = sizeof(request.table), .flags = 4, .next = 0};
  ring.Offer(index);
  request.started = ReadTsc();
}

void Publish(unsigned queue, Result& result) {
  if (rings[queue].Publish()) {
    ++result.kicks;
    disk.Kick(queue);
  }
}

void NoteLatency(std::uint64_t cycles) {
  const auto top = static_cast<unsigned>(63 - __builtin_clzll(cycles | 16));
  ++latencies[top * 16 + (cycles >> (top - 4) & 15)];
}

// Takes what is used; with `again` offers as much.
unsigned Take(unsigned queue, const Phase& phase, bool again, Result& result) {
  PolledRing& ring = rings[queue];
  unsigned taken = 0;
  for (PolledRing::Used used; ring.Take(used); ++taken) {
    NoteLatency(ReadTsc() - requests[used.id].started);
    ++result.operations;
    result.errors += requests[used.id].status == 0 ? 0 : 1;
    if (again) {
      Offer(ring, used.id, phase);
    }
  }
  return taken;
}

std::uint64_t Percentile(std::uint64_t operations, std::uint64_t per_mille) {
  std::uint64_t seen = 0;
  for (unsigned i = 0; i < sizeof(latencies) / sizeof(latencies[0]); ++i) {
    seen += latencies[i];
    if (seen * 1000 >= operations * per_mille && seen != 0) {
      return (std::uint64_t{16} + i % 16) << (i / 16) >> 4;
    }
  }
  return 0;
}

void Run(const Phase& phase, std::uint64_t cycles) {
  for (std::uint32_t& count : latencies) {
    __atomic_store_n(&count, 0, __ATOMIC_RELAXED);
  }
  Result result{};
  Print("begin\n");
  const std::uint64_t start = ReadTsc();
  for (unsigned i = 0; i < phase.depth; ++i) {
    Offer(rings[i % phase.queues], i, phase);
  }
  unsigned in_flight = phase.depth;
  std::uint64_t end = 0;
  while (in_flight != 0) {
    const std::uint64_t now = ReadTsc();
    const bool again = now - start < cycles;
    for (unsigned queue = 0; queue < phase.queues; ++queue) {
      Publish(queue, result);
      const unsigned taken = Take(queue, phase, again, result);
      in_flight -= again ? 0 : taken;
    }
    end = now;
  }
  Print("phase ", result.operations, " ", end - start, " ", result.kicks, " ", result.errors, " ",
        Percentile(result.operations, 500), " ", Percentile(result.operations, 990), " ",
        Percentile(result.operations, 999), "\n");
  // Whoever reads that looks at our threads now.
  for (const std::uint64_t said = ReadTsc(); ReadTsc() - said < kPause;) {
    Pause();
  }
}

const char* After(const char* text, char what) {
  while (*text != 0 && *text != what) {
    ++text;
  }
  return *text == 0 ? text : text + 1;
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  Start();
  const char* text = boot.cmdline;
  const std::uint64_t cycles = ParseDecimal(text) * 1'000'000;
  // gyred adds parameters of its own behind a space.
  for (text = After(text, ','); *text >= 'a' && *text <= 'z'; text = After(text, ',')) {
    Phase phase{};
    phase.random = StartsWith(text, "rand");
    phase.write = StartsWith(text, "randwrite") || StartsWith(text, "write");
    const char* at = After(text, ':');
    phase.size = static_cast<std::uint32_t>(ParseDecimal(at));
    at = After(at, ':');
    phase.depth = static_cast<unsigned>(ParseDecimal(at));
    at = After(at, ':');
    phase.queues = static_cast<unsigned>(ParseDecimal(at));
    if (phase.size == 0 || phase.size > kMaxSize || phase.depth == 0 || phase.depth > kMaxDepth ||
        phase.queues == 0 || phase.queues > kMaxQueues) {
      Fail("block_bench", "a phase that it cannot do");
    }
    Run(phase, cycles);
  }
  Pass("block_bench");
}
