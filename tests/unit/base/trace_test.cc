// The trace file: what a reader of it sees. Parsed by hand, one event a line.
#include "gyre/base/trace.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

namespace gyre::trace {
namespace {

using testing::HasSubstr;

class TraceTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "gyre-trace-" + std::to_string(::getpid()) + ".json";
    session_.emplace(Session::Start(path_).value());
  }
  void TearDown() override { std::filesystem::remove(path_); }
  // Ends the session; the file's lines.
  std::vector<std::string> Lines() {
    session_.reset();
    std::vector<std::string> lines;
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      lines.push_back(line);
    }
    return lines;
  }
  static std::size_t Count(const std::vector<std::string>& lines, const std::string& text) {
    return static_cast<std::size_t>(
        std::ranges::count_if(lines, [&](const auto& line) { return line.contains(text); }));
  }

  std::string path_;
  std::optional<Session> session_;
};

TEST_F(TraceTest, SpansAndInstants_AreEventsOfTheirThread) {
  {
    const Span span("test", "outer");
    Instant("test", "point");
  }
  Complete("test", "given", 5'000'000, 1'500);
  const auto lines = Lines();
  ASSERT_GE(lines.size(), 6U);
  EXPECT_EQ(lines.front(), "[");
  EXPECT_EQ(lines.back(), "]");
  EXPECT_THAT(lines[1], HasSubstr("thread_name"));
  EXPECT_THAT(lines[2], HasSubstr(R"("ph":"i","s":"t","cat":"test","name":"point")"));
  EXPECT_THAT(lines[3], HasSubstr(R"("ph":"X","cat":"test","name":"outer")"));
  EXPECT_THAT(lines[4], HasSubstr(R"("name":"given","ts":4998.500,"dur":1.500)"));
  for (std::size_t i = 1; i + 2 < lines.size(); ++i) {
    EXPECT_TRUE(lines[i].ends_with("},"));
  }
  EXPECT_TRUE(lines[lines.size() - 2].ends_with("}"));
}

TEST_F(TraceTest, ThreadsThatEndedAndThatLive_AreFlushed) {
  for (int i = 0; i < 3; ++i) {
    std::thread([] { Instant("test", "short lived"); }).join();
  }
  Instant("test", "long lived");
  const auto lines = Lines();
  EXPECT_EQ(Count(lines, "short lived"), 3U);
  EXPECT_EQ(Count(lines, "long lived"), 1U);
  EXPECT_EQ(Count(lines, "thread_name"), 4U);
}

TEST_F(TraceTest, MoreEventsThanABufferHolds_NoneIsLost) {
  for (int i = 0; i < 10'000; ++i) {
    Instant("test", "tick");
  }
  EXPECT_EQ(Count(Lines(), "tick"), 10'000U);
}

TEST_F(TraceTest, Off_NothingIsKeptForTheNextSession) {
  session_.reset();
  EXPECT_FALSE(Enabled());
  Instant("test", "unseen");
  {
    const Span span("test", "unseen");
    session_.emplace(Session::Start(path_).value());
  }
  EXPECT_EQ(Count(Lines(), "unseen"), 0U);
}

TEST(Trace, FileThatCannotBeMade_IsAUsageErrorThatNamesIt) {
  const auto session = Session::Start("/nowhere/trace.json");
  ASSERT_FALSE(session.has_value());
  EXPECT_EQ(session.error().kind(), ErrorKind::kUsage);
  EXPECT_THAT(session.error().message(), HasSubstr("/nowhere/trace.json"));
}

}  // namespace
}  // namespace gyre::trace
