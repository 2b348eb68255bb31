// Breaks every rule it can on every virtio device but the last disk: random registers, random rings of both
// formats, resets at random, by two processors at once. A third writes to that last disk all the while, and
// reads back what it wrote. "SEED SECONDS" on the command line; in the end each device must work for a driver
// that keeps the rules. Tells by slot how often a device needed a reset; ends when a byte comes on the serial
// port.
//
// What devices write goes wherever a ring says, and with rings of chance that is wherever the numbers in
// memory point to. So this guest stands at 768 MiB of 1 GiB, and no number that it scribbles points there,
// however it is read: 32 bits at a time are less than 256 MiB or beyond its memory.
#include "runtime/guest.h"
#include "runtime/virtio.h"

using namespace guest;

namespace {

constexpr std::uint64_t kPatience = 120'000'000'000;  // cycles
constexpr std::uint64_t kArena = 0x1000000;           // of the first victim, each further one behind it
constexpr std::uint64_t kArenaSize = 0x100000;
constexpr std::uint64_t kRingSize = 0x4000;  // bytes of a queue's ring, with what lies behind it
constexpr std::uint64_t kDriverArea = 0x1000, kDeviceArea = 0x2000;
constexpr std::uint64_t kData = 0x80000;  // of a victim's arena
constexpr unsigned kMaxQueues = 8;
constexpr unsigned kSlots = 8;
constexpr std::uint32_t kDisk = 2, kConsole = 3, kEntropy = 4;
constexpr std::uint32_t kNeedsReset = 0x40;
constexpr std::uint64_t kQueueSel = 0x30, kQueueReset = 0xc0, kDeviceFeatures = 0x10,
                        kDeviceFeaturesSel = 0x14;
constexpr std::uint32_t kPacked = 1U << 2;  // of the upper half, with VERSION_1

struct alignas(16) Header {
  std::uint32_t type, reserved;
  std::uint64_t sector;
};

void Check(const char* wrong) {
  if (wrong != nullptr) {
    Fail("scribble", wrong);
  }
}

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed * 2685821657736338717ULL | 1) {}
  std::uint64_t Any() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  std::uint64_t Below(std::uint64_t end) { return (Any() >> 16) % end; }
  bool OneIn(std::uint64_t count) { return Below(count) == 0; }
  // For memory.
  std::uint32_t Word() { return static_cast<std::uint32_t>(Any()) | 0x8000'0000; }
  std::uint8_t Byte() { return static_cast<std::uint8_t>(Any() & 0x8f); }

 private:
  std::uint64_t state_;
};

// A device and the memory that belongs to its rings.
struct Victim {
  unsigned slot = 0;
  std::uint32_t id = 0;
  volatile std::uint64_t needed_reset = 0;
  VirtioDevice device() const { return VirtioDevice(slot); }
  std::uint64_t arena() const { return kArena + kArenaSize * slot; }
  std::uint64_t ring(std::uint64_t queue) const { return arena() + kRingSize * (queue % kMaxQueues); }
};
Victim victims[kSlots];
std::size_t victim_count = 0;

// One processor's work on the victims; each has its own thoughts about how far a ring is.
class Scribbler {
 public:
  explicit Scribbler(std::uint64_t seed) : dice_(seed) {}

  void Step() {
    Victim& victim = victims[dice_.Below(victim_count)];
    switch (dice_.Below(16)) {
      case 0:
        BringUp(victim);
        break;
      case 1:
        WriteRegister(victim);
        break;
      case 2:
        ReadRegister(victim);
        break;
      case 3:
      case 4:
        ScribbleRing(victim);
        break;
      case 5:
        if (dice_.OneIn(4)) {
          victim.device().Set(VirtioDevice::kStatus, 0);
        }
        break;
      case 6:
        victim.device().Set(kQueueSel, static_cast<std::uint32_t>(dice_.Below(4)));
        victim.device().Set(dice_.OneIn(2) ? kQueueReset : VirtioDevice::kQueueReady,
                            static_cast<std::uint32_t>(dice_.Below(2)));
        break;
      case 7:
      case 8:
        victim.device().Set(
            VirtioDevice::kQueueNotify,
            static_cast<std::uint32_t>(dice_.OneIn(8) ? dice_.Any() : dice_.Below(kMaxQueues)));
        break;
      default:
        Offer(victim, dice_.Below(victim.id == kConsole ? 6 : 3));
        break;
    }
    const std::uint32_t status = victim.device().Get(VirtioDevice::kStatus);
    if ((status & kNeedsReset) != 0) {
      victim.needed_reset = victim.needed_reset + 1;
      if (dice_.OneIn(4)) {
        BringUp(victim);
      }
    }
  }

