// Writes numbered records of 4096 bytes to the disk in the board's first virtio slot, two at a
// time, makes them durable and says so, without end:
//   "flushed N"   every record up to number N was written, and a flush after that was answered
// Record N stands at byte 4096 * N and is 512 times the number. The command line names the first.
#include "runtime/guest.h"
#include "runtime/virtio.h"

using namespace guest;

namespace {

constexpr VirtioDevice disk(0);
constexpr std::uint64_t kRecordSize = 4096;
constexpr std::uint32_t kWriteRequest = 1, kFlushRequest = 4;
constexpr std::uint16_t kChain = 3;  // descriptors
VirtioQueue ring;

struct alignas(4096) Record {
  std::uint64_t words[kRecordSize / 8];
};
struct alignas(16) Header {
  std::uint32_t type, reserved;
  std::uint64_t sector;
};
Record records[2];
Header headers[2];
volatile std::uint8_t answers[2];

std::uint64_t Place(const volatile void* what) { return reinterpret_cast<std::uint64_t>(what); }

// In the ring's `which`th half.
void Offer(std::uint16_t which, std::uint32_t type, std::uint64_t number) {
  const auto head = static_cast<std::uint16_t>(kChain * which);
  const auto status = static_cast<std::uint16_t>(head + 2);
  headers[which] = {.type = type, .reserved = 0, .sector = kRecordSize / 512 * number};
  answers[which] = 0xee;
  ring.descriptors[head] = {.address = Place(&headers[which]),
                            .size = sizeof(Header),
                            .flags = VirtioQueue::kNext,
                            .next = type == kWriteRequest ? static_cast<std::uint16_t>(head + 1) : status};
  ring.descriptors[head + 1] = {
      .address = Place(&records[which]), .size = kRecordSize, .flags = VirtioQueue::kNext, .next = status};
  ring.descriptors[status] = {
      .address = Place(&answers[which]), .size = 1, .flags = VirtioQueue::kWrite, .next = 0};
  ring.Offer(head);
}

void Write(std::uint16_t which, std::uint64_t number) {
  void* to = records[which].words;
  std::uint64_t count = kRecordSize / 8;
  asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(number) : "memory");
  Offer(which, kWriteRequest, number);
}

void Await(unsigned count) {
  disk.Set(VirtioDevice::kQueueNotify, 0);
  while (!ring.AllUsed()) {
    Pause();
  }
  for (unsigned i = 0; i < count; ++i) {
    if (answers[i] != 0) {
      Fail("journal", "a request was refused");
    }
  }
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  if (!disk.Is(2)) {
    Fail("journal", "there is no disk");
  }
  if (const char* const wrong = disk.Start(ring)) {
    Fail("journal", wrong);
  }
  for (std::uint64_t number = ParseDecimal(boot.cmdline);; number += 2) {
    Write(0, number);
    Write(1, number + 1);
    Await(2);
    Offer(0, kFlushRequest, 0);
    Await(1);
    Print("flushed ", number + 1, '\n');
  }
}
