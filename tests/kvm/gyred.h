// gyred with a freestanding guest, as a user starts it. GYRED names the program
// and GUESTS the directory of the guests; meson sets both.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/process.h"

namespace gyre::test {

// What the guests' runtime writes to the exit port, as the host sees it.
inline constexpr int kGuestPassed = 43;
// gyred's own statuses.
inline constexpr int kCleanEnd = 0;
inline constexpr int kBadUsage = 2;
inline constexpr int kGuestCrash = 3;

using Arguments = std::vector<std::string>;

// Each test is skipped, with the reason, where /dev/kvm cannot be used.
class GyredTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  static std::string Guest(std::string_view name);
  // {gyred, --kernel GUEST, ...more}.
  static Arguments Command(std::string_view guest, const Arguments& more = {});
  static ProcessResult RunGuest(std::string_view guest, const Arguments& more = {},
                                std::string_view input = {});
  // Stdin stays open. Fails the test and ends it by exception where it cannot be started.
  static Process StartGuest(std::string_view guest, const Arguments& more = {});

  // A path in a directory that goes with the test.
  std::string TempPath(std::string_view name) const { return directory_ / name; }
  std::string WriteTempFile(std::string_view name, std::string_view content) const;

 private:
  std::filesystem::path directory_;
};

std::vector<std::string> Lines(std::string_view text);
// The rest of each line that starts with `start`.
std::vector<std::string> LinesAfter(std::string_view text, std::string_view start);

}  // namespace gyre::test

// The guest said PASS and nothing else ended the VM.
#define EXPECT_GUEST_PASSES(result, name)                                                     \
  do {                                                                                        \
    const auto& gyre_result = (result);                                                       \
    EXPECT_EQ(gyre_result.exit_status, ::gyre::test::kGuestPassed) << gyre_result.Describe(); \
    EXPECT_TRUE(gyre_result.out.ends_with("PASS " name "\n")) << gyre_result.Describe();      \
  } while (false)
