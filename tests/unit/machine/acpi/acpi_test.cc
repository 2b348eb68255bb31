#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>

#include "gyre/base/format.h"
#include "src/machine/acpi/tables.h"
#include "src/machine/layout.h"
#include "tests/unit/machine/acpi/iasl.h"
#include "tests/unit/machine/acpi/table_reader.h"

namespace gyre::machine {
namespace {

using test::Read;
using test::Span;
using test::Sum;
using test::Text;

// The tables as a guest finds them, from the RSDP on.
class Tables {
 public:
  explicit Tables(const AcpiConfig& config) : blob_(BuildAcpi(config)) {}

  Span rsdp() const { return At(blob_.rsdp, 36); }
  Span xsdt() const { return Table(Read(rsdp(), 24, 8)); }
  // The table that the XSDT lists, or the DSDT by the FADT.
  Span Find(const std::string& signature) const {
    if (signature == "DSDT") {
      return Table(Read(Find("FACP"), 140, 8));
    }
    for (std::size_t offset = 36; offset < xsdt().size(); offset += 8) {
      const Span table = Table(Read(xsdt(), offset, 8));
      if (Text(table, 0, 4) == signature) {
        return table;
      }
    }
    return {};
  }
  const TableBlob& blob() const { return blob_; }

 private:
  Span At(std::uint64_t address, std::uint64_t size) const {
    EXPECT_GE(address, blob_.base);
    EXPECT_LE(address + size, blob_.base + blob_.bytes.size());
    return Span(blob_.bytes).subspan(address - blob_.base, size);
  }
  Span Table(std::uint64_t address) const { return At(address, Read(At(address, 36), 4, 4)); }

