#include <gtest/gtest.h>

#include <iterator>
#include <span>

#include "src/machine/acpi/tables.h"
#include "src/machine/layout.h"
#include "tests/unit/machine/acpi/table_reader.h"

namespace gyre::machine {
namespace {

using test::Read;
using test::Span;
using test::Sum;
constexpr std::size_t kNoLimit = 64UL << 10;

MpTableConfig Config(unsigned vcpus) { return {.base = layout::kMpTable, .vcpus = vcpus}; }

// What a guest that walks the table as chapter 4 says counts in it.
struct Walk {
  unsigned processors = 0, buses = 0, ioapics = 0, io_interrupts = 0, local_interrupts = 0, bootstrap = 0;
  bool in_order = true;
};

Walk WalkEntries(Span table) {
  Walk walk;
  std::size_t offset = 44;
  std::uint64_t last_type = 0;
  for (auto left = Read(table, 34, 2); left > 0; --left) {
    const auto type = Read(table, offset, 1);
    walk.in_order = walk.in_order && type >= last_type;
    last_type = type;
    if (type == 0) {
      EXPECT_EQ(Read(table, offset + 1, 1), walk.processors);
      walk.bootstrap += (Read(table, offset + 3, 1) & 2) != 0 ? 1U : 0U;
    }
    unsigned* const counters[] = {&walk.processors, &walk.buses, &walk.ioapics, &walk.io_interrupts,
                                  &walk.local_interrupts};
    if (type >= std::size(counters)) {
      ADD_FAILURE() << "entry type " << type;
      break;
    }
    ++*counters[type];
    offset += type == 0 ? 20 : 8;
  }
  EXPECT_EQ(offset, table.size());
  return walk;
}

class MpTableByVcpus : public ::testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Counts, MpTableByVcpus, ::testing::Values(1U, 2U, 32U, 254U));

// MP specification 1.4, 4.1 and 4.2.
TEST_P(MpTableByVcpus, PointerAndTable_AreLinkedAndSumToZero) {
  const TableBlob blob = BuildMpTable(Config(GetParam()), kNoLimit);
  const Span bytes = blob.bytes;
  ASSERT_GT(bytes.size(), 60U);
  EXPECT_EQ(Read(bytes, 0, 4), 0x5f504d5fU);  // "_MP_"
  EXPECT_EQ(Read(bytes, 4, 4), layout::kMpTable + 16);
  EXPECT_EQ(Read(bytes, 8, 2), 0x0401U);  // one paragraph, revision 1.4
  EXPECT_EQ(Sum(bytes.first(16)), 0U);
  const Span table = bytes.subspan(16);
  EXPECT_EQ(Read(table, 0, 4), 0x504d4350U);  // "PCMP"
  EXPECT_EQ(Read(table, 4, 2), table.size());
  EXPECT_EQ(Sum(table), 0U);
  EXPECT_EQ(Read(table, 36, 4), layout::kLocalApic);
}

// MP specification 1.4, 4.3.
TEST_P(MpTableByVcpus, Entries_AreAllThereInOrder) {
  const TableBlob blob = BuildMpTable(Config(GetParam()), kNoLimit);
  const Walk walk = WalkEntries(Span(blob.bytes).subspan(16));
  EXPECT_EQ(walk.processors, GetParam());
  EXPECT_EQ(walk.bootstrap, 1U);
  EXPECT_EQ(walk.buses, 1U);
  EXPECT_EQ(walk.ioapics, 1U);
  EXPECT_EQ(walk.io_interrupts, 16U);
  EXPECT_EQ(walk.local_interrupts, 2U);
  EXPECT_TRUE(walk.in_order);
}

TEST(MpTable, IsaInterrupts_GoToThePinOfTheirNumber) {
  const TableBlob blob = BuildMpTable(Config(2), kNoLimit);
  const Span interrupts = Span(blob.bytes).subspan(16 + 44 + 2 * 20 + 8 + 8);
  for (unsigned irq = 0; irq < 16; ++irq) {
    const Span entry = interrupts.subspan(8UL * irq, 8);
    EXPECT_EQ(Read(entry, 0, 4), 3U);  // INT, as the bus has it
    EXPECT_EQ(Read(entry, 4, 2), irq << 8);
    EXPECT_EQ(Read(entry, 6, 2), irq << 8 | 2U);  // the IOAPIC's id follows the processors'
  }
  EXPECT_EQ(Read(interrupts, 16 * 8UL, 8), 0x0000000000000304U);  // ExtINT: BSP, LINT0
  EXPECT_EQ(Read(interrupts, 17 * 8UL, 8), 0x01ff000000000104U);  // NMI: all, LINT1
}

TEST(MpTable, ProcessorModel_IsWhatTheConfigSays) {
  MpTableConfig config = Config(1);
  config.cpu_signature = 0xa20f12;
  config.cpu_features = 0x178bfbff;
  const TableBlob blob = BuildMpTable(config, kNoLimit);
  EXPECT_EQ(Read(blob.bytes, 16 + 44 + 4, 4), 0xf12U);
  EXPECT_EQ(Read(blob.bytes, 16 + 44 + 8, 4), 0x178bfbffU);
}

TEST(MpTable, MoreProcessorsThanFit_GiveNoTable) {
  constexpr std::size_t kLastKib = 1024;
  EXPECT_EQ(BuildMpTable(Config(40), kLastKib).bytes.size(), 1020U);
  EXPECT_TRUE(BuildMpTable(Config(41), kLastKib).bytes.empty());
}

}  // namespace
}  // namespace gyre::machine
