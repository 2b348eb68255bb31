// How much a balloon that follows the host asks for.
#include "devices/virtio/balloon_policy.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "gyre/base/types.h"

namespace gyre::virtio {
namespace {

using Turn = BalloonPolicy::Turn;

class PolicyTest : public testing::Test {
 protected:
  std::uint64_t Next(std::uint32_t permille, std::uint64_t target_mib, std::uint64_t available_mib) {
    return policy.Next({.permille = permille,
                        .least = 32 * kMiB,
                        .target = target_mib * kMiB,
                        .size = target_mib * kMiB,
                        .available = available_mib * kMiB}) /
           kMiB;
  }
  BalloonPolicy policy{{.limit = 512 * kMiB, .reserve = 64 * kMiB}};
};

TEST_F(PolicyTest, UnderPressureItTakesStepsToItsLimit) {
  EXPECT_EQ(Next(100, 32, 1000), 64U);
  EXPECT_EQ(Next(1000, 500, 1000), 512U);
  EXPECT_EQ(Next(1000, 512, 1000), 512U);
  EXPECT_EQ(Next(1000, 600, 1000), 600U) << "asked for by hand";
  EXPECT_EQ(Next(99, 100, 1000), 100U);
}

TEST_F(PolicyTest, TheGuestKeepsItsReserve) {
  EXPECT_EQ(Next(500, 100, 70), 106U);
  EXPECT_EQ(Next(500, 100, 64), 100U);
  EXPECT_EQ(Next(500, 100, 31), 68U) << "it gets some back";
  EXPECT_EQ(Next(500, 40, 31), 32U) << "but not of what was asked for by hand";
  EXPECT_EQ(policy.Next({.permille = 500, .target = 100 * kMiB, .size = 100 * kMiB}), 100 * kMiB)
      << "a guest that tells nothing is not asked for more";
}

TEST_F(PolicyTest, WhatTheGuestStillOwesIsNotGrown) {
  EXPECT_EQ(policy.Next({.permille = 500, .target = 100 * kMiB, .size = 99 * kMiB, .available = kGiB}),
            100 * kMiB);
}

TEST_F(PolicyTest, CalmGivesBackSlowly) {
  for (unsigned turn = 1; turn < BalloonPolicy::kCalmTurns; ++turn) {
    EXPECT_EQ(Next(0, 100, 1000), 100U) << turn;
  }
  EXPECT_EQ(Next(10, 100, 1000), 68U);
  EXPECT_EQ(Next(0, 68, 1000), 68U) << "and counts anew";
  EXPECT_EQ(Next(50, 68, 1000), 68U);
  for (unsigned turn = 1; turn < BalloonPolicy::kCalmTurns; ++turn) {
    EXPECT_EQ(Next(0, 33, 1000), 33U) << turn;
  }
  EXPECT_EQ(Next(0, 33, 1000), 32U) << "down to what was asked for by hand";
}

class PressureTest : public testing::Test {
 protected:
  PressureTest() : path(testing::TempDir() + "pressure." + std::to_string(::getpid())) {}
  ~PressureTest() override { std::remove(path.c_str()); }
  void Say(const std::string& text) const { std::ofstream(path) << text; }
  std::string path;
};

TEST_F(PressureTest, IsThePartOfTheTimeSinceTheLastLook) {
  Say("some avg10=1.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 "
      "total=5\n");
  HostPressure pressure(path);
  EXPECT_EQ(pressure.Look(1'000'000'000), 0U) << "nothing is known of before";
  Say("some avg10=1.00 avg60=0.00 avg300=0.00 total=1500000\n");
  EXPECT_EQ(pressure.Look(3'000'000'000), 250U);
  EXPECT_EQ(pressure.permille(), 250U);
  EXPECT_EQ(pressure.Look(5'000'000'000), 0U);
  Say("some avg10=1.00 avg60=0.00 avg300=0.00 total=99000000\n");
  EXPECT_EQ(pressure.Look(6'000'000'000), 1000U) << "of several waiters' time, at most all";
  Say("some avg10=1.00 avg60=0.00 avg300=0.00 total=7\n");
  EXPECT_EQ(pressure.Look(7'000'000'000), 0U) << "another cgroup's, or a counter that began anew";
}

TEST_F(PressureTest, AFileThatTellsNothingIsNone) {
  HostPressure pressure(path);
  EXPECT_FALSE(pressure.Look(1));
  for (const char* const text :
       {"", "some\n", "full avg10=0.00 total=5\n", "some avg10=0.00 total=\n", "some total\n"}) {
    Say(text);
    EXPECT_FALSE(pressure.Look(2)) << text;
  }
  Say("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n");
  EXPECT_EQ(pressure.Look(3), 0U);
}

}  // namespace
}  // namespace gyre::virtio
