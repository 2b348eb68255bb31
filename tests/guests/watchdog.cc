// Drives the watchdog by the table WDAT, as wdat_wdt does. By the command line:
// "hang" starts it and never pings, "ping" pings for a while and stops it.
#include "runtime/guest.h"

using namespace guest;

namespace {

enum Action : std::uint8_t {
  kPing = 1,
  kSetCount = 6,
  kRun = 9,
  kStop = 11,
  kIsExpired = 32,
  kClearExpired = 33,
};

struct Entry {
  std::uint8_t action;
  std::uint8_t instruction;
  std::uint16_t reserved;
  std::uint8_t space, bits, offset, access;
  std::uint64_t address;
  std::uint32_t value, mask;
} __attribute__((packed));

const Entry& Find(const std::uint8_t* wdat, Action action) {
  constexpr std::size_t kEntries = 68;
  const auto count = Read<std::uint32_t>(reinterpret_cast<std::uint64_t>(wdat) + 64);
  const auto* const entries = reinterpret_cast<const Entry*>(wdat + kEntries);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (entries[i].action == action) {
      return entries[i];
    }
  }
  Fail("watchdog", "an action is missing in WDAT");
}

void Do(const std::uint8_t* wdat, Action action) {
  const Entry& entry = Find(wdat, action);
  Write<std::uint32_t>(entry.address, entry.value);
}

bool Is(const std::uint8_t* wdat, Action action) {
  const Entry& entry = Find(wdat, action);
  return (Read<std::uint32_t>(entry.address) & entry.mask) == entry.value;
}

void Wait(std::uint64_t cycles) {
  const std::uint64_t start = ReadTsc();
  while (ReadTsc() - start < cycles) {
    Pause();
  }
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  const std::uint8_t* const wdat = FindAcpiTable(boot.rsdp, "WDAT");
  if (wdat == nullptr) {
    Fail("watchdog", "no WDAT");
  }
  if (Is(wdat, kIsExpired)) {
    Do(wdat, kClearExpired);
    Print(Is(wdat, kIsExpired) ? "not cleared\n" : "reset by the watchdog\n");
    Pass("watchdog");
  }
  // Who pings must be able to on a busy host as well: 2 s. Who does not, is not to wait for long: 500 ms.
  const bool pings = StartsWith(boot.cmdline, "ping");
  Write<std::uint32_t>(Find(wdat, kSetCount).address, pings ? 20 : 5);
  Do(wdat, kRun);
  Print("watched\n");
  if (pings) {
    for (int i = 0; i < 20; ++i) {
      Wait(400'000'000);
      Do(wdat, kPing);
    }
    Do(wdat, kStop);
    Wait(8'000'000'000);
    Pass("watchdog");
  }
  while (true) {
    Pause();
  }
}
