// --iothread: what its text says, what is refused and how, and which threads a device's names mean.
#include "src/machine/io_threads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/unit/devices/device_fakes.h"

namespace gyre::machine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ParseIoThreadTest, AnIdAloneLeavesTheRestAsItIs) {
  const auto config = ParseIoThread("disk-0_a.b");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->id, "disk-0_a.b");
  EXPECT_TRUE(config->cpus.empty());
  EXPECT_EQ(config->poll.max_ns, loop::PollLimits().max_ns);
  EXPECT_EQ(config->poll.max_ns, 0) << "polling is off unless it is asked for";
}

TEST(ParseIoThreadTest, TakesCpusAsNumbersAndRangesAndSeveralTimes) {
  const auto config = ParseIoThread("a,cpus=3,cpus=5-7,cpus=0");
  ASSERT_TRUE(config);
  EXPECT_THAT(config->cpus, ElementsAre(3, 5, 6, 7, 0));
}

TEST(ParseIoThreadTest, TakesTheLimitsOfPolling) {
  const auto config = ParseIoThread("a,poll-max-ns=10000000,poll-grow=1000,poll-shrink=0");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->poll.max_ns, 10'000'000);
  EXPECT_EQ(config->poll.grow, 1000U);
  EXPECT_EQ(config->poll.shrink, 0U);
}

TEST(ParseIoThreadTest, WhatIsWrongIsRefusedAndSaidSo) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"", "'' is not an ID"},
      {",cpus=0", "'' is not an ID"},
      {"a b", "'a b' is not an ID"},
      {"a:b", "'a:b' is not an ID"},
      {std::string(33, 'a'), "1 to 32 of letters"},
      {"a,", "'' is not of the form key=value"},
      {"a,cpus", "'cpus' is not of the form key=value"},
      {"a,cpu=1", "'cpu' is not one of cpus, poll-max-ns, poll-grow, poll-shrink"},
      {"a,cpus=", "cpus=: is not a CPU or a range"},
      {"a,cpus=x", "cpus=x: is not a CPU or a range"},
      {"a,cpus=3-1", "cpus=3-1: is not a CPU or a range"},
      {"a,cpus=1-", "cpus=1-: is not a CPU or a range"},
      {"a,cpus=-1", "cpus=-1: is not a CPU or a range"},
      {"a,cpus=0-1-2", "cpus=0-1-2: is not a CPU or a range"},
      {"a,cpus=0-1024", "cpus=0-1024: is not a CPU or a range"},
      {"a,cpus=4294967296", "cpus=4294967296: is not a CPU or a range"},
      {"a,poll-max-ns=10000001", "poll-max-ns=10000001: must be a number from 0 to 10000000"},
      {"a,poll-max-ns=-1", "poll-max-ns=-1: must be a number"},
      {"a,poll-grow=1001", "poll-grow=1001: must be a number from 0 to 1000"},
      {"a,poll-shrink=2x", "poll-shrink=2x: must be a number"}};
  for (const auto& [text, message] : wrong) {
    const auto config = ParseIoThread(text);
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().kind(), ErrorKind::kUsage) << text;
    EXPECT_THAT(config.error().message(), HasSubstr(message)) << text;
  }
}

class IoThreadsTest : public devices::LoopTest {
 protected:
  Result<IoThreads> Make(const std::vector<std::string>& ids) {
    std::vector<IoThreadConfig> configs;
    for (const std::string& id : ids) {
      configs.push_back(ParseIoThread(id).value());
    }
    return IoThreads::Create(*loop_, configs);
  }
};

TEST_F(IoThreadsTest, NamesMeanThreadsInTheirOrderAndMayRepeat) {
  const auto threads = Make({"a", "b"});
  ASSERT_TRUE(threads);
  const auto named = threads->Named("b:a:b");
  ASSERT_TRUE(named);
  loop::IoThread* const a = threads->all()[0].thread.get();
  loop::IoThread* const b = threads->all()[1].thread.get();
  EXPECT_THAT(*named, ElementsAre(b, a, b));
  EXPECT_EQ(a->name(), "io-a");
  EXPECT_TRUE(threads->Named("").value().empty()) << "the main loop serves";
}

TEST_F(IoThreadsTest, ANameOfNoThreadIsRefused) {
  const auto threads = Make({"a"});
  ASSERT_TRUE(threads);
  for (const std::string text : {"b", "a:b", "aa", "a::a", ":a", "a:"}) {
    const auto named = threads->Named(text);
    ASSERT_FALSE(named) << text;
    EXPECT_EQ(named.error().kind(), ErrorKind::kUsage);
    EXPECT_THAT(named.error().message(), HasSubstr("there is no --iothread of that name")) << text;
  }
}

TEST_F(IoThreadsTest, ThreadsThatCannotBeAreRefused) {
  const auto twice = Make({"a", "b", "a"});
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().message(), HasSubstr("--iothread: 'a' comes twice"));
  std::vector<std::string> many(65, "x");
  const auto too_many = Make(many);
  ASSERT_FALSE(too_many);
  EXPECT_THAT(too_many.error().message(), HasSubstr("65 I/O threads are more than 64"));
  const auto elsewhere = Make({"a,cpus=1023"});
  ASSERT_FALSE(elsewhere) << "no machine of ours has so many CPUs";
  EXPECT_THAT(elsewhere.error().message(), HasSubstr("--iothread"));
}

}  // namespace
}  // namespace gyre::machine
