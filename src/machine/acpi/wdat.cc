#include "src/machine/acpi/wdat.h"

#include "gyre/devices/platform/watchdog.h"
#include "src/machine/acpi/checksum.h"
#include "src/machine/layout.h"

namespace gyre::machine {
namespace {

using devices::Watchdog;

// Behind the table's header.
struct WdatBody {
  Le32 header_length = 32;                            // of this structure
  Le16 pci_segment = 0xff;                            // 0xff: not on PCI
  std::array<std::uint8_t, 3> pci{0xff, 0xff, 0xff};  // bus, device, function
  std::array<std::uint8_t, 3> reserved0{};
  Le32 period_ms = Watchdog::kPeriodMs;
  Le32 max_count = Watchdog::kMaxCount;
  Le32 min_count = 1;
  std::uint8_t flags = 0;
  std::array<std::uint8_t, 3> reserved1{};
  Le32 entries;
};
static_assert(WirePod<WdatBody> && sizeof(WdatBody) == 32);
constexpr std::uint8_t kEnabled = 0x01;
constexpr std::uint8_t kStoppedInSleep = 0x80;  // its time is the VM's

enum class Action : std::uint8_t {
  kReset = 1,
  kQueryRemaining = 4,
  kQueryCount = 5,
  kSetCount = 6,
  kQueryRunning = 8,
  kSetRunning = 9,
  kQueryStopped = 10,
  kSetStopped = 11,
  kQueryStatus = 32,
  kClearStatus = 33,
};

enum class Instruction : std::uint8_t { kIsValue = 0, kReadCount = 1, kWriteValue = 2, kWriteCount = 3 };

struct WdatEntry {
  std::uint8_t action = 0;
  std::uint8_t instruction = 0;
  Le16 reserved;
  GenericAddress where;
  Le32 value;
  Le32 mask;
};
static_assert(WirePod<WdatEntry> && sizeof(WdatEntry) == 24);

WdatEntry Entry(Action action, Instruction instruction, std::uint64_t offset, std::uint32_t value,
                std::uint32_t mask) {
  return {.action = static_cast<std::uint8_t>(action),
          .instruction = static_cast<std::uint8_t>(instruction),
          .reserved = {},
          .where = MemoryRegister(layout::kWatchdog + offset, RegisterWidth::kDWord),
          .value = value,
          .mask = mask};
}

}  // namespace

Bytes BuildWdat() {
  using enum Action;
  using enum Instruction;
  constexpr std::uint32_t kAll = 0xffffffff;
  constexpr std::uint32_t kRunning = Watchdog::kRunning;
  constexpr std::uint32_t kExpired = Watchdog::kExpired;
  const std::array entries{
      Entry(kReset, kWriteValue, Watchdog::kRemaining, 1, kAll),
      Entry(kQueryRemaining, kReadCount, Watchdog::kRemaining, 0, kAll),
      Entry(kQueryCount, kReadCount, Watchdog::kCount, 0, kAll),
      Entry(kSetCount, kWriteCount, Watchdog::kCount, 0, kAll),
      Entry(kQueryRunning, kIsValue, Watchdog::kControl, kRunning, kRunning),
      Entry(kSetRunning, kWriteValue, Watchdog::kControl, kRunning, kRunning),
      Entry(kQueryStopped, kIsValue, Watchdog::kControl, 0, kRunning),
      Entry(kSetStopped, kWriteValue, Watchdog::kControl, 0, kRunning),
      Entry(kQueryStatus, kIsValue, Watchdog::kStatus, kExpired, kExpired),
      Entry(kClearStatus, kWriteValue, Watchdog::kStatus, kExpired, kExpired),
  };
  Bytes body;
  AppendWire(body, WdatBody{.flags = kEnabled | kStoppedInSleep,
                            .entries = static_cast<std::uint32_t>(entries.size())});
  for (const WdatEntry& entry : entries) {
    AppendWire(body, entry);
  }
  return Table("WDAT", 1, body);
}

}  // namespace gyre::machine
