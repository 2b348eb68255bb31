// The driver that `tools/bench block` measures disks with, under any VMM that has
// virtio-mmio slots where ours are. It polls the rings and takes no interrupt, so what is
// measured is the device's side. The command line names the phases,
//
//   MILLION_CYCLES,OP:SIZE:DEPTH:QUEUES,...      OP: randread, randwrite, read, write
//
// and for each it says "begin", and when the time is over
// "phase OPS CYCLES KICKS ERRORS P50 P99 P999", with latencies in cycles.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint64_t kSlots = 0xfeb00000;
constexpr std::uint64_t kSlotSize = 0x200;
constexpr unsigned kSlotCount = 24;
constexpr std::uint32_t kMagic = 0x74726976;
constexpr std::uint64_t kDeviceId = 0x8, kDriverFeatures = 0x20, kDriverFeaturesSel = 0x24, kQueueSel = 0x30,
                        kQueueNum = 0x38, kQueueReady = 0x44, kQueueNotify = 0x50, kStatus = 0x70,
                        kQueueDesc = 0x80, kQueueDriver = 0x90, kQueueDevice = 0xa0, kConfig = 0x100;
constexpr std::uint32_t kFlush = 1U << 9, kMultiQueue = 1U << 12, kIndirect = 1U << 28,
                        kEventIndex = 1U << 29;

constexpr unsigned kEntries = 256;
constexpr unsigned kMaxQueues = 2;
constexpr unsigned kMaxDepth = 128;
constexpr std::uint32_t kMaxSize = 128 * 1024;
constexpr std::uint64_t kPause = 150'000'000;  // cycles
// Beyond the image, one buffer for each request.
constexpr std::uint64_t kBuffers = 32 << 20;

struct Descriptor {
  std::uint64_t address;
  std::uint32_t size;
  std::uint16_t flags, next;
};
struct alignas(64) Request {
  Descriptor table[3];
  struct {
    std::uint32_t type, reserved;
    std::uint64_t sector;
  } header;
  std::uint64_t started;
  std::uint8_t status;
};

// A split ring (virtio 1.2, 2.7), each of whose entries is an indirect table.
struct alignas(4096) Ring {
  Descriptor descriptors[kEntries];
  struct {
    std::uint16_t flags, index, ring[kEntries], used_event;
  } available;
  struct alignas(4096) {
    std::uint16_t flags, index;
    struct {
      std::uint32_t id, written;
    } ring[kEntries];
    std::uint16_t available_event;
  } used;
  std::uint16_t next_used, offered, kicked;
};

struct Phase {
  bool write, random;
  std::uint32_t size;
  unsigned depth, queues;
};
struct Result {
  std::uint64_t operations, kicks, errors;
};

Ring rings[kMaxQueues];
Request requests[kMaxDepth];
std::uint32_t latencies[64 * 16];  // by the number of bits and the four after the first
std::uint64_t disk;
std::uint64_t sectors;
std::uint64_t next_sector;
std::uint64_t random_state = 0x9e3779b97f4a7c15;

std::uint32_t Get(std::uint64_t offset) { return Read<std::uint32_t>(disk + offset); }
void Set(std::uint64_t offset, std::uint32_t value) { Write<std::uint32_t>(disk + offset, value); }
std::uint64_t AddressOf(const volatile void* what) { return reinterpret_cast<std::uint64_t>(what); }
void SetAddress(std::uint64_t offset, const volatile void* what) {
  Set(offset, static_cast<std::uint32_t>(AddressOf(what)));
  Set(offset + 4, 0);
}

void FindDisk() {
  for (unsigned slot = 0; slot < kSlotCount; ++slot) {
    disk = kSlots + kSlotSize * slot;
    if (Get(0) == kMagic && Get(kDeviceId) == 2) {
      return;
    }
  }
  Fail("block_bench", "there is no disk");
}

void Start() {
  Set(kStatus, 0);
  Set(kStatus, 1);
  Set(kStatus, 3);
  Set(kDriverFeaturesSel, 0);
  Set(kDriverFeatures, kFlush | kMultiQueue | kIndirect | kEventIndex);
  Set(kDriverFeaturesSel, 1);
  Set(kDriverFeatures, 1);
  Set(kStatus, 11);
  for (unsigned i = 0; i < kMaxQueues; ++i) {
    Ring& ring = rings[i];
    Set(kQueueSel, i);
    Set(kQueueNum, kEntries);
    SetAddress(kQueueDesc, ring.descriptors);
    SetAddress(kQueueDriver, &ring.available);
    SetAddress(kQueueDevice, &ring.used);
    Set(kQueueReady, 1);
    ring.available.used_event = 0x8000;  // as far away as it can be
  }
  Set(kStatus, 15);
  if (Get(kStatus) != 15) {
    Fail("block_bench", "the disk does not come up");
  }
  sectors = Read<std::uint32_t>(disk + kConfig) | std::uint64_t{Read<std::uint32_t>(disk + kConfig + 4)}
                                                      << 32;
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

void Offer(Ring& ring, unsigned index, const Phase& phase) {
  Request& request = requests[index];
  request.header = {.type = phase.write ? 1U : 0U, .reserved = 0, .sector = NextSector(phase)};
  request.status = 0xee;
  request.table[0] = {.address = AddressOf(&request.header), .size = 16, .flags = 1, .next = 1};
  request.table[1] = {.address = kBuffers + std::uint64_t{kMaxSize} * index,
                      .size = phase.size,
                      .flags = static_cast<std::uint16_t>(phase.write ? 1 : 3),
                      .next = 2};
  request.table[2] = {.address = AddressOf(&request.status), .size = 1, .flags = 2, .next = 0};
  ring.descriptors[index] = {
      .address = AddressOf(request.table), .size = sizeof(request.table), .flags = 4, .next = 0};
  ring.available.ring[ring.offered++ % kEntries] = static_cast<std::uint16_t>(index);
  request.started = ReadTsc();
}

// Shows the device what was offered, and kicks it if it asks for that.
void Publish(unsigned queue, Result& result) {
  Ring& ring = rings[queue];
  if (ring.offered == ring.kicked) {
    return;
  }
  __atomic_store_n(&ring.available.index, ring.offered, __ATOMIC_SEQ_CST);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  const std::uint16_t event = __atomic_load_n(&ring.used.available_event, __ATOMIC_SEQ_CST);
  const auto since_event = static_cast<std::uint16_t>(ring.offered - event - 1);
  if (since_event < static_cast<std::uint16_t>(ring.offered - ring.kicked)) {
    ++result.kicks;
    Set(kQueueNotify, queue);
  }
  ring.kicked = ring.offered;
}

void NoteLatency(std::uint64_t cycles) {
  const auto top = static_cast<unsigned>(63 - __builtin_clzll(cycles | 16));
  ++latencies[top * 16 + (cycles >> (top - 4) & 15)];
}

// Takes what is used; with `again` offers as much.
unsigned Take(unsigned queue, const Phase& phase, bool again, Result& result) {
  Ring& ring = rings[queue];
  unsigned taken = 0;
  const std::uint16_t index = __atomic_load_n(&ring.used.index, __ATOMIC_ACQUIRE);
  for (; ring.next_used != index; ++ring.next_used, ++taken) {
    const std::uint32_t id = ring.used.ring[ring.next_used % kEntries].id;
    NoteLatency(ReadTsc() - requests[id].started);
    ++result.operations;
    result.errors += requests[id].status == 0 ? 0 : 1;
    if (again) {
      Offer(ring, id, phase);
    }
  }
  ring.available.used_event = static_cast<std::uint16_t>(index + 0x8000);
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
  FindDisk();
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
