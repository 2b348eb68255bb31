// The page of commands is what the table says.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>

#include "src/control/introspection.h"

namespace gyre::control {
namespace {

TEST(Reference, PageInTheTree_IsCurrent) {
  std::ifstream stream(GYRE_DOCS "/qmp.md");
  const std::string page{std::istreambuf_iterator<char>(stream), {}};
  EXPECT_EQ(page, WriteReference(AllCommands())) << "gyred --qmp-reference > docs/qmp.md";
}

TEST(CommandTable, EachEntry_IsWhole) {
  const auto all = AllCommands();
  EXPECT_TRUE(std::ranges::is_sorted(all, {}, &Command::name));
  EXPECT_EQ(std::ranges::adjacent_find(all, {}, &Command::name), all.end());
  for (const Command* const command : all) {
    EXPECT_FALSE(command->help.empty()) << command->name;
    EXPECT_NE(command->run == nullptr, command->start == nullptr) << command->name;
    EXPECT_EQ(command->allowed.Everywhere(), command->allowed.refusal.empty()) << command->name;
    EXPECT_TRUE((command->flags & Command::kAllowOob) == 0 || command->allowed.Everywhere()) << command->name;
    EXPECT_TRUE((command->flags & Command::kAllowOob) == 0 || command->run != nullptr) << command->name;
  }
}

}  // namespace
}  // namespace gyre::control
