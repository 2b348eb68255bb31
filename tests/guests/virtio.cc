// Drives the disk in the board's first virtio slot: by its doorbell and its interrupt,
// with a pin that is masked for a while, and with resets while requests are in flight.
#include "runtime/virtio.h"
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint8_t kVector = 0x41;
constexpr std::uint32_t kMasked = 0x10000;
constexpr std::uint64_t kPatience = 60'000'000'000;  // cycles: some ten seconds at least

constexpr VirtioDevice disk(0);
VirtioQueue ring;

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
  if (const char* const wrong = disk.Start(ring)) {
    Fail("virtio", wrong);
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
  ring.Offer();
  disk.Set(VirtioDevice::kQueueNotify, 0);
}

bool IsUsed() { return ring.AllUsed(); }

void Request(std::uint32_t type, std::uint64_t sector, std::uint32_t size) {
  const std::uint32_t before = interrupts;
  Offer(type, sector, size);
  Await("no interrupt", [before] { return interrupts != before; });
  if ((disk.Get(VirtioDevice::kInterruptStatus) & 1) == 0) {
    Fail("virtio", "an interrupt without a cause");
  }
  disk.Set(VirtioDevice::kInterruptAck, 1);
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
  if (!disk.Is(2)) {
    Fail("virtio", "there is no disk");
  }
  apic::Enable();
  SetHandler(kVector, OnInterrupt);
  IoApicRoute(kVirtioPin, kVector, apic::Id());
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
  IoApicWrite(0x10 + 2 * kVirtioPin, kMasked | kVector);
  const std::uint32_t before = interrupts;
  Offer(0, 2, 1024);
  Await("no answer", IsUsed);
  Await("no cause", [] { return disk.Get(VirtioDevice::kInterruptStatus) == 1; });
  if (interrupts != before) {
    Fail("virtio", "an interrupt of a masked pin");
  }
  IoApicWrite(0x10 + 2 * kVirtioPin, kVector);
  Await("the interrupt that was masked did not come", [before] { return interrupts != before; });
  disk.Set(VirtioDevice::kInterruptAck, 1);

  // A device that was reset leaves memory alone, whatever it was doing.
  for (std::uint64_t round = 1; round <= 50; ++round) {
    Offer(round % 2 == 0 ? 0 : 1, 128, kSize);
    // From before the device has seen it until after it is done with it.
    for (const std::uint64_t start = ReadTsc(); ReadTsc() - start < round * 50'000;) {
      Pause();
    }
    Start();
    FillData(round);
    Request(1, 512, 512);
    CheckData(round, kSize);
  }
  Pass("virtio");
}