 private:
  // As a driver does it, mostly: with what features, sizes and addresses is chance.
  void BringUp(const Victim& victim) {
    const VirtioDevice device = victim.device();
    device.Set(VirtioDevice::kStatus, 0);
    packed_ = dice_.OneIn(2);
    next_ = 0;
    wrap_ = true;
    for (std::uint64_t at = 0; at < kRingSize * kMaxQueues; at += 8) {
      Write<std::uint64_t>(victim.arena() + at, 0);
    }
    device.Set(VirtioDevice::kStatus, 1);
    device.Set(VirtioDevice::kStatus, 3);
    for (std::uint32_t half = 0; half < 2; ++half) {
      device.Set(kDeviceFeaturesSel, half);
      std::uint32_t features = device.Get(kDeviceFeatures) & static_cast<std::uint32_t>(dice_.Any());
      if (half == 1) {
        features = (features & ~kPacked) | 1 | (packed_ ? kPacked : 0);
      }
      device.Set(VirtioDevice::kDriverFeaturesSel, half);
      device.Set(VirtioDevice::kDriverFeatures, features);
    }
    device.Set(VirtioDevice::kStatus, 11);
    size_ = std::uint32_t{1} << dice_.Below(6);
    for (std::uint32_t queue = 0; queue < kMaxQueues; ++queue) {
      const std::uint64_t ring = victim.ring(queue);
      device.Set(kQueueSel, queue);
      device.Set(VirtioDevice::kQueueNum, dice_.OneIn(64) ? static_cast<std::uint32_t>(dice_.Any()) : size_);
      SetAddress(device, VirtioDevice::kQueueDesc, ring);
      SetAddress(device, VirtioDevice::kQueueDriver, ring + kDriverArea);
      SetAddress(device, VirtioDevice::kQueueDevice, ring + kDeviceArea);
      device.Set(VirtioDevice::kQueueReady, 1);
    }
    device.Set(VirtioDevice::kStatus, 15);
  }

  void SetAddress(const VirtioDevice& device, std::uint64_t offset, std::uint64_t address) {
    address = dice_.OneIn(32) ? Address(address & ~(kArenaSize - 1)) : address;
    device.Set(offset, static_cast<std::uint32_t>(address));
    device.Set(offset + 4, static_cast<std::uint32_t>(address >> 32));
  }

  // Somewhere in the arena, in a hole, in a device's registers, beyond all memory.
  std::uint64_t Address(std::uint64_t arena) {
    switch (dice_.Below(8)) {
      case 0:
        return 0xfe000000 + dice_.Below(0x2000000);
      case 1:
        return ~dice_.Any() | 1ULL << 45;
      case 2:
        return kVirtioBase + dice_.Below(0x1000);
      default:
        return arena + dice_.Below(kArenaSize);
    }
  }

  void WriteRegister(const Victim& victim) {
    const std::uint64_t offset = dice_.Below(kVirtioSize);
    const std::uint64_t value = dice_.OneIn(2) ? dice_.Below(32) : dice_.Any();
    // Not the queues' addresses: they might point to this guest.
    if (offset >= VirtioDevice::kQueueDesc && offset < VirtioDevice::kQueueDevice + 8) {
      return;
    }
    const std::uint64_t address = kVirtioBase + kVirtioSize * victim.slot + offset;
    switch (dice_.Below(8)) {
      case 0:
        return Write<std::uint8_t>(address, static_cast<std::uint8_t>(value));
      case 1:
        return Write<std::uint16_t>(address & ~1ULL, static_cast<std::uint16_t>(value));
      default:
        return Write<std::uint32_t>(address & ~3ULL, static_cast<std::uint32_t>(value));
    }
  }

  void ReadRegister(const Victim& victim) {
    const std::uint64_t address = kVirtioBase + kVirtioSize * victim.slot + dice_.Below(kVirtioSize);
    if (dice_.OneIn(4)) {
      (void)Read<std::uint8_t>(address);
    } else {
      (void)Read<std::uint32_t>(address & ~3ULL);
    }
  }

  void ScribbleRing(const Victim& victim) {
    static constexpr std::uint64_t kAreas[] = {0, 0, kDriverArea, kDeviceArea};
    const std::uint64_t area = victim.ring(dice_.Below(3)) + kAreas[dice_.Below(4)];
    for (std::uint64_t count = dice_.Below(4) + 1; count != 0; --count) {
      const std::uint64_t place = area + dice_.Below(16ULL * size_ + 16);
      switch (dice_.Below(4)) {
        case 0:
          Write<std::uint8_t>(place, dice_.Byte());
          break;
        case 1:
          Write<std::uint16_t>(place & ~1ULL, static_cast<std::uint16_t>(dice_.Below(2ULL * size_)));
          break;
        case 2:
          Write<std::uint64_t>(place & ~15ULL, Address(victim.arena()));
          break;
        default:
          Write<std::uint32_t>(place & ~3ULL, dice_.Word());
          break;
      }
    }
  }

