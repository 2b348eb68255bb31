// gyrectl exec's command line.
#include <gtest/gtest.h>

#include "tools/gyrectl/command_line.h"

namespace gyre::ctl {
namespace {

constexpr const char* kCommand = "COMMAND [ARG...]";

Invocation Parsed(std::vector<std::string> words) {
  auto parsed = ParseCommandLine(std::move(words));
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? std::get<Invocation>(*parsed) : Invocation();
}

std::vector<std::string> CommandIn(std::vector<std::string> words) {
  return Parsed(std::move(words)).lists.at(kCommand);
}

TEST(ExecCommandLine, CommandIsAllThatFollows) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(CommandIn({"vm1", "exec", "ls", "-l", "-t", "--json"}), (Words{"ls", "-l", "-t", "--json"}));
  EXPECT_EQ(CommandIn({"exec", "status"}), (Words{"status"})) << "a command's name is a word like others";
  EXPECT_EQ(CommandIn({"exec", "sh", "-c", "a b", "", "--"}), (Words{"sh", "-c", "a b", "", "--"}));
  EXPECT_EQ(CommandIn({"exec", "--", "-x", "--", "y"}), (Words{"-x", "--", "y"}));
  EXPECT_EQ(CommandIn({"-s", "exec", "exec", "-t", "--", "ls"}), (Words{"ls"}));
  EXPECT_EQ(CommandIn({"--timeout", "5", "vm1", "--json", "exec", "ls"}), (Words{"ls"}));
  EXPECT_EQ(Parsed({"vm1", "exec", "ls"}).name, "vm1");
  EXPECT_EQ(Parsed({"monitor", "exec", "ls"}).values.at("LINE"), "exec ls") << "another one's words";
}

TEST(ExecCommandLine, OptionsStandBeforeIt) {
  const auto all = Parsed({"vm1", "exec", "--tty", "--env", "A=1", "--env=B=2", "--workdir", "/x", "--port",
                           "7", "--timeout", "3", "ls"});
  EXPECT_TRUE(all.values.contains("tty"));
  EXPECT_EQ(all.lists.at("env"), (std::vector<std::string>{"A=1", "B=2"}));
  EXPECT_EQ(all.values.at("workdir"), "/x");
  EXPECT_EQ(all.values.at("port"), "7");
  EXPECT_EQ(all.timeout, 3);
  const auto letters = Parsed({"exec", "-te", "A=1", "-eB=2", "-w/x", "ls", "-t"});
  EXPECT_TRUE(letters.values.contains("tty"));
  EXPECT_EQ(letters.lists.at("env"), (std::vector<std::string>{"A=1", "B=2"}));
  EXPECT_EQ(letters.values.at("workdir"), "/x");
  EXPECT_EQ(letters.lists.at(kCommand), (std::vector<std::string>{"ls", "-t"}));
}

TEST(ExecCommandLine, MistakesAreNoCommandsStatus) {
  const std::vector<std::vector<std::string>> mistakes = {
      {"exec"}, {"vm1", "exec", "--"}, {"exec", "--nonsense", "ls"}, {"exec", "-x", "ls"}, {"exec", "-e"}};
  for (const auto& words : mistakes) {
    const auto parsed = ParseCommandLine(words);
    ASSERT_FALSE(parsed) << words.back();
    EXPECT_EQ(parsed.error().exit, Exit::kOwn);
    EXPECT_FALSE(parsed.error().message.contains('\n'));
  }
  EXPECT_EQ(ParseCommandLine({"exec"}).error().message, "COMMAND [ARG...] is required");
  EXPECT_EQ(ParseCommandLine({"status", "--nonsense"}).error().exit, Exit::kUsage);
}

}  // namespace
}  // namespace gyre::ctl
