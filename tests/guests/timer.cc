// Local APIC timer: periodic, then by TSC deadline, into ring 3.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint8_t kVector = 0x50;
constexpr std::uint32_t kPeriodic = 0x20000;
constexpr std::uint32_t kTscDeadline = 0x40000;
constexpr std::uint32_t kMsrTscDeadline = 0x6e0;
constexpr std::uint32_t kTicks = 20;
constexpr std::uint32_t kCount = 1'000'000;  // 1 ms on KVM's 1 GHz bus
constexpr std::uint64_t kPatience = 20'000'000'000;

volatile std::uint32_t fired;
volatile std::uint64_t fired_at;

void OnTimer(InterruptFrame& /*frame*/) {
  fired_at = ReadTsc();
  fired = fired + 1;
  apic::EndOfInterrupt();
}

void WaitFor(std::uint32_t count, const char* otherwise) {
  const std::uint64_t start = ReadTsc();
  while (fired < count) {
    if (ReadTsc() - start > kPatience) {
      Fail("timer", otherwise);
    }
    Pause();
  }
}

// kHz of TSC and APIC timer, where the hypervisor says (leaf 0x40000010).
struct Frequencies {
  std::uint32_t tsc = 0;
  std::uint32_t apic = 0;
};

Frequencies ReadFrequencies() {
  constexpr std::uint32_t kHypervisor = 0x40000000;
  if (Cpuid(kHypervisor).eax < kHypervisor + 0x10) {
    return {};
  }
  const CpuidResult leaf = Cpuid(kHypervisor + 0x10);
  return {leaf.eax, leaf.ebx};
}

void TestPeriodic(const Frequencies& frequencies) {
  const std::uint64_t start = ReadTsc();
  apic::Set(apic::kDivide, 0x0b);  // by 1
  apic::Set(apic::kTimer, kPeriodic | kVector);
  apic::Set(apic::kInitialCount, kCount);
  WaitFor(kTicks, "no periodic interrupts");
  const std::uint64_t ticks = fired_at - start;
  apic::Set(apic::kInitialCount, 0);
  Print("periodic ", kTicks, " in ", ticks, " tsc\n");
  if (frequencies.tsc == 0 || frequencies.apic == 0) {
    return;
  }
  const std::uint64_t expected = std::uint64_t{kTicks} * kCount / frequencies.apic * frequencies.tsc;
  if (ticks < expected / 10 * 9) {
    Fail("timer", "the periodic timer runs too fast for the frequencies in CPUID");
  }
}

void TestDeadline() {
  apic::Set(apic::kTimer, kTscDeadline | kVector);
  for (std::uint32_t i = 0; i < 5; ++i) {
    const std::uint32_t before = fired;
    const std::uint64_t deadline = ReadTsc() + 3'000'000;
    WriteMsr(kMsrTscDeadline, deadline);
    WaitFor(before + 1, "no interrupt at the TSC deadline");
    if (fired_at < deadline) {
      Fail("timer", "the TSC deadline came early");
    }
    if (fired != before + 1) {
      Fail("timer", "the TSC deadline came twice");
    }
  }
  Print("deadline 5\n");
}

}  // namespace

void GuestMain(const BootInfo& /*boot*/) {
  const Frequencies frequencies = ReadFrequencies();
  Print("tsc ", frequencies.tsc, " kHz apic ", frequencies.apic, " kHz\n");
  SetHandler(kVector, OnTimer);
  apic::Enable();
  EnableInterrupts();
  TestPeriodic(frequencies);
  if ((Cpuid(1).ecx & (1U << 24)) != 0) {
    TestDeadline();
  } else {
    Print("deadline none\n");
  }
  Pass("timer");
}
