// Arguments against their types: the words that clients see.
#include <gtest/gtest.h>

#include <array>
#include <string>

#include "src/control/type.h"

namespace gyre::control {
namespace {

constexpr Type kSmall{.kind = Type::Kind::kInteger, .name = "small", .least = 1, .most = 10};
constexpr std::array<std::string_view, 2> kColours{"red", "blue"};
constexpr Type kColour = EnumType("Colour", kColours);
constexpr std::array kInnerMembers{Member{"x", &kInteger}};
constexpr Type kInner = ObjectType("Inner", kInnerMembers);
constexpr Type kInners = ArrayType("array of Inner", kInner);
constexpr std::array<const Type*, 2> kChoices{&kBoolean, &kStrings};
constexpr Type kEither{.kind = Type::Kind::kAlternate, .name = "boolean or strings", .choices = kChoices};
constexpr std::array kVariants{Variant{"red", &kInner}};
constexpr std::array kMembers{Member{"must", &kString},
                              Member{"small", &kSmall, "", kOptional},
                              Member{"big", &kUnsigned, "", kOptional},
                              Member{"colour", &kColour, "", kOptional},
                              Member{"inner", &kInners, "", kOptional},
                              Member{"either", &kEither, "", kOptional}};
constexpr Type kArguments = ObjectType("arguments", kMembers);
constexpr std::array kTaggedMembers{Member{"colour", &kColour}};
constexpr Type kTagged{.kind = Type::Kind::kObject,
                       .name = "tagged",
                       .members = kTaggedMembers,
                       .tag = "colour",
                       .variants = kVariants};

std::string Wrong(const Json& arguments, const Type& type = kArguments) {
  const auto checked = CheckArguments(arguments, type);
  return checked ? "" : checked.error();
}

TEST(CheckArguments, GoodOnes_Pass) {
  EXPECT_EQ(Wrong({{"must", "x"}}), "");
  EXPECT_EQ(Wrong({{"must", "x"},
                   {"small", 10},
                   {"big", UINT64_MAX},
                   {"colour", "red"},
                   {"inner", {{{"x", 1}}}},
                   {"either", true}}),
            "");
  EXPECT_EQ(Wrong({{"must", "x"}, {"either", {"a", "b"}}}), "");
  EXPECT_EQ(Wrong({{"colour", "blue"}}, kTagged), "");
  EXPECT_EQ(Wrong({{"colour", "red"}, {"x", 1}}, kTagged), "");
}

TEST(CheckArguments, BadOnes_AreNamed) {
  EXPECT_EQ(Wrong(Json::object()), "Parameter 'must' is missing");
  EXPECT_EQ(Wrong({{"must", 1}}), "Invalid parameter type for 'must', expected: string");
  EXPECT_EQ(Wrong({{"must", "x"}, {"more", 1}}), "Parameter 'more' is unexpected");
  EXPECT_EQ(Wrong({{"must", "x"}, {"small", 0}}), "Parameter 'small' expects a value from 1 to 10");
  EXPECT_EQ(Wrong({{"must", "x"}, {"small", 11}}), "Parameter 'small' expects a value from 1 to 10");
  EXPECT_EQ(Wrong({{"must", "x"}, {"small", UINT64_MAX}}), "Parameter 'small' expects a value from 1 to 10");
  EXPECT_EQ(Wrong({{"must", "x"}, {"small", 1.5}}), "Invalid parameter type for 'small', expected: integer");
  EXPECT_EQ(Wrong({{"must", "x"}, {"small", true}}), "Invalid parameter type for 'small', expected: integer");
  EXPECT_NE(Wrong({{"must", "x"}, {"big", -1}}), "");
  EXPECT_EQ(Wrong({{"must", "x"}, {"colour", "green"}}), "Parameter 'colour' does not accept value 'green'");
  EXPECT_EQ(Wrong({{"must", "x"}, {"colour", 1}}), "Invalid parameter type for 'colour', expected: string");
  EXPECT_EQ(Wrong({{"must", "x"}, {"inner", 1}}), "Invalid parameter type for 'inner', expected: array");
  EXPECT_EQ(Wrong({{"must", "x"}, {"inner", {1}}}),
            "Invalid parameter type for 'inner[0]', expected: object");
  EXPECT_EQ(Wrong({{"must", "x"}, {"inner", {Json::object()}}}), "Parameter 'inner[0].x' is missing");
  EXPECT_EQ(Wrong({{"must", "x"}, {"either", 1}}),
            "Invalid parameter type for 'either', expected: boolean or strings");
  EXPECT_EQ(Wrong({{"colour", "red"}}, kTagged), "Parameter 'x' is missing");
  EXPECT_EQ(Wrong({{"colour", "blue"}, {"x", 1}}, kTagged), "Parameter 'x' is unexpected");
}

}  // namespace
}  // namespace gyre::control
