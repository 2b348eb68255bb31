// Indirect tables of both ring formats (virtio 1.2, 2.7.5.3 and 2.8.7).
#include <array>
#include <cstring>
#include <span>

#include "tests/unit/devices/virtio/ring_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::kIndirect;
using test::kNext;
using test::kWrite;
using test::RawDescriptor;

// What the device reads 8 bytes each of.
std::array<RawDescriptor, 12> LongTable(std::uint64_t data) {
  std::array<RawDescriptor, 12> table;
  for (std::uint64_t i = 0; i < table.size(); ++i) {
    table.at(i) = {data + 64 * i, 8, kNext, static_cast<std::uint16_t>(i + 1)};
  }
  table.back().flags = 0;
  return table;
}

TEST_P(BothRings, S_2_7_5_3_1_AnIndirectTableWithoutTheFeature_NeedsReset) {
  Make(With({.indirect = false}));
  driver->Offer(std::array{Buffer{kData, 8}}, kTable);
  ExpectBroken(Violation::kIndirectRefused);
}

TEST_P(BothRings, S_2_7_5_3_AnIndirectTableOfABadLength_NeedsReset) {
  for (const std::uint32_t size : {0U, 1U, 8U, 24U, 16U * 9, UINT32_MAX, 0xffff'fff0U}) {
    Make(With({.indirect = true}));
    driver->OfferRaw(std::array{RawDescriptor{kTable, size, kIndirect, 0}});
    ExpectBroken(Violation::kIndirectLength);
  }
}

TEST_P(BothRings, S_2_7_5_3_1_AnIndirectTableWithinOne_NeedsReset) {
  Make(With({.indirect = true}));
  driver->WriteTable(kTable, std::array{RawDescriptor{kTable, 16, kIndirect, 0}});
  driver->OfferRaw(std::array{RawDescriptor{kTable, 16, kIndirect, 0}});
  ExpectBroken(Violation::kIndirectNested);
}

TEST_P(BothRings, S_2_7_5_3_1_AnIndirectTableWithANext_NeedsReset) {
  Make(With({.indirect = true}));
  driver->WriteTable(kTable, std::array{RawDescriptor{kData, 16, 0, 0}});
  driver->OfferRaw(
      std::array{RawDescriptor{kTable, 16, kIndirect | kNext, 1}, RawDescriptor{kData, 8, 0, 0}});
  ExpectBroken(Violation::kIndirectAndNext);
}

TEST_P(BothRings, AnIndirectTableThatIsNotRam_NeedsReset) {
  for (const std::uint64_t table : {GuestMemory::kHole, GuestMemory::kRegisters, GuestMemory::kSize - 8,
                                    UINT64_MAX - 15, UINT64_MAX - 7}) {
    Make(With({.indirect = true}));
    driver->OfferRaw(std::array{RawDescriptor{table, 16, kIndirect, 0}});
    ExpectBroken(Violation::kIndirectAddress);
  }
}

TEST_P(BothRings, AnIndirectTableAcrossRanges_IsRead) {
  Make(With({.indirect = true}));
  auto more = memory::MemoryRegion::NewRam(memory.topology, "more",
                                           memory::RamBlock::NewAnonymous("more", kPageSize).value());
  ASSERT_TRUE(memory.root->Add(GuestMemory::kSize, more));
  const RawDescriptor descriptor{kData, 8, kWrite, 0};
  std::memcpy(memory.host() + GuestMemory::kSize - 8, &descriptor.address, 8);
  std::uint16_t flags = kWrite;
  std::memcpy(more->ram()->host(), &descriptor.size, 4);
  std::memcpy(more->ram()->host() + (GetParam() ? 6 : 4), &flags, 2);
  driver->OfferRaw(std::array{RawDescriptor{GuestMemory::kSize - 8, 16, kIndirect, 0}});
  auto chain = Pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->writable_size(), 8U);
}

TEST_P(BothRings, S_2_7_5_3_ALongIndirectTable_IsReadToItsEnd) {
  Make(With({.indirect = true}), 16);
  std::array<RawDescriptor, 12> table = LongTable(kData);
  driver->WriteTable(kTable, table);
  driver->OfferRaw(std::array{RawDescriptor{kTable, sizeof(table), kIndirect, 0}});
  const auto chain = Pop();
  ASSERT_TRUE(chain);
  EXPECT_EQ(chain->readable_size(), 8U * table.size());
}

TEST_P(BothRings, S_2_7_5_3_1_AnIndirectTableWithinALongOne_NeedsReset) {
  Make(With({.indirect = true}), 16);
  std::array<RawDescriptor, 12> table = LongTable(kData);
  table[10].flags = kIndirect;
  driver->WriteTable(kTable, table);
  driver->OfferRaw(std::array{RawDescriptor{kTable, sizeof(table), kIndirect, 0}});
  ExpectBroken(Violation::kIndirectNested);
}

TEST_P(BothRings, ALongIndirectTableThatLeavesRam_NeedsReset) {
  Make(With({.indirect = true}), 16);
  const std::array<RawDescriptor, 12> table = LongTable(kData);
  const std::uint64_t place = GuestMemory::kSize - 9 * sizeof(RawDescriptor);
  driver->WriteTable(place, std::span(table).first<9>());
  driver->OfferRaw(std::array{RawDescriptor{place, sizeof(table), kIndirect, 0}});
  ExpectBroken(Violation::kIndirectAddress);
}

}  // namespace
}  // namespace gyre::virtio
