// A machine of one vCPU and 1 MiB that runs one of the programs: the two sides of `tools/bench exits`. One
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace gyre::bench {

enum class Program : std::uint8_t {
  kPortReads,    // of kPort, which somebody serves
  kMemoryReads,  // of kRegister, which somebody serves
  kDoorbell,     // writes to kDoorbellAddress, an ioeventfd
  kInterrupts,   // counts once when it is ready and halts; each interrupt counts
  kTurn,         // turns on the spot
};

inline constexpr std::uint16_t kPort = 0x300;
inline constexpr std::uint32_t kRegister = 0xd000'0000;
inline constexpr std::uint32_t kDoorbellAddress = 0xd000'1000;
inline constexpr std::uint32_t kCounter = 0x3000;  // in guest memory: passes, or interrupts
inline constexpr std::uint32_t kCode = 0x1000;
inline constexpr std::uint32_t kStack = 0x8000;
inline constexpr std::uint32_t kGdt = 0x4000;  // CS 0x10, DS 0x18
inline constexpr std::uint16_t kGdtLimit = 31;
inline constexpr std::uint32_t kGsi = 5;
inline constexpr std::uint8_t kVector = 0x31;
inline constexpr std::uint64_t kMsiAddress = 0xfee0'0000;  // to the local APIC with id 0, an edge
inline constexpr std::size_t kRamBytes = 1 << 20;

class Machine {
 public:
  Machine() = default;
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  virtual ~Machine() = default;
  virtual std::uint32_t* counter() const = 0;
  virtual int interrupt() const = 0;  // the irqfd
  // Until the vCPU is out of the guest, and on again.
  virtual void Pause() = 0;
  virtual void Resume() = 0;
};

// The program, tables and all, into guest memory.
void Load(Program program, std::span<std::byte> ram);
[[noreturn]] void Die(const std::string& what);

std::unique_ptr<Machine> NewBare(Program program);
std::unique_ptr<Machine> NewGyre(Program program);

}  // namespace gyre::bench
