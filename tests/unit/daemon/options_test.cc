#include "src/daemon/options.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace gyre::daemon {
namespace {

Result<std::variant<Options, Text>> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "gyred");
  return ParseOptions(static_cast<int>(arguments.size()), arguments.data());
}

std::string ErrorOf(std::vector<const char*> arguments) {
  const auto parsed = Parse(std::move(arguments));
  return parsed ? "no error" : parsed.error().message();
}

TEST(Options, Defaults_AreTheDocumentedOnes) {
  const auto parsed = Parse({"--kernel", "k"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& options = std::get<Options>(*parsed);
  EXPECT_EQ(options.machine.memory_size, 256 * kMiB);
  EXPECT_EQ(options.machine.vcpus, 1U);
  EXPECT_EQ(options.machine.serial, "stdio");
  EXPECT_TRUE(options.machine.acpi);
  EXPECT_FALSE(options.machine.legacy_irq);
  EXPECT_FALSE(options.paused);
}

TEST(Options, Trace_NamesItsFile) {
  const auto parsed = Parse({"--kernel", "k", "--trace", "t.json"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(std::get<Options>(*parsed).trace_file, "t.json");
}

TEST(Options, EachMistake_IsOneClearLine) {
  EXPECT_EQ(ErrorOf({}), "--kernel is required");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "0"}), "--memory: a guest needs some");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "1000K"}),
            "--memory: 1024000 bytes is not a whole number of MiB");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "12Q"}),
            "--memory: '12Q' is not a size such as 256M or 2G");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "99999999999T"}),
            "--memory: '99999999999T' is not a size such as 256M or 2G");
  EXPECT_NE(ErrorOf({"--kernel", "k", "--memory", "4096T"}).find("more than the"), std::string::npos);
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--cpus", "0"}), "--cpus: 0 is not between 1 and 254");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--cpus", "255"}), "--cpus: 255 is not between 1 and 254");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--cpus", "two"}), "--cpus: 'two' is not a number of CPUs");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--acpi", "maybe"}), "--acpi: 'maybe' is not one of off, on");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "extra"}), "unexpected argument 'extra'");
}

TEST(Options, UnknownOption_IsAnsweredWithTheNearestOne) {
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memroy", "1G"}),
            "unknown option '--memroy'; did you mean '--memory'?");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--cpu=2"}), "unknown option '--cpu=2'; did you mean '--cpus'?");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--zzzzzzz"}), "unknown option '--zzzzzzz'");
}

TEST(Options, ParseSize_KnowsItsUnits) {
  EXPECT_EQ(ParseSize("64").value(), 64 * kMiB);
  EXPECT_EQ(ParseSize("64K").value(), 64 * kKiB);
  EXPECT_EQ(ParseSize("3G").value(), 3 * kGiB);
  EXPECT_FALSE(ParseSize(""));
  EXPECT_FALSE(ParseSize("-1"));
  EXPECT_FALSE(ParseSize("1GB"));
  EXPECT_FALSE(ParseSize("18446744073709551616"));
}

class ConfigFile : public ::testing::Test {
 protected:
  ConfigFile() { ::close(::mkstemp(path_)); }
  ~ConfigFile() override { ::unlink(path_); }
  void Write(const std::string& text) { std::ofstream(path_) << text; }
  char path_[64] = "/tmp/gyre-options-XXXXXX";
};

TEST_F(ConfigFile, HasTheSameNames_AndTheCommandLineWins) {
  Write("kernel=from-file\nmemory=1G\ncpus=4\naction=\"reboot=shutdown,panic=none\"\npaused=true\n");
  const auto parsed = Parse({"--config", path_, "--cpus", "2"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& options = std::get<Options>(*parsed);
  EXPECT_EQ(options.boot.kernel_path, "from-file");
  EXPECT_EQ(options.machine.memory_size, kGiB);
  EXPECT_EQ(options.machine.vcpus, 2U);
  EXPECT_TRUE(options.paused);
  EXPECT_EQ(options.machine.actions.reboot, machine::RebootAction::kShutdown);
  EXPECT_EQ(options.machine.actions.panic, machine::PanicAction::kNone);
}

TEST_F(ConfigFile, UnknownName_IsRefused) {
  Write("kernel=k\nmemroy=1G\n");
  EXPECT_NE(ErrorOf({"--config", path_}).find("memroy"), std::string::npos) << ErrorOf({"--config", path_});
}

TEST_F(ConfigFile, Missing_IsRefused) {
  EXPECT_NE(ErrorOf({"--config", "/nonexistent.conf"}).find("/nonexistent.conf"), std::string::npos);
}

TEST(Options, HelpAndVersion_AreTexts) {
  const auto help = Parse({"--help"});
  ASSERT_TRUE(help);
  EXPECT_NE(std::get<Text>(*help).text.find("--boot-timeline"), std::string::npos);
  const auto version = Parse({"--version"});
  ASSERT_TRUE(version);
  EXPECT_EQ(std::get<Text>(*version).text, "gyred " GYRE_VERSION "\n");
}

}  // namespace
}  // namespace gyre::daemon
