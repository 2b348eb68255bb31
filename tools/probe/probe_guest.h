// The probe's guest: 64-bit ring-0 code that counts a loop down and then runs, in groups, instructions that
// every stock kernel runs before its first process. It tells its progress by bytes on a port.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace gyre::probe {

// Guest-physical addresses of what the host lays out; everything is in the first 2 MiB, mapped one to one.
inline constexpr std::uint64_t kPml4 = 0x1000;
inline constexpr std::uint64_t kPdpt = 0x2000;
inline constexpr std::uint64_t kPageDirectory = 0x3000;
inline constexpr std::uint64_t kGdt = 0x4000;
inline constexpr std::uint64_t kIdt = 0x5000;
inline constexpr std::uint64_t kTss = 0x6000;
inline constexpr std::uint64_t kCode = 0x8000;
inline constexpr std::uint64_t kStack = 0x20000;    // ring 0, grows down
inline constexpr std::uint64_t kMemory = 0x200000;  // bytes

// Selectors in the GDT; their order is the one that SYSRET wants.
inline constexpr std::uint16_t kKernelCs = 0x08;
inline constexpr std::uint16_t kKernelDs = 0x10;
inline constexpr std::uint16_t kUserDs = 0x18 | 3;
inline constexpr std::uint16_t kUserCs = 0x20 | 3;
inline constexpr std::uint16_t kTssSelector = 0x28;

inline constexpr std::uint16_t kProgressPort = 0xe9;
inline constexpr std::uint64_t kLoopInstructions = 1'000'000;

// What the guest writes to the port when a group is behind it, in this order.
enum class Progress : std::uint8_t {
  kNothing = 0,
  kLoop = 1,         // the timed loop
  kTables = 2,       // lgdt, lidt, ltr, CR3 reload, invlpg
  kRegisters = 3,    // rdmsr, wrmsr, swapgs, cpuid, rdtsc
  kInterrupts = 4,   // int n and int3 through gates, iretq, pushfq, popfq, sti
  kData = 5,         // fxsave, SSE moves, locked and wide exchanges
  kSystemCalls = 6,  // iretq to ring 3, syscall, sysretq
};
inline constexpr Progress kLastProgress = Progress::kSystemCalls;
const char* GroupName(Progress progress);  // of the group that ends with it

std::span<const std::byte> GuestCode();      // to be placed at kCode, and entered there
std::uint64_t GateAddress(unsigned vector);  // guest address of a vector's handler, 0 where it has none

}  // namespace gyre::probe
