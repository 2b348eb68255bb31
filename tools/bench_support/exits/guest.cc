// The guests' code and tables.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "machine.h"

namespace gyre::bench {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint32_t kIdt = 0x5000;
constexpr std::uint32_t kIdtPointer = 0x4800;
constexpr std::uint32_t kHandler = 0x2000;
constexpr std::uint32_t kApicSpurious = 0xfee0'00f0;
constexpr std::uint32_t kApicEnd = 0xfee0'00b0;

Bytes Halt() { return {0xfb, 0xf4, 0xeb, 0xfd}; }  // sti; 1: hlt; jmp 1b

void Add32(Bytes& code, std::uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) {
    code.push_back(static_cast<std::uint8_t>(value >> shift));
  }
}

Bytes With32(std::initializer_list<std::uint8_t> opcode, std::uint32_t value) {
  Bytes code(opcode);
  Add32(code, value);
  return code;
}

void Append(Bytes& code, const Bytes& more) { code.insert(code.end(), more.begin(), more.end()); }

Bytes Count() { return With32({0xff, 0x05}, kCounter); }  // inc dword [kCounter]

// mov dword [address], value
Bytes Store(std::uint32_t address, std::uint32_t value) {
  Bytes code = With32({0xc7, 0x05}, address);
  Add32(code, value);
  return code;
}

// The body and a count for ever.
Bytes Loop(const Bytes& body) {
  Bytes code = body;
  Append(code, Count());
  const auto back = static_cast<std::uint8_t>(-static_cast<int>(code.size()) - 2);
  Append(code, {0xeb, back});
  return code;
}

Bytes Code(Program program) {
  switch (program) {
    case Program::kPortReads: {
      Bytes code{0x66, 0xba, kPort & 0xff, kPort >> 8};  // mov dx, kPort
      Append(code, Loop({0xec}));                        // in al, dx
      return code;
    }
    case Program::kMemoryReads:
      return Loop(With32({0xa1}, kRegister));  // mov eax, [kRegister]
    case Program::kDoorbell:
      return Loop(With32({0xa3}, kDoorbellAddress));  // mov [kDoorbellAddress], eax
    case Program::kInterrupts: {
      Bytes code = Store(kApicSpurious, 0x1ff);               // the APIC is on
      Append(code, With32({0x0f, 0x01, 0x1d}, kIdtPointer));  // lidt
      Append(code, Count());                                  // ready
      Append(code, Halt());
      return code;
    }
    case Program::kTurn:
      return {0xeb, 0xfe};
  }
  return {};
}

void Put(std::span<std::byte> ram, std::uint32_t address, const void* bytes, std::size_t size) {
  std::memcpy(ram.data() + address, bytes, size);
}

}  // namespace

void Load(Program program, std::span<std::byte> ram) {
  const Bytes code = Code(program);
  Put(ram, kCode, code.data(), code.size());
  // It does not return: KVM's emulator, which some hosts run ring 0 by, has no IRET.
  Bytes handler = Count();
  Append(handler, Store(kApicEnd, 0));
  Append(handler, With32({0xbc}, kStack));  // mov esp, kStack
  Append(handler, Halt());
  Put(ram, kHandler, handler.data(), handler.size());
  // Flat code and data (SDM vol. 3, 3.4.5).
  constexpr std::array<std::uint64_t, 4> kDescriptors{0, 0, 0x00cf'9b00'0000'ffff, 0x00cf'9300'0000'ffff};
  Put(ram, kGdt, kDescriptors.data(), sizeof(kDescriptors));
  // A 32-bit interrupt gate (SDM vol. 3, 6.11).
  constexpr std::uint64_t kGate = std::uint64_t{0x8e00} << 32 | std::uint64_t{0x10} << 16 | kHandler;
  Put(ram, kIdt + kVector * 8U, &kGate, sizeof(kGate));
  constexpr std::uint16_t kIdtLimit = (kVector + 1U) * 8U - 1U;
  Put(ram, kIdtPointer, &kIdtLimit, sizeof(kIdtLimit));
  Put(ram, kIdtPointer + 2, &kIdt, sizeof(kIdt));
}

void Die(const std::string& what) {
  std::fprintf(stderr, "gyre-exits-bench: %s\n", what.c_str());
  std::exit(1);
}

}  // namespace gyre::bench
