// Breaks every rule it can on the virtio disk in the first slot: random registers,
// random rings, resets at random, for as many rounds as the command line says. The
// entropy device in the second slot must work all the while, and the disk once it is used as it should be.
#include "runtime/guest.h"
#include "runtime/virtio.h"

using namespace guest;

namespace {

constexpr std::uint64_t kPatience = 60'000'000'000;  // cycles

VirtioQueue victim_ring;
VirtioQueue entropy_ring;
struct alignas(16) Header {
  std::uint32_t type, reserved;
  std::uint64_t sector;
};
Header header;
alignas(4096) std::uint8_t data[4096];
std::uint8_t answer;

std::uint64_t state = 88172645463325252ULL;
std::uint64_t Random() {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

void Check(const char* wrong) {
  if (wrong != nullptr) {
    Fail("scribble", wrong);
  }
}

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

void CheckEntropy(const VirtioDevice& device) {
  entropy_ring.descriptors[0] = {
      .address = reinterpret_cast<std::uint64_t>(data), .size = 64, .flags = VirtioQueue::kWrite, .next = 0};
  for (std::uint8_t& byte : data) {
    byte = 0;
  }
  entropy_ring.Offer();
  Complete(device, entropy_ring, "the other device has stopped");
  unsigned sum = 0;
  for (const std::uint8_t byte : data) {
    sum += byte;
  }
  if (sum == 0) {
    Fail("scribble", "the other device gives nothing");
  }
}

void OfferRead(unsigned size) {
  const auto address = [](const void* what) { return reinterpret_cast<std::uint64_t>(what); };
  header = {.type = 0, .reserved = 0, .sector = 0};
  victim_ring.descriptors[0] = {
      .address = address(&header), .size = sizeof(header), .flags = VirtioQueue::kNext, .next = 1};
  victim_ring.descriptors[1] = {
      .address = address(data), .size = size, .flags = VirtioQueue::kNext | VirtioQueue::kWrite, .next = 2};
  victim_ring.descriptors[2] = {
      .address = address(&answer), .size = 1, .flags = VirtioQueue::kWrite, .next = 0};
  victim_ring.Offer();
}

// A write of the disk's may go wherever a descriptor says, so the addresses stay in our data.
void ScribbleRing() {
  VirtioQueue::Descriptor& descriptor = victim_ring.descriptors[Random() % VirtioQueue::kEntries];
  switch (Random() % 6) {
    case 0:
      descriptor.address = Random() % 2 == 0 ? 0xfe000000 + Random() % 0x2000000 : ~Random();
      break;
    case 1:
      descriptor.size = Random() % 2 == 0 ? static_cast<std::uint32_t>(Random()) | 0x40000000 : 0;
      break;
    case 2:
      descriptor.flags = static_cast<std::uint16_t>(Random());
      break;
    case 3:
      descriptor.next = static_cast<std::uint16_t>(Random() % 16);
      break;
    case 4:
      victim_ring.available.index = static_cast<std::uint16_t>(victim_ring.available.index + Random() % 12);
      break;
    default:
      victim_ring.available.ring[Random() % VirtioQueue::kEntries] =
          static_cast<std::uint16_t>(Random() % 12);
      break;
  }
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  const VirtioDevice victim(0);
  const VirtioDevice entropy(1);
  if (!victim.Is(2) || !entropy.Is(4)) {
    Fail("scribble", "the devices are others");
  }
  Check(entropy.Start(entropy_ring));
  const std::uint64_t rounds = ParseDecimal(boot.cmdline);
  for (std::uint64_t round = 0; round < rounds; ++round) {
    Check(victim.Start(victim_ring));
    for (std::uint64_t steps = Random() % 20; steps != 0; --steps) {
      switch (Random() % 4) {
        case 0:
          OfferRead(static_cast<unsigned>(Random() % 8) * 512);
          break;
        case 1:
          ScribbleRing();
          break;
        case 2: {
          // Not the addresses of the ring: it would be written wherever they point.
          const std::uint64_t offset = Random() % VirtioDevice::kQueueDesc & ~3ULL;
          victim.Set(offset, static_cast<std::uint32_t>(Random() % 2 == 0 ? Random() % 32 : Random()));
          break;
        }
        default:
          victim.Set(VirtioDevice::kQueueNotify, 0);
          break;
      }
    }
    CheckEntropy(entropy);
  }
  Check(victim.Start(victim_ring));
  answer = 0xee;
  OfferRead(512);
  Complete(victim, victim_ring, "the disk does not work any more");
  if (answer != 0) {
    Fail("scribble", "the disk gives an error");
  }
  Pass("scribble");
}
