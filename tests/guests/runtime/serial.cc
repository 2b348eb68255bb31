// Output, and the end.
#include "guest.h"

namespace guest {
namespace {

constexpr std::uint16_t kFifoControl = kSerialPort + 2;
constexpr std::uint16_t kLineControl = kSerialPort + 3;
constexpr std::uint16_t kLineStatus = kSerialPort + 5;
constexpr std::uint8_t kTransmitterEmpty = 0x20;
constexpr unsigned kFifoSize = 16;

bool ready = false;
unsigned room = 0;  // bytes that the FIFO takes for sure

void SendByte(char letter) {
  if (!ready) {
    Out8(kLineControl, 0x03);  // 8 bits, no parity
    Out8(kFifoControl, 0x01);  // FIFOs on
    ready = true;
  }
  if (room == 0) {
    while ((In8(kLineStatus) & kTransmitterEmpty) == 0) {
      Pause();
    }
    room = kFifoSize;
  }
  --room;
  Out8(kSerialPort, static_cast<std::uint8_t>(letter));
}

}  // namespace

void PrintOne(char letter) { SendByte(letter); }

void PrintOne(const char* text) {
  for (; *text != '\0'; ++text) {
    SendByte(*text);
  }
}

void PrintOne(std::uint64_t value) {
  char digits[21];
  char* at = &digits[20];
  *at = '\0';
  do {
    *--at = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  PrintOne(at);
}

void PrintOne(Hex value) {
  PrintOne("0x");
  unsigned shift = 60;
  while (shift > 0 && (value.value >> shift) == 0) {
    shift -= 4;
  }
  for (;; shift -= 4) {
    SendByte("0123456789abcdef"[(value.value >> shift) & 15]);
    if (shift == 0) {
      return;
    }
  }
}

void Exit(std::uint8_t value) {
  Out8(kExitPort, value);
  for (;;) {
    Pause();
  }
}

void Pass(const char* name) {
  Print("PASS ", name, '\n');
  Exit(kExitPass);
}

void Fail(const char* name, const char* what) {
  Print("FAIL ", name, ' ', what, '\n');
  Exit(kExitFail);
}

bool StartsWith(const char* text, const char* start) {
  for (; *start != '\0'; ++start, ++text) {
    if (*text != *start) {
      return false;
    }
  }
  return true;
}

std::uint64_t ParseDecimal(const char* text) {
  std::uint64_t value = 0;
  for (; *text >= '0' && *text <= '9'; ++text) {
    value = value * 10 + static_cast<std::uint64_t>(*text - '0');
  }
  return value;
}

}  // namespace guest

// What compilers call on their own, even freestanding.
extern "C" {

void* memcpy(void* to, const void* from, std::size_t size) {
  void* const start = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return start;
}

void* memset(void* to, int value, std::size_t size) {
  void* const start = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
  return start;
}
}
