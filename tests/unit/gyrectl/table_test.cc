// What is made from the table of subcommands, and what people see.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/support/process.h"
#include "tests/unit/gyrectl/fake_server.h"
#include "tools/gyrectl/command_line.h"
#include "tools/gyrectl/completions.h"
#include "tools/gyrectl/escape.h"
#include "tools/gyrectl/line.h"
#include "tools/gyrectl/output.h"

namespace gyre::ctl {
namespace {

Invocation Parsed(std::vector<std::string> words) {
  auto parsed = ParseCommandLine(std::move(words));
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed ? std::get<Invocation>(*parsed) : Invocation();
}

std::string ErrorOf(std::vector<std::string> words) {
  const auto parsed = ParseCommandLine(std::move(words));
  return parsed ? "no error" : parsed.error().message;
}

TEST(CommandLine, NamesTheVmBeforeOrAfterTheCommand) {
  for (const auto& words :
       {std::vector<std::string>{"vm1", "status"}, std::vector<std::string>{"status", "vm1"}}) {
    const auto invocation = Parsed(words);
    EXPECT_EQ(invocation.name, "vm1");
    EXPECT_STREQ(invocation.command->name, "status");
  }
  EXPECT_EQ(Parsed({"-s", "/run/x", "quit"}).socket, "/run/x");
  const auto wait = Parsed({"vm1", "wait", "paused", "--timeout", "2.5", "--json"});
  EXPECT_EQ(wait.values.at("STATE"), "paused");
  EXPECT_EQ(wait.timeout, 2.5);
  EXPECT_TRUE(wait.json);
  EXPECT_TRUE(Parsed({"events", "--follow"}).values.contains("follow"));
  EXPECT_FALSE(Parsed({"events"}).values.contains("follow"));
}

TEST(CommandLine, EachMistake_IsOneClearLine) {
  EXPECT_EQ(ErrorOf({}), "what shall be done? (gyrectl --help)");
  EXPECT_EQ(ErrorOf({"vm1"}), "'vm1' is no command, and none follows it (gyrectl --help)");
  EXPECT_EQ(ErrorOf({"vm1", "status", "-s", "x"}), "a VM's name ('vm1') and -s exclude each other");
  EXPECT_NE(ErrorOf({"vm1", "wait"}).find("STATE"), std::string::npos);
  EXPECT_NE(ErrorOf({"vm1", "wait", "happy"}).find("happy"), std::string::npos);
  EXPECT_NE(ErrorOf({"vm1", "status", "--timeout", "-1"}), "no error");
  EXPECT_NE(ErrorOf({"vm1", "status", "--nonsense"}).find("--nonsense"), std::string::npos);
}

TEST(Subcommands, HaveDifferentNamesAndAHelp) {
  std::set<std::string> names;
  for (const Subcommand& command : Subcommands()) {
    EXPECT_TRUE(names.insert(command.name).second) << command.name;
    EXPECT_GT(std::string(command.help).size(), 10U) << command.name;
    const auto help = ParseCommandLine({command.name, "--help"});
    ASSERT_TRUE(help);
    EXPECT_NE(std::get<HelpText>(*help).text.find(command.help), std::string::npos) << command.name;
  }
}

TEST(Subcommands, AreInTheManualWithTheirFlags) {
  const char* const path = std::getenv("MAN_PAGE");
  ASSERT_NE(path, nullptr);
  std::stringstream page;
  page << std::ifstream(path).rdbuf();
  for (const Subcommand& command : Subcommands()) {
    const auto at = page.str().find(std::string(".It Cm ") + command.name);
    const bool shared = std::set<std::string>{"cont", "disks", "memory"}.contains(command.name);
    EXPECT_TRUE(at != std::string::npos || shared) << command.name;
    for (const Flag& flag : command.flags) {
      EXPECT_NE(page.str().find(std::string("Fl \\-") + flag.name), std::string::npos) << flag.name;
    }
  }
}

class Completions : public ::testing::TestWithParam<const char*> {};

TEST_P(Completions, KnowEverySubcommandAndParse) {
  const std::string script = CompletionScript(GetParam());
  for (const Subcommand& command : Subcommands()) {
    EXPECT_NE(script.find(command.name), std::string::npos) << command.name;
    for (const Flag& flag : command.flags) {
      EXPECT_NE(script.find(flag.name), std::string::npos) << command.name << " " << flag.name;
    }
  }
  const auto result = test::RunProcess({GetParam(), "-n", "/dev/stdin"}, script);
  if (result.exit_status == 127) {
    GTEST_SKIP() << GetParam() << " is not installed";
  }
  EXPECT_EQ(result.exit_status, 0) << result.Describe();
  EXPECT_EQ(result.err, "");
}

INSTANTIATE_TEST_SUITE_P(Shells, Completions, ::testing::Values("bash", "zsh", "fish"),
                         [](const auto& instance) { return std::string(instance.param); });

std::string BashCompletes(const std::string& words) {
  const std::string script = CompletionScript("bash") +
                             "gyrectl() { echo vm-one; }\n"
                             "COMP_WORDS=(" +
                             words +
                             "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _gyrectl\n"
                             "echo \"${COMPREPLY[*]}\"\n";
  return test::RunProcess({"bash"}, script).out;
}

TEST(BashCompletion, OffersWhatFits) {
  EXPECT_EQ(BashCompletes("gyrectl sta"), "status stats\n");
  EXPECT_EQ(BashCompletes("gyrectl vm-"), "vm-one\n");
  EXPECT_EQ(BashCompletes("gyrectl vm1 wait pa"), "paused\n");
  EXPECT_EQ(BashCompletes("gyrectl vm1 events --f"), "--follow\n");
  EXPECT_EQ(BashCompletes("gyrectl --js"), "--json\n");
}

TEST(Line, SplitsLikeAShell) {
  EXPECT_EQ(SplitWords("  a  'b c' \"d \\\" e\" f\\ g ''").value(),
            (std::vector<std::string>{"a", "b c", "d \" e", "f g", ""}));
  EXPECT_TRUE(SplitWords("  ").value().empty());
  EXPECT_EQ(SplitWords("a 'b").error().message, "no closing '");
}

TEST(Line, KeepsALiteralAsItStands) {
  EXPECT_EQ(SplitWords(R"(x a=[{"b": "c d"}, 'e]'] {"f": 1} g{"h"})").value(),
            (std::vector<std::string>{"x", R"(a=[{"b": "c d"}, 'e]'])", R"({"f": 1})", "g{h}"}));
  EXPECT_EQ(SplitWords(R"(x a='{"b": 1}' c="[1]")").value(),
            (std::vector<std::string>{"x", R"(a={"b": 1})", "c=[1]"}));
  EXPECT_EQ(SplitWords("x a=[1").error().message, "no closing ]");
  EXPECT_EQ(SplitWords("x a=[1}").error().message, "no closing ]");
  EXPECT_EQ(SplitWords("x a={'b").error().message, "no closing '");
}

TEST(Line, ReadsWhatQmpShellReads) {
  const auto words = SplitWords(R"(x providers=[{"provider":"kvm"}] paging=False detach=True a.b=c a.d.e=2 )"
                                R"(p={'k':'it\'s "q"','l':[True,None,false]} bad=[Truest])");
  ASSERT_TRUE(words) << words.error().message;
  const auto arguments = ArgumentsOf(*words);
  ASSERT_TRUE(arguments) << arguments.error().message;
  EXPECT_EQ(*arguments, Json::parse(R"({"providers": [{"provider": "kvm"}], "paging": false, "detach": true,)"
                                    R"("a": {"b": "c", "d": {"e": 2}}, "bad": "[Truest]",)"
                                    R"("p": {"k": "it's \"q\"", "l": [true, null, false]}})"));
}

TEST(Line, ReadsArguments) {
  const auto arguments = ArgumentsOf({"x", "val=0", "filename=/tmp/x", "on=true", "a.b=[1]", "a.c=text"});
  ASSERT_TRUE(arguments) << arguments.error().message;
  EXPECT_EQ(*arguments,
            Json({{"val", 0}, {"filename", "/tmp/x"}, {"on", true}, {"a", {{"b", {1}}, {"c", "text"}}}}));
  EXPECT_EQ(ArgumentsOf({"x", "y"}).error().message, "'y' is not of the form KEY=VALUE");
  EXPECT_EQ(ArgumentsOf({"x", "y=1", "y=2"}).error().message, "'y' is given twice");
  EXPECT_EQ(ArgumentsOf({"x", "y=1", "y.z=2"}).error().message, "'y' has no members");
}

TEST(Line, Completes) {
  const std::vector<std::string> commands = {"query-status", "query-stats"};
  EXPECT_EQ(Complete("que", commands).insert, "ry-stat");
  EXPECT_EQ(Complete("query-stat", commands).candidates,
            (std::vector<std::string>{"query-stats", "query-status"}));
  EXPECT_EQ(Complete("query-statu", commands).insert, "s ");
  EXPECT_EQ(Complete("wait pau", commands).insert, "sed ");
  EXPECT_EQ(Complete("events --f", commands).insert, "ollow ");
  EXPECT_EQ(Complete("zzz", commands).insert, "");
}

TEST(Escape, IsFoundHoweverItIsCut) {
  EscapeFilter filter;
  EXPECT_EQ(filter.Take("abc\x1d").bytes, "abc");
  EXPECT_TRUE(filter.Take(".").ends);
  EscapeFilter other;
  const auto result = other.Take(
      "a\x1d\x1d"
      "b\x1dx\x1d?");
  EXPECT_EQ(result.bytes,
            "a\x1d"
            "b\x1dx");
  EXPECT_TRUE(result.help);
  EXPECT_FALSE(result.ends);
}

TEST(Output, MakesServersTextHarmless) {
  EXPECT_EQ(Harmless("a\x1b[31mb\x07"), "a?[31mb?");
  EXPECT_EQ(Harmless("line\nnext"), "line?next");
  EXPECT_EQ(Harmless("line\r\nnext\t\x1b", true), "line\nnext\t?");
  EXPECT_EQ(Harmless("gr\xc3\xbc\xc3\x9f \xc2\x9b \xff \xe2\x82"), "gr\xc3\xbc\xc3\x9f ?? ? ??");
}

TEST(Output, AlignsTables) {
  Table table;
  table.Head({"NAME", "VALUE"});
  table.Row({"\xc3\xa4", "12"});
  table.Row({"long name", "3"});
  EXPECT_EQ(table.Text(false), "NAME       VALUE\n\xc3\xa4             12\nlong name      3\n");
  EXPECT_EQ(table.Text(true).substr(0, 4), "\x1b[1m");
}

TEST(Output, TableOfAHostileServer_IsCut) {
  Table table;
  table.Head(std::vector<std::string>(Table::kMostColumns + 5, "H"));
  std::string longest;
  for (std::size_t i = 0; i < Table::kMostCell + 1; ++i) {
    longest += "\xc3\xa4";
  }
  table.Row({longest});
  for (std::size_t i = 1; i < Table::kMostRows + 7; ++i) {
    table.Row({"x"});
  }
  const std::string text = table.Text(false);
  const std::string cut = longest.substr(0, 2 * (Table::kMostCell - 1)) + "\xe2\x80\xa6";
  EXPECT_NE(text.find("\n" + cut + "\n"), std::string::npos);
  EXPECT_EQ(std::ranges::count(text.substr(0, text.find('\n')), 'H'), std::ptrdiff_t{Table::kMostColumns});
  EXPECT_EQ(std::ranges::count(text, '\n'), std::ptrdiff_t{1 + Table::kMostRows + 1});
  EXPECT_TRUE(text.ends_with("(7 rows and 5 columns are left out; --json has them)\n"));
  EXPECT_EQ(Shortened(longest, Table::kMostCell + 1), longest);
}

TEST(Output, SizesAndProgress) {
  EXPECT_EQ(SizeText(0), "0 bytes");
  EXPECT_EQ(SizeText(256 << 20), "256 MiB");
  EXPECT_EQ(SizeText(1536), "1.5 KiB");
  EXPECT_EQ(SizeText(~std::uint64_t{0}), "15.9 EiB");
  EXPECT_EQ(ProgressLine("dump", 50, 100),
            "dump [###############...............]  50%  50 bytes of 100 bytes");
  EXPECT_EQ(ProgressLine("dump", 200, 100).substr(0, 36), "dump [##############################");
  EXPECT_EQ(ProgressLine("dump", 5, 0), "dump  5 bytes");
}

TEST(Runtime, FindsVmsByTheirSockets) {
  FakeServer server([](const Json&) { return std::string(); });
  const std::string root = server.directory() + "/run";
  for (const std::string name : {"b", "a", "no-socket"}) {
    ::mkdir(root.c_str(), 0700);
    ::mkdir((root + "/" + name).c_str(), 0700);
  }
  EXPECT_EQ(ChooseVm({root}, "").error().exit, Exit::kNoConnection);
  std::filesystem::create_hard_link(server.path(), root + "/a/qmp.sock");
  EXPECT_EQ(ChooseVm({root}, "")->name, "a");
  std::filesystem::create_hard_link(server.path(), root + "/b/qmp.sock");
  const auto vms = FindVms({"/nonexistent", root});
  ASSERT_EQ(vms.size(), 2U);
  EXPECT_EQ(vms[0].name, "a");
  EXPECT_EQ(ChooseVm({root}, "b")->socket, root + "/b/qmp.sock");
  EXPECT_EQ(ChooseVm({root}, "").error().exit, Exit::kUsage);
  EXPECT_EQ(ChooseVm({root}, "c").error().exit, Exit::kNoConnection);
  EXPECT_EQ(ChooseVm({root}, "../a").error().exit, Exit::kUsage);
}

}  // namespace
}  // namespace gyre::ctl
