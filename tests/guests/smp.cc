// Starts every processor that the tables name, then sends an interrupt to each
// and waits for its answer. "reset" on the command line: then resets the machine,
// whose other processors must be startable again.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint8_t kPing = 0x40;
constexpr std::uint8_t kPong = 0x41;
constexpr std::uint64_t kPatience = 6'000'000'000;  // TSC ticks: a second or more

std::uint32_t boot_apic_id;
volatile std::uint32_t pings;
volatile std::uint32_t pongs;
volatile std::uint32_t here;
SpinLock serial;

void OnPing(InterruptFrame& /*frame*/) {
  __atomic_add_fetch(&pings, 1, __ATOMIC_ACQ_REL);
  apic::EndOfInterrupt();
  apic::SendIpi(boot_apic_id, kPong);
}

void OnPong(InterruptFrame& /*frame*/) {
  __atomic_add_fetch(&pongs, 1, __ATOMIC_ACQ_REL);
  apic::EndOfInterrupt();
}

bool WaitFor(const volatile std::uint32_t& counter, std::uint32_t value) {
  const std::uint64_t start = ReadTsc();
  while (counter < value) {
    if (ReadTsc() - start > kPatience) {
      return false;
    }
    Pause();
  }
  return true;
}

void Announce(std::size_t index) {
  serial.Lock();
  Print("cpu ", index, " apic ", apic::Id(), '\n');
  serial.Unlock();
}

void ProcessorMain(std::size_t index) {
  Announce(index);
  apic::Enable();
  EnableInterrupts();
  __atomic_add_fetch(&here, 1, __ATOMIC_ACQ_REL);
  for (;;) {
    WaitForInterrupt();
  }
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  const ProcessorList list = FindProcessors(boot);
  Print("processors ", list.count, '\n');
  SetHandler(kPing, OnPing);
  SetHandler(kPong, OnPong);
  boot_apic_id = apic::Id();
  Announce(0);
  apic::Enable();
  EnableInterrupts();
  std::uint32_t started = 0;
  for (std::size_t i = 0; i < list.count; ++i) {
    if (list.apic_id[i] == boot_apic_id) {
      continue;
    }
    ++started;
    if (!StartProcessor(list.apic_id[i], ProcessorMain, started) || !WaitFor(here, started)) {
      Print("apic ", list.apic_id[i], '\n');
      Fail("smp", "a processor does not start");
    }
  }
  if (started + 1 != list.count) {
    Fail("smp", "the boot processor is not in the tables");
  }
  std::uint32_t sent = 0;
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < list.count; ++i) {
      if (list.apic_id[i] == boot_apic_id) {
        continue;
      }
      apic::SendIpi(list.apic_id[i], kPing);
      ++sent;
      if (!WaitFor(pongs, sent)) {
        Print("apic ", list.apic_id[i], '\n');
        Fail("smp", "no answer to an interrupt");
      }
    }
  }
  Print("answers ", std::uint32_t{pongs}, " of ", sent, '\n');
  if (StartsWith(boot.cmdline, "reset")) {
    Print("round done\n");
    Out8(0x64, 0xfe);
    for (;;) {
      Pause();
    }
  }
  Pass("smp");
}
