#include "gyre/base/numbers.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace gyre {
namespace {

TEST(NumbersTest, ANumber_IsTheWholeText) {
  EXPECT_EQ(ParseNumber<unsigned>("0"), 0U);
  EXPECT_EQ(ParseNumber<std::uint16_t>("65535"), 65535);
  EXPECT_EQ(ParseNumber<int>("-3"), -3);
  EXPECT_EQ(ParseNumber<unsigned>("660", 8), 0660U);
  for (const std::string_view text : {"", " 1", "1 ", "+1", "1x", "0x1", "1.0", "-"}) {
    EXPECT_EQ(ParseNumber<int>(text), std::nullopt) << "'" << text << "'";
  }
}

TEST(NumbersTest, ANumber_FitsItsType) {
  EXPECT_EQ(ParseNumber<std::uint16_t>("65536"), std::nullopt);
  EXPECT_EQ(ParseNumber<unsigned>("-1"), std::nullopt);
  EXPECT_EQ(ParseNumber<std::uint64_t>("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(ParseNumber<std::uint64_t>("18446744073709551616"), std::nullopt);
}

TEST(NumbersTest, ARange_IsOneNumberOrTwoThatRise) {
  EXPECT_EQ(ParseRange("3"), (NumberRange{.first = 3, .last = 3}));
  EXPECT_EQ(ParseRange("0-2"), (NumberRange{.first = 0, .last = 2}));
  EXPECT_EQ(ParseRange("7-7"), (NumberRange{.first = 7, .last = 7}));
  for (const std::string_view text : {"", "-", "-2", "2-", "3-2", "1-2-3", "1,2", "a-b"}) {
    EXPECT_EQ(ParseRange(text), std::nullopt) << "'" << text << "'";
  }
}

TEST(NumbersTest, AnAmount_HasABinaryUnitOrTheUsualOne) {
  EXPECT_EQ(ParseAmount("512"), 512U);
  EXPECT_EQ(ParseAmount("512", 1024), 512U * 1024);
  EXPECT_EQ(ParseAmount("4K", 7), 4096U);
  EXPECT_EQ(ParseAmount("3M"), 3U << 20);
  EXPECT_EQ(ParseAmount("2G"), std::uint64_t{2} << 30);
  EXPECT_EQ(ParseAmount("1T"), std::uint64_t{1} << 40);
  for (const std::string_view text : {"", "K", "4k", "4KB", "4 K", "-1K", "1P", "1.5G"}) {
    EXPECT_EQ(ParseAmount(text), std::nullopt) << "'" << text << "'";
  }
}

TEST(NumbersTest, AnAmountBeyond64Bits_IsNone) {
  EXPECT_EQ(ParseAmount("16777215T"), std::uint64_t{16777215} << 40);
  EXPECT_EQ(ParseAmount("16777216T"), std::nullopt);
  EXPECT_EQ(ParseAmount("18446744073709551615", 2), std::nullopt);
}

}  // namespace
}  // namespace gyre
