// What a freestanding guest has to work with: it starts at GuestMain, in ring 3
// of 64-bit mode, with the first 8 GiB mapped to themselves, every port open and
// interrupts off. Interrupt handlers and functions given to CallRing0 run in
// ring 0, which some hosts interpret: keep them short. No SSE, no libc.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

namespace guest {

// ---- Ports and memory-mapped registers

inline std::uint8_t In8(std::uint16_t port) {
  std::uint8_t value = 0;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline std::uint16_t In16(std::uint16_t port) {
  std::uint16_t value = 0;
  asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline std::uint32_t In32(std::uint16_t port) {
  std::uint32_t value = 0;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline void Out8(std::uint16_t port, std::uint8_t value) {
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline void Out16(std::uint16_t port, std::uint16_t value) {
  asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline void Out32(std::uint16_t port, std::uint32_t value) {
  asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

// One access of T's width, at any alignment.
template <typename T>
T Read(std::uint64_t address) {
  T value = 0;
  asm volatile("mov %1, %0" : "=r"(value) : "m"(*reinterpret_cast<const T*>(address)) : "memory");
  return value;
}
template <>
inline std::uint8_t Read<std::uint8_t>(std::uint64_t address) {
  std::uint8_t value = 0;
  asm volatile("mov %1, %0" : "=q"(value) : "m"(*reinterpret_cast<const std::uint8_t*>(address)) : "memory");
  return value;
}
template <typename T>
void Write(std::uint64_t address, T value) {
  asm volatile("mov %1, %0" : "=m"(*reinterpret_cast<T*>(address)) : "r"(value) : "memory");
}

inline void Pause() { asm volatile("pause" : : : "memory"); }
inline std::uint64_t ReadTsc() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (std::uint64_t{high} << 32) | low;
}

// ---- Output on the serial port, and the end

inline constexpr std::uint16_t kSerialPort = 0x3f8;
inline constexpr std::uint16_t kExitPort = 0xf4;
inline constexpr std::uint16_t kMarkPort = 0x80;

// Values for the exit port: the host sees (value << 1) | 1.
inline constexpr std::uint8_t kExitPass = 21;       // status 43
inline constexpr std::uint8_t kExitFail = 22;       // status 45
inline constexpr std::uint8_t kExitException = 23;  // status 47

struct Hex {
  std::uint64_t value;
};

void PrintOne(char letter);
void PrintOne(const char* text);
void PrintOne(std::uint64_t value);
void PrintOne(Hex value);
inline void PrintOne(std::uint32_t value) { PrintOne(std::uint64_t{value}); }
inline void PrintOne(int value) { PrintOne(static_cast<std::uint64_t>(value)); }

template <typename... Parts>
void Print(Parts... parts) {
  (PrintOne(parts), ...);
}

[[noreturn]] void Exit(std::uint8_t value);
// "PASS name" or "FAIL name what", and the end.
[[noreturn]] void Pass(const char* name);
[[noreturn]] void Fail(const char* name, const char* what);

bool StartsWith(const char* text, const char* start);
// A decimal number; stops at the first other character.
std::uint64_t ParseDecimal(const char* text);

// ---- What the boot loader handed over

struct MemoryRange {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
  std::uint32_t type = 0;  // 1: RAM
};
struct Module {
  std::uint64_t start = 0;
  std::uint64_t size = 0;
  const char* cmdline = "";
};
struct BootInfo {
  std::uint32_t protocol = 0;  // PROTOCOL_*
  const char* cmdline = "";
  std::uint64_t rsdp = 0;
  std::size_t ranges = 0;
  MemoryRange range[64];
  std::size_t modules = 0;
  Module module[8];
};
const BootInfo& GetBootInfo();

// ---- Ring 0 and interrupts

struct InterruptFrame {
  std::uint64_t rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11;
  std::uint64_t vector, error;
  std::uint64_t rip, cs, rflags, rsp, ss;
};
using Handler = void (*)(InterruptFrame& frame);
using Ring0Function = std::uint64_t (*)(std::uint64_t argument, InterruptFrame& frame);

void SetHandler(unsigned vector, Handler handler);
void EnableInterrupts();
// Sleeps until an interrupt has been served. Interrupts on.
void WaitForInterrupt();
std::uint64_t ReadMsr(std::uint32_t index);
void WriteMsr(std::uint32_t index, std::uint64_t value);
struct CpuidResult {
  std::uint32_t eax, ebx, ecx, edx;
};
// In ring 0, where every KVM answers with what the VMM has set.
CpuidResult Cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0);

// ---- Interrupt controllers

inline constexpr std::uint64_t kLocalApic = 0xfee00000;
inline constexpr std::uint64_t kIoApic = 0xfec00000;

namespace apic {
inline constexpr std::uint32_t kId = 0x20;
inline constexpr std::uint32_t kEndOfInterrupt = 0xb0;
inline constexpr std::uint32_t kSpurious = 0xf0;
inline constexpr std::uint32_t kCommandLow = 0x300;
inline constexpr std::uint32_t kCommandHigh = 0x310;
inline constexpr std::uint32_t kTimer = 0x320;
inline constexpr std::uint32_t kLint0 = 0x350;
inline constexpr std::uint32_t kInitialCount = 0x380;
inline constexpr std::uint32_t kCurrentCount = 0x390;
inline constexpr std::uint32_t kDivide = 0x3e0;

// On, with spurious vector 0xff and the 8259s' line off.
void Enable();
std::uint32_t Id();
inline std::uint32_t Get(std::uint32_t reg) { return Read<std::uint32_t>(kLocalApic + reg); }
inline void Set(std::uint32_t reg, std::uint32_t value) { Write<std::uint32_t>(kLocalApic + reg, value); }
inline void EndOfInterrupt() { Set(kEndOfInterrupt, 0); }
void SendIpi(std::uint32_t apic_id, std::uint8_t vector);
}  // namespace apic

std::uint32_t IoApicRead(std::uint8_t index);
void IoApicWrite(std::uint8_t index, std::uint32_t value);
// Edge, active high, fixed delivery to one processor; not masked.
void IoApicRoute(unsigned pin, std::uint8_t vector, std::uint32_t apic_id);

// ---- Processors

inline constexpr std::size_t kMaxProcessors = MAX_PROCESSORS;
struct ProcessorList {
  std::size_t count = 0;
  std::uint32_t apic_id[kMaxProcessors];
};

// An ACPI table by signature, its checksum right; null if there is none.
const std::uint8_t* FindAcpiTable(std::uint64_t rsdp, const char* signature);
// Writes a byte to the register that the FADT describes at `offset` (a generic
// address structure, ACPI 6.4, 5.2.3.2); false if there is none.
bool WriteFadtRegister(std::uint64_t rsdp, std::size_t offset, std::uint8_t value);
// By ACPI; a guest that goes on has failed.
[[noreturn]] void PowerOff(const char* guest, const BootInfo& boot);
// Enabled processors of the MADT, or of an MP table where there is no ACPI.
ProcessorList FindProcessors(const BootInfo& boot);
// Starts it by INIT and start-up IPIs; false if it did not come within a second
// or so. `main` runs in ring 3 with interrupts off and must not return.
bool StartProcessor(std::uint32_t apic_id, void (*main)(std::size_t index), std::size_t index);

// Spins a processor in ring 3; small critical sections only.
class SpinLock {
 public:
  void Lock() {
    while (__atomic_exchange_n(&taken_, true, __ATOMIC_ACQUIRE)) {
      Pause();
    }
  }
  void Unlock() { __atomic_store_n(&taken_, false, __ATOMIC_RELEASE); }

 private:
  bool taken_ = false;
};

}  // namespace guest

extern "C" {
// The guest's own.
[[noreturn]] void GuestMain(const guest::BootInfo& boot);
// Runs `function` in ring 0, as the handler of a fault.
std::uint64_t CallRing0(guest::Ring0Function function, std::uint64_t argument);
}
