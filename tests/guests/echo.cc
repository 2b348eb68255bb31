// Reads lines from the UART by interrupt and sends each back, until "quit".
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr unsigned kSerialPin = 4;
constexpr std::uint8_t kSerialVector = 0x24;
constexpr std::uint32_t kBufferSize = 1 << 16;

std::uint8_t buffer[kBufferSize];
volatile std::uint32_t received = 0;
volatile std::uint32_t interrupts = 0;
std::uint32_t consumed = 0;

void OnSerial(InterruptFrame& /*frame*/) {
  interrupts = interrupts + 1;
  while ((In8(kSerialPort + 5) & 0x01) != 0) {  // data ready
    buffer[received % kBufferSize] = In8(kSerialPort);
    received = received + 1;
  }
  apic::EndOfInterrupt();
}

char NextByte() {
  while (received == consumed) {
    Pause();
  }
  return static_cast<char>(buffer[consumed++ % kBufferSize]);
}

}  // namespace

void GuestMain(const BootInfo& /*boot*/) {
  static char line[kBufferSize];
  Print("ready\n");
  SetHandler(kSerialVector, OnSerial);
  apic::Enable();
  IoApicRoute(kSerialPin, kSerialVector, apic::Id());
  EnableInterrupts();
  Out8(kSerialPort + 4, 0x0b);  // DTR, RTS and OUT2, which lets the interrupt through
  Out8(kSerialPort + 1, 0x01);  // on received data
  for (;;) {
    std::size_t size = 0;
    for (char letter = NextByte(); letter != '\n' && size + 1 < sizeof(line); letter = NextByte()) {
      line[size++] = letter;
    }
    line[size] = '\0';
    if (size == 4 && StartsWith(line, "quit")) {
      break;
    }
    Print("echo: ", line, '\n');
  }
  Print("bytes ", std::uint32_t{received}, " interrupts ", std::uint32_t{interrupts}, '\n');
  Pass("echo");
}
