// Port and MMIO accesses of every width, where nobody is and where somebody is.
#include <initializer_list>

#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint16_t kEmptyPort = 0x5670;
constexpr std::uint16_t kScratch = kSerialPort + 7;  // the UART's scratch register
constexpr std::uint64_t kEmpty = 0xd0000000;         // in the gap below 4 GiB
constexpr std::uint64_t kEmptyHigh = 0x1f0000000;    // far above RAM

void Expect(bool holds, const char* what) {
  if (!holds) {
    Fail("access", what);
  }
}

void TestEmptyPorts() {
  for (std::uint16_t at = 0; at < 4; ++at) {
    const auto port = static_cast<std::uint16_t>(kEmptyPort + at);
    Out8(port, 0x12);
    Out16(port, 0x1234);
    Out32(port, 0x12345678);
    Expect(In8(port) == 0xff, "an empty port, 1 byte");
    Expect(In16(port) == 0xffff, "an empty port, 2 bytes");
    Expect(In32(port) == 0xffffffff, "an empty port, 4 bytes");
  }
  Expect(In8(0xffff) == 0xff, "the last port");
  Print("empty ports\n");
}

void TestDevicePorts() {
  constexpr std::uint8_t kValues[] = {0x00, 0x5a, 0xff};
  for (const std::uint8_t value : kValues) {
    Out8(kScratch, value);
    Expect(In8(kScratch) == value, "a register, 1 byte");
    Expect(In16(kScratch - 1) >> 8 == value, "two registers in one read");
    Expect(In32(kScratch - 3) >> 24 == value, "four registers in one read");
    Expect(In16(kScratch) == (0xff00 | value), "a register and an empty port in one read");
  }
  Out16(kScratch - 1, 0x3c00);
  Expect(In8(kScratch) == 0x3c, "two registers in one write");
  Print("device ports\n");
}

void TestStringPorts() {
  static std::uint32_t words[16];
  static std::uint8_t bytes[8];
  std::uint64_t count = 16;
  const void* to = words;
  asm volatile("cld\n\trep insl" : "+D"(to), "+c"(count) : "d"(kEmptyPort) : "memory");
  for (const std::uint32_t word : words) {
    Expect(word == 0xffffffff, "rep ins from an empty port");
  }
  Out8(kScratch, 0xa5);
  to = bytes;
  count = 8;
  asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(kScratch) : "memory");
  for (const std::uint8_t byte : bytes) {
    Expect(byte == 0xa5, "rep ins from a register");
  }
  const void* from = "string ports\n";
  count = 13;
  asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(kSerialPort) : "memory");
}

void TestEmptyMemory(std::uint64_t base) {
  // From every offset that crosses words, and over a page's end.
  for (const std::uint64_t start : {base, base + 0xff8}) {
    for (std::uint64_t at = start; at < start + 8; ++at) {
      Write<std::uint8_t>(at, 1);
      Write<std::uint16_t>(at, 2);
      Write<std::uint32_t>(at, 3);
      Write<std::uint64_t>(at, 4);
      Expect(Read<std::uint8_t>(at) == 0xff, "empty memory, 1 byte");
      Expect(Read<std::uint16_t>(at) == 0xffff, "empty memory, 2 bytes");
      Expect(Read<std::uint32_t>(at) == 0xffffffff, "empty memory, 4 bytes");
      Expect(Read<std::uint64_t>(at) == ~std::uint64_t{0}, "empty memory, 8 bytes");
    }
  }
}

void TestDeviceMemory() {
  IoApicWrite(0x12, 0x10055);  // pin 1, masked
  Expect((IoApicRead(0x12) & 0x100ff) == 0x10055, "an IOAPIC register");
  Expect((IoApicRead(0x01) >> 16 & 0xff) >= 23, "the IOAPIC's pins");
  Expect((IoApicRead(0x01) & 0xff) >= 0x11, "the IOAPIC's version");
  Print("device memory\n");
}

// The end of RAM below the gap: one access, half of it RAM.
void TestRamEnd(const BootInfo& boot) {
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < boot.ranges; ++i) {
    const std::uint64_t range_end = boot.range[i].start + boot.range[i].size;
    if (boot.range[i].type == 1 && range_end <= 0xc0000000 && range_end > end) {
      end = range_end;
    }
  }
  Expect(end >= 0x200000, "no RAM in the memory map");
  Write<std::uint32_t>(end - 4, 0x11223344);
  Write<std::uint64_t>(end - 4, 0x5566778899aabbcc);
  Expect(Read<std::uint32_t>(end - 4) == 0x99aabbcc, "a write over the end of RAM");
  Expect(Read<std::uint64_t>(end - 4) == 0xffffffff99aabbcc, "a read over the end of RAM");
  Expect(Read<std::uint64_t>(end) == ~std::uint64_t{0}, "just after the end of RAM");
  Print("end of RAM\n");
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  TestEmptyPorts();
  TestDevicePorts();
  TestStringPorts();
  TestEmptyMemory(kEmpty);
  TestEmptyMemory(kEmptyHigh);
  Print("empty memory\n");
  TestDeviceMemory();
  TestRamEnd(boot);
  Pass("access");
}
