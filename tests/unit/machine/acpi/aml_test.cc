#include "src/machine/acpi/aml.h"

#include <gtest/gtest.h>

#include <array>
#include <initializer_list>
#include <string>

namespace gyre::machine::aml {
namespace {

Bytes Raw(std::initializer_list<unsigned> values) {
  Bytes bytes;
  for (const unsigned value : values) {
    bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

Bytes Head(const Bytes& bytes, std::size_t count) {
  return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count)};
}

// ACPI 6.4, 20.2.3.
TEST(AmlInteger, EachWidth_IsTheShortestFormThatHoldsIt) {
  EXPECT_EQ(Integer(0).bytes, Raw({0x00}));
  EXPECT_EQ(Integer(1).bytes, Raw({0x01}));
  EXPECT_EQ(Integer(2).bytes, Raw({0x0a, 0x02}));
  EXPECT_EQ(Integer(0xff).bytes, Raw({0x0a, 0xff}));
  EXPECT_EQ(Integer(0x100).bytes, Raw({0x0b, 0x00, 0x01}));
  EXPECT_EQ(Integer(0xffff).bytes, Raw({0x0b, 0xff, 0xff}));
  EXPECT_EQ(Integer(0x10000).bytes, Raw({0x0c, 0x00, 0x00, 0x01, 0x00}));
  EXPECT_EQ(Integer(0xffffffff).bytes, Raw({0x0c, 0xff, 0xff, 0xff, 0xff}));
  EXPECT_EQ(Integer(0x100000000).bytes, Raw({0x0e, 0, 0, 0, 0, 1, 0, 0, 0}));
  EXPECT_EQ(Integer(UINT64_MAX - 1).bytes, Raw({0x0e, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}));
  EXPECT_EQ(Integer(UINT64_MAX).bytes, Raw({0xff}));
}

TEST(AmlString, Text_EndsInZero) {
  EXPECT_EQ(String("").bytes, Raw({0x0d, 0x00}));
  EXPECT_EQ(String("Az").bytes, Raw({0x0d, 'A', 'z', 0x00}));
}

// ACPI 6.4, 19.3.4.
TEST(AmlEisaId, KnownIds_AreCompressed) {
  EXPECT_EQ(EisaId("PNP0501").bytes, Raw({0x0c, 0x41, 0xd0, 0x05, 0x01}));
  EXPECT_EQ(EisaId("PNP0A03").bytes, Raw({0x0c, 0x41, 0xd0, 0x0a, 0x03}));
}

// ACPI 6.4, 20.2.2.
TEST(AmlName, EachPathForm_HasItsPrefix) {
  const Data zero = Integer(0);
  EXPECT_EQ(Name("_HID", zero).bytes, Raw({0x08, '_', 'H', 'I', 'D', 0}));
  EXPECT_EQ(Name("A", zero).bytes, Raw({0x08, 'A', '_', '_', '_', 0}));
  EXPECT_EQ(Name("\\AB", zero).bytes, Raw({0x08, '\\', 'A', 'B', '_', '_', 0}));
  EXPECT_EQ(Name("^^AB", zero).bytes, Raw({0x08, '^', '^', 'A', 'B', '_', '_', 0}));
  EXPECT_EQ(Name("\\_SB.C1", zero).bytes, Raw({0x08, '\\', 0x2e, '_', 'S', 'B', '_', 'C', '1', '_', '_', 0}));
  EXPECT_EQ(Name("A.B.C", zero).bytes,
            Raw({0x08, 0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_', 0}));
  EXPECT_EQ(Scope("\\", {}).bytes, Raw({0x10, 0x03, '\\', 0x00}));
}

TEST(AmlBlock, NestedDevices_CountTheirOwnLength) {
  const Term device = Device("D0", {Name("_UID", Integer(0))});
  EXPECT_EQ(device.bytes, Raw({0x5b, 0x82, 0x0b, 'D', '0', '_', '_', 0x08, '_', 'U', 'I', 'D', 0x00}));
  const Term scope = Scope("_SB", {device, device});
  EXPECT_EQ(scope.bytes.size(), 1U + 1 + 4 + 2 * device.bytes.size());
  EXPECT_EQ(Head(scope.bytes, 6), Raw({0x10, 31, '_', 'S', 'B', '_'}));
}

TEST(AmlPackage, Elements_AreCounted) {
  EXPECT_EQ(Package({}).bytes, Raw({0x12, 0x02, 0x00}));
  EXPECT_EQ(Package({Integer(1), Integer(7)}).bytes, Raw({0x12, 0x05, 0x02, 0x01, 0x0a, 0x07}));
}

// ACPI 6.4, 20.2.4: the length counts its own bytes. A string of n characters in
// a package makes a payload of n + 3 bytes.
struct LengthCase {
  std::size_t payload;
  std::vector<unsigned> length;
};
class AmlPackageLength : public ::testing::TestWithParam<LengthCase> {};

TEST_P(AmlPackageLength, AtTheBoundary_TakesTheFewestBytes) {
  const auto& [payload, length] = GetParam();
  const Data data = Package({String(std::string(payload - 3, 'x'))});
  ASSERT_EQ(data.bytes.size(), 1 + length.size() + payload);
  for (std::size_t i = 0; i < length.size(); ++i) {
    EXPECT_EQ(std::to_integer<unsigned>(data.bytes[1 + i]), length[i]) << i;
  }
  EXPECT_EQ(data.bytes[1 + length.size()], std::byte{1});  // the element count follows
}

INSTANTIATE_TEST_SUITE_P(Boundaries, AmlPackageLength,
                         ::testing::Values(LengthCase{3, {4}},                            //
                                           LengthCase{62, {63}},                          // 63 in all
                                           LengthCase{63, {0x41, 0x04}},                  // 65
                                           LengthCase{4093, {0x4f, 0xff}},                // 4095
                                           LengthCase{4094, {0x81, 0x00, 0x01}},          // 4097
                                           LengthCase{1048572, {0x8f, 0xff, 0xff}},       // 1048575
                                           LengthCase{1048573, {0xc1, 0x00, 0x00, 0x01}}  // 1048577
                                           ));

// ACPI 6.4, 6.4.2 and 6.4.3; the template is a buffer that ends in the end tag.
TEST(AmlResources, EachDescriptor_HasItsTagAndFields) {
  EXPECT_EQ(Io(0x3f8, 8).bytes, Raw({0x47, 1, 0xf8, 0x03, 0xf8, 0x03, 1, 8}));
  EXPECT_EQ(Irq(4).bytes, Raw({0x22, 0x10, 0x00}));
  EXPECT_EQ(Irq(15, {Trigger::kLevel, Polarity::kActiveLow, Sharing::kShared}).bytes,
            Raw({0x23, 0x00, 0x80, 0x18}));
  EXPECT_EQ(Interrupt(4).bytes, Raw({0x89, 6, 0, 0x03, 1, 4, 0, 0, 0}));
  EXPECT_EQ(Interrupt(0x123, {Trigger::kLevel, Polarity::kActiveLow, Sharing::kShared}).bytes,
            Raw({0x89, 6, 0, 0x0d, 1, 0x23, 0x01, 0, 0}));
  EXPECT_EQ(Memory32Fixed(0xfec00000, 0x1000).bytes,
            Raw({0x86, 9, 0, 1, 0x00, 0x00, 0xc0, 0xfe, 0x00, 0x10, 0x00, 0x00}));
  EXPECT_EQ(Memory32Fixed(0, 1, Access::kReadOnly).bytes, Raw({0x86, 9, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}));
}

TEST(AmlResources, Template_IsABufferWithAnEndTag) {
  EXPECT_EQ(ResourceTemplate({}).bytes, Raw({0x11, 0x05, 0x0a, 0x02, 0x79, 0x00}));
  EXPECT_EQ(ResourceTemplate({Irq(4)}).bytes, Raw({0x11, 0x08, 0x0a, 0x05, 0x22, 0x10, 0x00, 0x79, 0x00}));
}

TEST(AmlBuffer, Size_IsAnIntegerWithinTheLength) {
  const std::array<std::byte, 1> one = {std::byte{7}};
  EXPECT_EQ(Buffer(one).bytes, Raw({0x11, 0x03, 0x01, 7}));
  EXPECT_EQ(Buffer({}).bytes, Raw({0x11, 0x02, 0x00}));
  EXPECT_EQ(Head(Buffer(Bytes(300)).bytes, 6), Raw({0x11, 0x41, 0x13, 0x0b, 0x2c, 0x01}));
}

using AmlDeathTest = ::testing::Test;
// ACPI 6.4, 20.2.5.2: the bits of a unit are no package, so their length does not count itself.
TEST(AmlField, Units_HaveTheirBitsAsBareLengths) {
  EXPECT_EQ(MemoryRegion("R", 0x100, 4).bytes,
            Raw({0x5b, 0x80, 'R', '_', '_', '_', 0, 0x0b, 0x00, 0x01, 0x0a, 4}));
  EXPECT_EQ(
      DWordField("R", {{.name = "A", .bits = 63}, {.name = "B", .bits = 64}}).bytes,
      Raw({0x5b, 0x81, 17, 'R', '_', '_', '_', 3, 'A', '_', '_', '_', 0x3f, 'B', '_', '_', '_', 0x40, 4}));
}

// ACPI 6.4, 20.2.5.2 to 20.2.5.4.
TEST(AmlMethod, Statements_AreCounted) {
  EXPECT_EQ(Store(Path("A"), Local(7)).bytes, Raw({0x70, 'A', '_', '_', '_', 0x67}));
  EXPECT_EQ(And(Local(0), Integer(2)).bytes, Raw({0x7b, 0x60, 0x0a, 2, 0x00}));
  const Term notify = Notify("B", 0x80);
  EXPECT_EQ(notify.bytes, Raw({0x86, 'B', '_', '_', '_', 0x0a, 0x80}));
  EXPECT_EQ(If(Integer(1), {notify}).bytes, Raw({0xa0, 9, 0x01, 0x86, 'B', '_', '_', '_', 0x0a, 0x80}));
  EXPECT_EQ(Method("_EVT", 1, {}).bytes, Raw({0x14, 6, '_', 'E', 'V', 'T', 0x09}));
}

TEST(AmlDeathTest, NamesThatAslWouldRefuse_AreOurBug) {
  EXPECT_DEATH(Name("toolow", Integer(0)), "size");
  EXPECT_DEATH(Name("1ABC", Integer(0)), "IsLeadChar");
  EXPECT_DEATH(Name("A..B", Integer(0)), "empty");
  EXPECT_DEATH(EisaId("PNP05"), "size");
  EXPECT_DEATH(EisaId("PNP050x"), "digit");
}

}  // namespace
}  // namespace gyre::machine::aml
