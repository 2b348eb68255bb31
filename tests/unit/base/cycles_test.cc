#include "gyre/base/cycles.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "gyre/base/trace.h"

namespace gyre {
namespace {

// How far the counter's time is from the clock's, as a part of it, over `ns` of it.
double Deviation(std::int64_t ns) {
  const std::uint64_t from = Cycles();
  const std::int64_t start = trace::NowNs();
  std::int64_t end = start;
  while (end - start < ns) {
    end = trace::NowNs();
  }
  const auto by_counter = static_cast<double>(CyclesToNs(Cycles() - from));
  return std::abs(by_counter / static_cast<double>(end - start) - 1);
}

// Whoever loses the processor between the readings tries again.
bool AgreeOnce(std::int64_t ns, double most) {
  for (int i = 0; i < 20; ++i) {
    if (Deviation(ns) < most) {
      return true;
    }
  }
  return false;
}

TEST(CyclesTest, TheCountersTimeIsTheClocks) {
  EXPECT_TRUE(AgreeOnce(20'000'000, 0.002));
  EXPECT_EQ(CyclesToNs(0), 0);
}

TEST(CyclesTest, OfALaterMomentFirst_IsLessThanNothing) {
  constexpr std::uint64_t kSecond = 1'000'000'000;  // about that
  const std::int64_t forth = CyclesToNs(kSecond);
  EXPECT_GT(forth, 0);
  EXPECT_NEAR(static_cast<double>(CyclesToNs(0 - kSecond)), static_cast<double>(-forth), 2.0);
}

}  // namespace
}  // namespace gyre