  TableBlob blob_;
};

AcpiConfig Config(unsigned vcpus) { return {.base = layout::kAcpiTables, .vcpus = vcpus}; }

class AcpiByVcpus : public ::testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Counts, AcpiByVcpus, ::testing::Values(1U, 2U, 32U, 254U));

// ACPI 6.4, 5.2.5.3, 5.2.6 and 5.2.8.
TEST_P(AcpiByVcpus, Tables_AreLinkedAlignedAndSumToZero) {
  const Tables tables(Config(GetParam()));
  EXPECT_EQ(Text(tables.rsdp(), 0, 8), "RSD PTR ");
  EXPECT_EQ(tables.blob().rsdp % 16, 0U);
  EXPECT_EQ(Sum(tables.rsdp().first(20)), 0U);
  EXPECT_EQ(Sum(tables.rsdp()), 0U);
  EXPECT_EQ(Read(tables.rsdp(), 15, 1), 2U);   // revision
  EXPECT_EQ(Read(tables.rsdp(), 20, 4), 36U);  // length
  EXPECT_EQ(Text(tables.xsdt(), 0, 4), "XSDT");
  EXPECT_EQ(tables.xsdt().size(), 36U + 2 * 8);
  EXPECT_EQ(Sum(tables.xsdt()), 0U);
  for (const char* signature : {"FACP", "APIC", "DSDT"}) {
    const Span table = tables.Find(signature);
    ASSERT_FALSE(table.empty()) << signature;
    EXPECT_EQ(Text(table, 0, 4), signature);
    EXPECT_EQ(Sum(table), 0U) << signature;
  }
  EXPECT_LE(tables.blob().bytes.size(), layout::kAcpiTablesEnd - layout::kAcpiTables);
}

// ACPI 6.4, 5.2.12.
TEST_P(AcpiByVcpus, Madt_ListsEachProcessorThenTheIoApic) {
  const unsigned vcpus = GetParam();
  const Tables tables(Config(vcpus));
  const Span madt = tables.Find("APIC");
  ASSERT_EQ(madt.size(), 44U + 8 * vcpus + 12 + 6);
  EXPECT_EQ(Read(madt, 36, 4), layout::kLocalApic);
  EXPECT_EQ(Read(madt, 40, 4), 0U);  // no 8259s
  for (unsigned id = 0; id < vcpus; ++id) {
    const Span entry = madt.subspan(44 + 8UL * id, 8);
    EXPECT_EQ(Read(entry, 0, 2), 0x0800U);
    EXPECT_EQ(Read(entry, 2, 2), id << 8 | id);
    EXPECT_EQ(Read(entry, 4, 4), 1U);
  }
  const Span ioapic = madt.subspan(44 + 8UL * vcpus, 12);
  EXPECT_EQ(Read(ioapic, 0, 4), 0x0c01U | vcpus << 16);
  EXPECT_EQ(Read(ioapic, 4, 4), layout::kIoApic);
  EXPECT_EQ(Read(ioapic, 8, 4), 0U);
}

// The names, ids and order that iasl reads out of our bytes.
TEST_P(AcpiByVcpus, Dsdt_NamesEachProcessorByItsMadtUid) {
  if (!test::HaveIasl()) {
    GTEST_SKIP() << test::kNoIasl;
  }
  const Tables tables(Config(GetParam()));
  const auto dsl = test::Disassemble(tables.Find("DSDT"));
  ASSERT_TRUE(dsl);
  for (unsigned uid = 0; uid < GetParam(); ++uid) {
    const std::string number = uid == 0 ? "Zero" : uid == 1 ? "One" : format("0x{:02X}", uid);
    const std::string device =
        format("Device (C{:03X})\n{{\nName (_HID, \"ACPI0007\")\nName (_UID, {})\n}}\n", uid, number);
    ASSERT_NE(dsl->find(device), std::string::npos) << device;
  }
  EXPECT_EQ(dsl->find(format("Device (C{:03X})", GetParam())), std::string::npos);
}

TEST(Acpi, OneVcpu_DisassemblesToTheGoldenText) {
  if (!test::HaveIasl()) {
    GTEST_SKIP() << test::kNoIasl;
  }
  const Tables tables(Config(1));
  EXPECT_EQ(test::Disassemble(tables.Find("DSDT")), test::Golden("dsdt.dsl"));
  EXPECT_EQ(test::Disassemble(tables.Find("APIC")), test::Golden("apic.dsl"));
  EXPECT_EQ(test::Disassemble(tables.Find("FACP")), test::Golden("facp.dsl"));
}

// The encoder against an independent one: the same bytes, but for the header,
// where iasl puts its own name.
TEST(Acpi, GoldenSource_CompilesToOurBytes) {
  if (!test::HaveIasl()) {
    GTEST_SKIP() << test::kNoIasl;
  }
  constexpr std::size_t kHeader = 36;
  const Tables tables(Config(1));
  const Span ours = tables.Find("DSDT");
  const auto theirs = test::Compile(test::GoldenPath("dsdt.dsl"));
  ASSERT_TRUE(theirs);
  ASSERT_EQ(theirs->size(), ours.size());
  EXPECT_TRUE(std::ranges::equal(Span(*theirs).subspan(kHeader), ours.subspan(kHeader)));
}

// ACPI 6.4, 5.2.9 and 5.2.9.3.
TEST(Acpi, Fadt_IsHardwareReducedWithoutFixedHardware) {
  const Tables tables(Config(1));
  const Span fadt = tables.Find("FACP");
  ASSERT_EQ(fadt.size(), 276U);
  EXPECT_EQ(Read(fadt, 8, 1), 6U);
  EXPECT_EQ(Read(fadt, 131, 1), 4U);
  EXPECT_EQ(Read(fadt, 112, 4) & (1U << 20 | 1U << 10), 1U << 20 | 1U << 10);  // reduced; reset register
  EXPECT_EQ(Read(fadt, 120, 8), layout::kAcpiPower + 2);
  EXPECT_EQ(Read(fadt, 128, 1), 0x42U);
  EXPECT_EQ(Read(fadt, 248, 8), layout::kAcpiPower);      // sleep control
  EXPECT_EQ(Read(fadt, 260, 8), layout::kAcpiPower + 1);  // sleep status
  EXPECT_EQ(Read(fadt, 109, 2), 1U << 1 | 1U << 2);       // 8042, no VGA
  EXPECT_EQ(Read(fadt, 40, 4), Read(fadt, 140, 8));       // both name the DSDT
  EXPECT_TRUE(std::ranges::all_of(fadt.subspan(46, 62), [](std::byte b) { return b == std::byte{0}; }));
  EXPECT_TRUE(std::ranges::all_of(fadt.subspan(148, 96), [](std::byte b) { return b == std::byte{0}; }));
}

TEST(Acpi, DevicesThatAreOff_AreNotMentioned) {
  if (!test::HaveIasl()) {
    GTEST_SKIP() << test::kNoIasl;
  }
  AcpiConfig config = Config(1);
  config.serial = config.rtc = config.i8042 = false;
  config.legacy_pic = true;
  const Tables tables(config);
  const auto dsl = test::Disassemble(tables.Find("DSDT"));
  ASSERT_TRUE(dsl);
  EXPECT_EQ(dsl->find("PNP0501"), std::string::npos);
  EXPECT_EQ(dsl->find("PNP0B00"), std::string::npos);
  EXPECT_EQ(Read(tables.Find("FACP"), 109, 2), 1U << 2 | 1U << 5);  // no VGA, no CMOS clock
  EXPECT_EQ(Read(tables.Find("APIC"), 40, 4), 1U);                  // PCAT_COMPAT
}

TEST(Acpi, AnotherBase_MovesEveryPointer) {
  AcpiConfig config = Config(2);
  config.base = 0xbfff0000;
  const Tables tables(config);
  EXPECT_EQ(tables.blob().rsdp, 0xbfff0000U);
  EXPECT_FALSE(tables.Find("DSDT").empty());
}

TEST(Acpi, VirtioDevices_HaveTheirRegistersAndAnEdge) {
  if (!test::HaveIasl()) {
    GTEST_SKIP() << test::kNoIasl;
  }
  AcpiConfig config = Config(1);
  config.virtio = {{.address = 0xfeb00000, .gsi = 24}, {.address = 0xfeb00200, .gsi = 25}};
  const Tables tables(config);
  const auto dsl = test::Disassemble(tables.Find("DSDT"));
  ASSERT_TRUE(dsl);
  const auto first = dsl->find("Device (VM00)");
  const auto second = dsl->find("Device (VM01)");
  ASSERT_NE(first, std::string::npos);
  ASSERT_NE(second, std::string::npos);
  const std::string text = dsl->substr(second);
  for (const char* wanted : {"Name (_HID, \"LNRO0005\")", "Name (_UID, One)", "0xFEB00200", "0x00000200",
                             "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive", "0x00000019"}) {
    EXPECT_NE(text.find(wanted), std::string::npos) << wanted << " in " << text;
  }
}

}  // namespace
}  // namespace gyre::machine
