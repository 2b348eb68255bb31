// Does to the disk in the board's first virtio slot what lines on the serial port say, and
// answers each with one:
//   "read SECTOR ADDRESS"   512 bytes there          "read: STATUS FIRSTBYTE"
//   "write SECTOR LETTER"   512 times the letter     "write: STATUS"
//   "flush"                                          "flush: STATUS"
//   "capacity"              sectors, and changes of the configuration so far
//   "quit"
// It polls: an answer is printed when the device has given one, however long that takes.
#include "runtime/guest.h"
#include "runtime/virtio.h"

using namespace guest;

namespace {

constexpr VirtioDevice disk(0);
constexpr std::uint64_t kConfigCapacity = 0x100;
constexpr std::uint32_t kConfigChanged = 2;
VirtioQueue ring;

struct alignas(16) Header {
  std::uint32_t type, reserved;
  std::uint64_t sector;
};
Header header;
alignas(512) std::uint8_t data[512];
volatile std::uint8_t answer;
std::uint64_t changes = 0;

void LookForChanges() {
  const std::uint32_t causes = disk.Get(VirtioDevice::kInterruptStatus);
  if ((causes & kConfigChanged) != 0) {
    ++changes;
    disk.Set(VirtioDevice::kInterruptAck, kConfigChanged);
  }
}

// 1 byte a turn: the port's FIFO holds what comes meanwhile.
bool NextByte(char& letter) {
  if ((In8(kSerialPort + 5) & 0x01) == 0) {
    return false;
  }
  letter = static_cast<char>(In8(kSerialPort));
  return true;
}

std::uint32_t Request(std::uint32_t type, std::uint64_t sector, std::uint64_t address) {
  header = {.type = type, .reserved = 0, .sector = sector};
  answer = 0xee;
  const auto place = [](const volatile void* what) { return reinterpret_cast<std::uint64_t>(what); };
  const bool has_data = type != 4;
  ring.descriptors[0] = {.address = place(&header),
                         .size = sizeof(header),
                         .flags = VirtioQueue::kNext,
                         .next = static_cast<std::uint16_t>(has_data ? 1 : 2)};
  ring.descriptors[1] = {
      .address = address,
      .size = sizeof(data),
      .flags = static_cast<std::uint16_t>(VirtioQueue::kNext | (type == 0 ? VirtioQueue::kWrite : 0)),
      .next = 2};
  ring.descriptors[2] = {.address = place(&answer), .size = 1, .flags = VirtioQueue::kWrite, .next = 0};
  ring.Offer();
  disk.Set(VirtioDevice::kQueueNotify, 0);
  while (!ring.AllUsed()) {
    Pause();
  }
  return answer;
}

const char* NextWord(const char* text) {
  while (*text != ' ' && *text != '\0') {
    ++text;
  }
  return *text == ' ' ? text + 1 : text;
}

bool Execute(const char* line) {
  const char* const first = NextWord(line);
  const char* const second = NextWord(first);
  const std::uint64_t sector = ParseDecimal(first);
  if (StartsWith(line, "read")) {
    const std::uint64_t address = ParseDecimal(second);
    const std::uint32_t status = Request(0, sector, address);
    Print("read: ", status, ' ', static_cast<char>(Read<std::uint8_t>(address)), '\n');
  } else if (StartsWith(line, "write")) {
    for (std::uint8_t& byte : data) {
      byte = static_cast<std::uint8_t>(*second);
    }
    const std::uint32_t status = Request(1, sector, reinterpret_cast<std::uint64_t>(data));
    Print("write: ", status, '\n');
  } else if (StartsWith(line, "flush")) {
    const std::uint32_t status = Request(4, 0, 0);
    Print("flush: ", status, '\n');
  } else if (StartsWith(line, "capacity")) {
    LookForChanges();
    Print("capacity: ", disk.Get(kConfigCapacity), ' ', changes, '\n');
  } else {
    return !StartsWith(line, "quit");
  }
  return true;
}

}  // namespace

void GuestMain(const BootInfo& /*boot*/) {
  static char line[256];
  if (!disk.Is(2)) {
    Fail("disk", "there is none");
  }
  if (const char* const wrong = disk.Start(ring)) {
    Fail("disk", wrong);
  }
  Print("ready\n");
  for (;;) {
    std::size_t size = 0;
    for (char letter = 0; letter != '\n' && size + 1 < sizeof(line);) {
      if (NextByte(letter) && letter != '\n') {
        line[size++] = letter;
      }
    }
    line[size] = '\0';
    if (!Execute(line)) {
      Pass("disk");
    }
  }
}