  // A chain such as drivers make, of one to three buffers, in either format.
  void Offer(const Victim& victim, std::uint64_t queue) {
    const std::uint64_t ring = victim.ring(queue);
    const std::uint64_t data = victim.arena() + kData + 0x100 * dice_.Below(64);
    const bool request = victim.id == kDisk && size_ >= 4;
    if (request) {
      Write<std::uint32_t>(data, static_cast<std::uint32_t>(dice_.Below(16)));
      Write<std::uint64_t>(data + 8, dice_.Below(600));
    } else {
      for (std::uint64_t at = 0; at < 48; at += 4) {
        Write<std::uint32_t>(data + at,
                             dice_.OneIn(4) ? dice_.Word() : static_cast<std::uint32_t>(dice_.Below(8)));
      }
    }
    const std::uint64_t first = packed_ ? next_ : dice_.Below(size_);
    const std::uint64_t count = request ? 3 : dice_.Below(2) + 1;
    const bool reads = request || dice_.OneIn(2);
    for (std::uint64_t i = 0; i < count; ++i) {
      const bool last = i + 1 == count;
      const bool writes = (i == 0 && !reads) || last || (i != 0 && dice_.OneIn(2));
      const std::uint64_t size = request && last ? 1 : i == 0 && reads ? 16 : 512 * dice_.Below(64);
      Describe(
          ring, first, i, data + 0x1000 * i, static_cast<std::uint32_t>(size),
          static_cast<std::uint16_t>((last ? 0 : VirtioQueue::kNext) | (writes ? VirtioQueue::kWrite : 0)));
    }
    if (!packed_) {
      const auto index = Read<std::uint16_t>(ring + kDriverArea + 2);
      Write<std::uint16_t>(ring + kDriverArea + 4 + 2 * (index & (size_ - 1)),
                           static_cast<std::uint16_t>(first));
      Write<std::uint16_t>(ring + kDriverArea + 2, static_cast<std::uint16_t>(index + 1));
    }
    if (dice_.OneIn(2)) {
      victim.device().Set(VirtioDevice::kQueueNotify, static_cast<std::uint32_t>(queue));
    }
  }

  void Describe(std::uint64_t ring, std::uint64_t first, std::uint64_t index, std::uint64_t address,
                std::uint32_t size, std::uint16_t flags) {
    const std::uint64_t entry = (first + index) & (size_ - 1);
    const std::uint64_t place = ring + 16 * entry;
    Write<std::uint64_t>(place, address);
    Write<std::uint32_t>(place + 8, size);
    if (!packed_) {
      Write<std::uint16_t>(place + 14, static_cast<std::uint16_t>((entry + 1) & (size_ - 1)));
      Write<std::uint16_t>(place + 12, flags);
      return;
    }
    Write<std::uint16_t>(place + 12, static_cast<std::uint16_t>(first));
    Write<std::uint16_t>(place + 14, static_cast<std::uint16_t>(flags | (wrap_ ? 0x80 : 0x8000)));
    next_ = (entry + 1) & (size_ - 1);
    wrap_ = next_ == 0 ? !wrap_ : wrap_;
  }

  Dice dice_;
  std::uint32_t size_ = 8;
  std::uint64_t next_ = 0;
  bool packed_ = false;
  bool wrap_ = true;
};

// --- The processors beside the first

unsigned good_slot = 0;
std::uint64_t seed = 0;
volatile bool stop = false;
volatile bool scribbler_stopped = false;
volatile bool worker_stopped = false;
volatile std::uint64_t work_done = 0;

void Complete(const VirtioDevice& device, const VirtioQueue& queue, const char* wrong) {
  device.Set(VirtioDevice::kQueueNotify, 0);
  const std::uint64_t start = ReadTsc();
  while (!queue.AllUsed()) {
    if (ReadTsc() - start > kPatience) {
      Fail("scribble", wrong);
    }
    Pause();
  }
}

// A driver that keeps the rules.
class Disk {
 public:
  Disk(unsigned slot, VirtioQueue& ring) : device_(slot), ring_(ring) { Check(device_.Start(ring)); }
  bool Request(std::uint32_t type, std::uint64_t sector, std::uint64_t* data, const char* wrong) {
    const auto address = [](const volatile void* what) { return reinterpret_cast<std::uint64_t>(what); };
    header_ = {.type = type, .reserved = 0, .sector = sector};
    answer_ = 0xee;
    ring_.descriptors[0] = {
        .address = address(&header_), .size = sizeof(header_), .flags = VirtioQueue::kNext, .next = 1};
    ring_.descriptors[1] = {
        .address = address(data),
        .size = 512,
        .flags = static_cast<std::uint16_t>(VirtioQueue::kNext | (type == 0 ? VirtioQueue::kWrite : 0)),
        .next = 2};
    ring_.descriptors[2] = {.address = address(&answer_), .size = 1, .flags = VirtioQueue::kWrite, .next = 0};
    ring_.Offer();
    Complete(device_, ring_, wrong);
    return answer_ == 0;
  }

