#include "gyre/base/key_values.h"

#include <gtest/gtest.h>

#include <string>

namespace gyre {
namespace {

// "key:value " of each, or what is wrong.
std::string Split(std::string_view text) {
  const auto all = SplitKeyValues(text);
  std::string result;
  for (const auto& [key, value] : all ? *all : std::vector<KeyValue>()) {
    result += std::string(key) + ":" + std::string(value) + " ";
  }
  return all ? result : all.error().message();
}

TEST(KeyValues, AreSplitAtTheFirstEqualsSign) {
  EXPECT_EQ(Split("a=1"), "a:1 ");
  EXPECT_EQ(Split("a=1,b=x=y,a=,=z"), "a:1 b:x=y a: :z ");
}

TEST(KeyValues, PartsWithoutOne_AreNamed) {
  EXPECT_EQ(Split(""), "'' is not of the form key=value");
  EXPECT_EQ(Split("a=1,"), "'' is not of the form key=value");
  EXPECT_EQ(Split("a=1,,b=2"), "'' is not of the form key=value");
  EXPECT_EQ(Split("a=1,on,b=2"), "'on' is not of the form key=value");
}

}  // namespace
}  // namespace gyre
