// Drives the disk in the board's first virtio slot: by its doorbell and its interrupt,
// with a pin that is masked for a while, and with resets while requests are in flight.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint64_t kDevice = 0xfeb00000;
constexpr unsigned kPin = 24;
constexpr std::uint8_t kVector = 0x41;
constexpr std::uint32_t kMasked = 0x10000;
constexpr std::uint64_t kPatience = 60'000'000'000;  // cycles: some ten seconds at least

// virtio 1.2, 4.2.2.
constexpr std::uint64_t kDriverFeatures = 0x20, kDriverFeaturesSel = 0x24, kQueueNum = 0x38,
                        kQueueReady = 0x44, kQueueNotify = 0x50, kInterruptStatus = 0x60,
                        kInterruptAck = 0x64, kStatus = 0x70, kQueueDesc = 0x80, kQueueDriver = 0x90,
                        kQueueDevice = 0xa0;

// 2.7: a split ring of 8.
constexpr std::size_t kEntries = 8;
struct Descriptor {
  std::uint64_t address;
  std::uint32_t size;
  std::uint16_t flags, next;
};
struct alignas(4096) Ring {
  Descriptor descriptors[kEntries];
  struct {
    std::uint16_t flags, index, ring[kEntries], event;
  } available;
  struct alignas(4) {
    std::uint16_t flags, index;
    struct {
      std::uint32_t id, written;
    } ring[kEntries];
  } used;
};
Ring ring;

struct alignas(16) Header {
  std::uint32_t type, reserved;
  std::uint64_t sector;
};
Header header;
constexpr std::uint32_t kSize = 65536;
alignas(4096) std::uint64_t data[kSize / 8];
std::uint8_t answer;

volatile std::uint32_t interrupts;

void OnInterrupt(InterruptFrame& frame) {
  (void)frame;
  interrupts = interrupts + 1;
  apic::EndOfInterrupt();
}

std::uint32_t Get(std::uint64_t offset) { return Read<std::uint32_t>(kDevice + offset); }
void Set(std::uint64_t offset, std::uint32_t value) { Write<std::uint32_t>(kDevice + offset, value); }
void SetAddress(std::uint64_t offset, const void* what) {
  const auto address = reinterpret_cast<std::uint64_t>(what);
  Set(offset, static_cast<std::uint32_t>(address));
  Set(offset + 4, static_cast<std::uint32_t>(address >> 32));
}

template <typename Done>
void Await(const char* what, Done done) {
  const std::uint64_t start = ReadTsc();
  while (!done()) {
    if (ReadTsc() - start > kPatience) {
      Fail("virtio", what);
    }
    Pause();
  }
}

void Start() {
  Set(kStatus, 0);
  if (Get(kStatus) != 0) {
    Fail("virtio", "a reset was not complete when its write returned");
  }
  auto* const bytes = reinterpret_cast<volatile std::uint8_t*>(&ring);
  for (std::size_t i = 0; i < sizeof(ring); ++i) {
    bytes[i] = 0;
  }
  Set(kStatus, 1);
  Set(kStatus, 3);
  Set(kDriverFeaturesSel, 1);
  Set(kDriverFeatures, 1);  // VERSION_1
  Set(kStatus, 11);
  Set(kQueueNum, kEntries);
  SetAddress(kQueueDesc, ring.descriptors);
  SetAddress(kQueueDriver, &ring.available);
  SetAddress(kQueueDevice, &ring.used);
  Set(kQueueReady, 1);
  Set(kStatus, 15);
  if (Get(kStatus) != 15) {
    Fail("virtio", "the device does not come up");
  }
}

void Offer(std::uint32_t type, std::uint64_t sector, std::uint32_t size) {
  header = {.type = type, .reserved = 0, .sector = sector};
  answer = 0xee;
  const auto address = [](const void* what) { return reinterpret_cast<std::uint64_t>(what); };
  ring.descriptors[0] = {.address = address(&header), .size = sizeof(header), .flags = 1, .next = 1};
  ring.descriptors[1] = {.address = address(data),
                         .size = size,
                         .flags = static_cast<std::uint16_t>(type == 0 ? 3 : 1),
                         .next = 2};
  ring.descriptors[2] = {.address = address(&answer), .size = 1, .flags = 2, .next = 0};
  ring.available.ring[ring.available.index % kEntries] = 0;
  __atomic_store_n(&ring.available.index, static_cast<std::uint16_t>(ring.available.index + 1),
                   __ATOMIC_SEQ_CST);
  Set(kQueueNotify, 0);
}

bool IsUsed() { return __atomic_load_n(&ring.used.index, __ATOMIC_SEQ_CST) == ring.available.index; }

void Request(std::uint32_t type, std::uint64_t sector, std::uint32_t size) {
  const std::uint32_t before = interrupts;
  Offer(type, sector, size);
  Await("no interrupt", [before] { return interrupts != before; });
  if ((Get(kInterruptStatus) & 1) == 0) {
    Fail("virtio", "an interrupt without a cause");
  }
  Set(kInterruptAck, 1);
  Await("an interrupt without a used chain", IsUsed);
  if (answer != 0) {
    Fail("virtio", "an error");
  }
}

void CheckData(std::uint64_t word, std::uint32_t size) {
  for (std::uint32_t i = 0; i < size / 8; ++i) {
    if (data[i] != word + i) {
      Fail("virtio", "the disk gives back something else");
    }
  }
}

void FillData(std::uint64_t word) {
  for (std::uint64_t& place : data) {
    place = word++;
  }
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  (void)boot;
  if (Get(0) != 0x74726976 || Get(8) != 2) {
    Fail("virtio", "there is no disk");
  }
  apic::Enable();
  SetHandler(kVector, OnInterrupt);
  IoApicRoute(kPin, kVector, apic::Id());
  EnableInterrupts();
  Start();

  for (std::uint64_t round = 1; round <= 50; ++round) {
    FillData(round << 32);
    Request(1, 2 * round, 1024);
    FillData(0);
    Request(0, 2 * round, 1024);
    CheckData(round << 32, 1024);
  }

  // An interrupt that the mask has swallowed comes once it is taken away.
  IoApicWrite(0x10 + 2 * kPin, kMasked | kVector);
  const std::uint32_t before = interrupts;
  Offer(0, 2, 1024);
  Await("no answer", IsUsed);
  Await("no cause", [] { return Get(kInterruptStatus) == 1; });
  if (interrupts != before) {
    Fail("virtio", "an interrupt of a masked pin");
  }
  IoApicWrite(0x10 + 2 * kPin, kVector);
  Await("the interrupt that was masked did not come", [before] { return interrupts != before; });
  Set(kInterruptAck, 1);

  // A device that was reset leaves memory alone, whatever it was doing.
  for (std::uint64_t round = 1; round <= 50; ++round) {
    Offer(0, 128, kSize);
    Start();
    FillData(round);
    Request(1, 512, 512);
    CheckData(round, kSize);
  }
  Pass("virtio");
}
