// The MP configuration table (MultiProcessor Specification 1.4, chapter 4).
#include <algorithm>
#include <array>
#include <cstdint>

#include "gyre/base/check.h"
#include "gyre/base/endian.h"
#include "gyre/base/types.h"
#include "src/machine/acpi/checksum.h"
#include "src/machine/acpi/tables.h"
#include "src/machine/layout.h"

namespace gyre::machine {
namespace {

constexpr std::uint8_t kSpecRevision = 4;  // 1.4
constexpr std::uint8_t kIsaBusId = 0;
constexpr unsigned kIsaInterrupts = 16;
constexpr std::uint8_t kAllLocalApics = 0xff;

// 4.1.
struct FloatingPointer {
  std::array<char, 4> signature = {'_', 'M', 'P', '_'};
  Le32 table;
  std::uint8_t length = 1;  // in 16 bytes
  std::uint8_t revision = kSpecRevision;
  std::uint8_t checksum = 0;
  std::array<std::uint8_t, 5> features{};  // a table is present; no IMCR
};
static_assert(WirePod<FloatingPointer> && sizeof(FloatingPointer) == 16);

// 4.2.
struct TableHeader {
  std::array<char, 4> signature = {'P', 'C', 'M', 'P'};
  Le16 length;
  std::uint8_t revision = kSpecRevision;
  std::uint8_t checksum = 0;
  std::array<char, 8> oem_id = {'G', 'Y', 'R', 'E', ' ', ' ', ' ', ' '};
  std::array<char, 12> product_id = {'G', 'Y', 'R', 'E', 'V', 'M', ' ', ' ', ' ', ' ', ' ', ' '};
  Le32 oem_table;
  Le16 oem_table_size;
  Le16 entries;
  Le32 local_apic;
  Le16 extended_length;
  std::uint8_t extended_checksum = 0;
  std::uint8_t reserved = 0;
};
static_assert(WirePod<TableHeader> && sizeof(TableHeader) == 44);

// 4.3.1.
struct ProcessorEntry {
  std::uint8_t type = 0;
  std::uint8_t apic_id = 0;
  std::uint8_t apic_version = 0x14;
  std::uint8_t flags = 0;
  Le32 signature;
  Le32 features;
  std::array<std::uint8_t, 8> reserved{};
};
static_assert(WirePod<ProcessorEntry> && sizeof(ProcessorEntry) == 20);
constexpr std::uint8_t kProcessorEnabled = 1U << 0;
constexpr std::uint8_t kProcessorBootstrap = 1U << 1;

// 4.3.2.
struct BusEntry {
  std::uint8_t type = 1;
  std::uint8_t id = kIsaBusId;
  std::array<char, 6> bus = {'I', 'S', 'A', ' ', ' ', ' '};
};
static_assert(WirePod<BusEntry> && sizeof(BusEntry) == 8);

// 4.3.3.
struct IoApicEntry {
  std::uint8_t type = 2;
  std::uint8_t id = 0;
  std::uint8_t version = 0x20;
  std::uint8_t flags = 1;  // enabled
  Le32 address = layout::kIoApic;
};
static_assert(WirePod<IoApicEntry> && sizeof(IoApicEntry) == 8);

// 4.3.4 and 4.3.5: the same fields, into a pin of the IOAPIC or of local APICs.
enum class EntryType : std::uint8_t { kIoInterrupt = 3, kLocalInterrupt = 4 };
enum class InterruptType : std::uint8_t { kInt = 0, kNmi = 1, kExtInt = 3 };
struct InterruptEntry {
  EntryType type = EntryType::kIoInterrupt;
  InterruptType interrupt = InterruptType::kInt;
  Le16 flags{};  // polarity and trigger mode as the bus has them
  std::uint8_t source_bus = kIsaBusId;
  std::uint8_t source_irq = 0;
  std::uint8_t destination = 0;
  std::uint8_t pin = 0;
};
static_assert(WirePod<InterruptEntry> && sizeof(InterruptEntry) == 8);

// Collects entries and counts them.
class Entries {
 public:
  template <WirePod T>
  void Add(const T& entry) {
    AppendWire(bytes_, entry);
    ++count_;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::uint16_t count() const { return count_; }

 private:
  std::vector<std::byte> bytes_;
  std::uint16_t count_ = 0;
};

// The base table's entries stand in the order of their types (4.3).
Entries BuildEntries(const MpTableConfig& config) {
  Entries entries;
  for (unsigned id = 0; id < config.vcpus; ++id) {
    entries.Add(ProcessorEntry{
        .apic_id = static_cast<std::uint8_t>(id),
        .flags = static_cast<std::uint8_t>(kProcessorEnabled | (id == 0 ? kProcessorBootstrap : 0)),
        .signature = config.cpu_signature & 0xfff,
        .features = config.cpu_features,
    });
  }
  entries.Add(BusEntry{});
  const auto ioapic_id = static_cast<std::uint8_t>(config.vcpus);
  entries.Add(IoApicEntry{.id = ioapic_id});
  for (std::uint8_t irq = 0; irq < kIsaInterrupts; ++irq) {
    entries.Add(InterruptEntry{.source_irq = irq, .destination = ioapic_id, .pin = irq});
  }
  entries.Add(InterruptEntry{.type = EntryType::kLocalInterrupt,
                             .interrupt = InterruptType::kExtInt,
                             .destination = 0,  // the bootstrap processor's alone
                             .pin = 0});
  entries.Add(InterruptEntry{.type = EntryType::kLocalInterrupt,
                             .interrupt = InterruptType::kNmi,
                             .destination = kAllLocalApics,
                             .pin = 1});
  return entries;
}

}  // namespace

TableBlob BuildMpTable(const MpTableConfig& config, std::size_t max_size) {
  CHECK(config.vcpus >= 1 && config.vcpus <= layout::kMaxVcpus);
  CHECK(config.base % 16 == 0 && config.base < 4 * kGiB);
  const Entries entries = BuildEntries(config);
  TableBlob blob{.base = config.base, .rsdp = 0, .bytes = {}};
  const std::size_t table_size = sizeof(TableHeader) + entries.bytes().size();
  if (sizeof(FloatingPointer) + table_size > max_size) {
    return blob;
  }

  TableHeader header;
  header.length = static_cast<std::uint16_t>(table_size);
  header.entries = entries.count();
  header.local_apic = layout::kLocalApic;
  header.checksum = static_cast<std::uint8_t>(ChecksumFor(WireBytes(header)) + ChecksumFor(entries.bytes()));
  FloatingPointer pointer;
  pointer.table = static_cast<std::uint32_t>(config.base + sizeof(pointer));
  pointer.checksum = ChecksumFor(WireBytes(pointer));

  AppendWire(blob.bytes, pointer);
  AppendWire(blob.bytes, header);
  blob.bytes.insert(blob.bytes.end(), entries.bytes().begin(), entries.bytes().end());
  return blob;
}

}  // namespace gyre::machine
