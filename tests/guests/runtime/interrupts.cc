// Interrupt gates, calls into ring 0, and the start in ring 3.
#include "guest.h"

namespace guest {
namespace {

struct Gate {
  std::uint16_t offset_low = 0;
  std::uint16_t selector = 0;
  std::uint16_t flags = 0;
  std::uint16_t offset_middle = 0;
  std::uint32_t offset_high = 0;
  std::uint32_t reserved = 0;
};

constexpr std::uint16_t kInterruptGate = 0x8e00;
constexpr std::uint16_t kInterruptGateForRing3 = 0xee00;
constexpr unsigned kBreakpoint = 3;
constexpr unsigned kInvalidOpcode = 6;
constexpr unsigned kSpuriousVector = 0xff;
constexpr std::uint64_t kInterruptFlag = 0x200;

}  // namespace
}  // namespace guest

extern "C" {
extern guest::Gate interrupt_gates[256];
extern const std::uint8_t interrupt_stubs[];
extern const std::uint8_t call_ring0_fault[];
void HandleInterrupt(guest::InterruptFrame& frame);
[[noreturn]] void GuestStart();
}

namespace guest {
namespace {

Handler handlers[256];

[[noreturn]] void ReportException(const InterruptFrame& frame) {
  std::uint64_t address = 0;
  asm volatile("mov %%cr2, %0" : "=r"(address));
  Print("\nFAIL exception ", frame.vector, " error ", Hex{frame.error}, " rip ", Hex{frame.rip}, " cs ",
        Hex{frame.cs}, " address ", Hex{address}, '\n');
  Exit(kExitException);
}

std::uint64_t SetInterruptFlag(std::uint64_t /*argument*/, InterruptFrame& frame) {
  frame.rflags |= kInterruptFlag;
  return 0;
}

std::uint64_t Halt(std::uint64_t /*argument*/, InterruptFrame& /*frame*/) {
  asm volatile("sti\n\thlt\n\tcli" : : : "memory");
  return 0;
}

std::uint64_t DoReadMsr(std::uint64_t argument, InterruptFrame& /*frame*/) {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(static_cast<std::uint32_t>(argument)));
  return (std::uint64_t{high} << 32) | low;
}

struct MsrWrite {
  std::uint32_t index;
  std::uint64_t value;
};

std::uint64_t DoWriteMsr(std::uint64_t argument, InterruptFrame& /*frame*/) {
  const auto& write = *reinterpret_cast<const MsrWrite*>(argument);
  const auto low = static_cast<std::uint32_t>(write.value);
  const auto high = static_cast<std::uint32_t>(write.value >> 32);
  asm volatile("wrmsr" : : "a"(low), "d"(high), "c"(write.index) : "memory");
  return 0;
}

std::uint64_t DoCpuid(std::uint64_t argument, InterruptFrame& /*frame*/) {
  auto& registers = *reinterpret_cast<CpuidResult*>(argument);
  asm volatile("cpuid" : "+a"(registers.eax), "=b"(registers.ebx), "+c"(registers.ecx), "=d"(registers.edx));
  return 0;
}

}  // namespace

void SetHandler(unsigned vector, Handler handler) { handlers[vector] = handler; }
void EnableInterrupts() { CallRing0(SetInterruptFlag, 0); }
void WaitForInterrupt() { CallRing0(Halt, 0); }
std::uint64_t ReadMsr(std::uint32_t index) { return CallRing0(DoReadMsr, index); }

void WriteMsr(std::uint32_t index, std::uint64_t value) {
  const MsrWrite write{index, value};
  CallRing0(DoWriteMsr, reinterpret_cast<std::uint64_t>(&write));
}

CpuidResult Cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  CpuidResult registers{leaf, 0, subleaf, 0};
  CallRing0(DoCpuid, reinterpret_cast<std::uint64_t>(&registers));
  return registers;
}

}  // namespace guest

void HandleInterrupt(guest::InterruptFrame& frame) {
  if (const guest::Handler handler = guest::handlers[frame.vector]; handler != nullptr) {
    handler(frame);
    return;
  }
  if (frame.vector == guest::kInvalidOpcode &&
      frame.rip == reinterpret_cast<std::uint64_t>(call_ring0_fault)) {
    frame.rip += 2;  // past the ud2
    frame.rax = reinterpret_cast<guest::Ring0Function>(frame.rdi)(frame.rsi, frame);
    return;
  }
  if (frame.vector != guest::kSpuriousVector) {
    guest::ReportException(frame);
  }
}

void GuestStart() {
  for (unsigned vector = 0; vector < 256; ++vector) {
    const auto stub = reinterpret_cast<std::uint64_t>(interrupt_stubs) + std::uint64_t{vector} * 16;
    interrupt_gates[vector] = {
        .offset_low = static_cast<std::uint16_t>(stub),
        .selector = KERNEL_CODE64,
        .flags = vector == guest::kBreakpoint ? guest::kInterruptGateForRing3 : guest::kInterruptGate,
        .offset_middle = static_cast<std::uint16_t>(stub >> 16),
        .offset_high = static_cast<std::uint32_t>(stub >> 32),
    };
  }
  GuestMain(guest::GetBootInfo());
}