 private:
  const VirtioDevice device_;
  VirtioQueue& ring_;
  Header header_{};
  volatile std::uint8_t answer_ = 0;
};

VirtioQueue good_ring;
VirtioQueue victim_ring;
std::uint64_t sector_data[64];

void Work(std::size_t /*index*/) {
  static Disk disk(good_slot, good_ring);
  for (std::uint64_t number = 1; !stop; ++number) {
    for (std::uint64_t& word : sector_data) {
      word = number;
    }
    bool good = disk.Request(1, number % 128, sector_data, "the good disk has stopped");
    for (std::uint64_t& word : sector_data) {
      word = 0;
    }
    good = good && disk.Request(0, number % 128, sector_data, "the good disk has stopped");
    for (const std::uint64_t word : sector_data) {
      good = good && word == number;
    }
    if (!good) {
      Fail("scribble", "the good disk gives an error, or something else");
    }
    work_done = number;
  }
  worker_stopped = true;
  for (;;) {
    Pause();
  }
}

void Scribble(std::size_t /*index*/) {
  Scribbler scribbler(seed + 1);
  while (!stop) {
    scribbler.Step();
  }
  scribbler_stopped = true;
  for (;;) {
    Pause();
  }
}

std::uint8_t Second() {
  Out8(0x70, 0);
  return In8(0x71);
}

void FindVictims() {
  for (unsigned slot = 0; slot < kSlots; ++slot) {
    const VirtioDevice device(slot);
    if (device.Get(VirtioDevice::kMagic) != 0x74726976) {
      break;
    }
    victims[slot].slot = slot;
    victims[slot].id = device.Get(VirtioDevice::kDeviceId);
    good_slot = victims[slot].id == kDisk ? slot : good_slot;
    ++victim_count;
  }
  if (victim_count < 2 || good_slot == 0) {
    Fail("scribble", "two disks are needed");
  }
  victims[good_slot] = {.slot = victims[victim_count - 1].slot, .id = victims[victim_count - 1].id};
  --victim_count;
}

void CheckWorks(const Victim& victim) {
  if (victim.id == kDisk) {
    Disk disk(victim.slot, victim_ring);
    if (!disk.Request(0, 0, sector_data, "a disk does not work any more")) {
      Fail("scribble", "a disk gives an error");
    }
    return;
  }
  Check(victim.device().Start(victim_ring));
  if (victim.id == kEntropy) {
    victim_ring.descriptors[0] = {.address = reinterpret_cast<std::uint64_t>(sector_data),
                                  .size = sizeof(sector_data),
                                  .flags = VirtioQueue::kWrite,
                                  .next = 0};
    victim_ring.Offer();
    Complete(victim.device(), victim_ring, "the entropy device does not work any more");
  }
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  seed = ParseDecimal(boot.cmdline);
  const char* duration = boot.cmdline;
  while (*duration != ' ' && *duration != '\0') {
    ++duration;
  }
  const std::uint64_t seconds = *duration == ' ' ? ParseDecimal(duration + 1) : 1;
  FindVictims();
  apic::Enable();
  const ProcessorList processors = FindProcessors(boot);
  if (processors.count < 3) {
    Fail("scribble", "three processors are needed");
  }
  std::size_t started = 0;
  for (std::size_t i = 0; i < processors.count && started < 2; ++i) {
    if (processors.apic_id[i] != apic::Id()) {
      ++started;
      if (!StartProcessor(processors.apic_id[i], started == 1 ? Work : Scribble, started)) {
        Fail("scribble", "a processor does not start");
      }
    }
  }
  Print("begin\n");
  Scribbler scribbler(seed);
  std::uint64_t steps = 0;
  std::uint64_t passed = 0;
  for (std::uint8_t now = Second(); passed < seconds; ++steps) {
    scribbler.Step();
    if (steps % 16 == 0) {
      const std::uint8_t second = Second();
      passed += second != now ? 1 : 0;
      now = second;
    }
  }
  stop = true;
  while (!scribbler_stopped || !worker_stopped) {
    Pause();
  }
  for (std::size_t i = 0; i < victim_count; ++i) {
    CheckWorks(victims[i]);
    Print("slot ", victims[i].slot, " device ", victims[i].id, " needed a reset ",
          std::uint64_t{victims[i].needed_reset}, '\n');
  }
  Print("steps ", steps, " work ", std::uint64_t{work_done}, "\nscribbled\n");
  // Until the host has seen enough.
  while ((In8(kSerialPort + 5) & 1) == 0) {
    Pause();
  }
  Pass("scribble");
}
