// The heap against a plain model: random sets, cancels and passes.
#include "loop/timer_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>

namespace gyre::loop {
namespace {

struct Model {
  std::multimap<std::int64_t, std::size_t> set;  // deadline to timer; equal ones in the order of setting
  void Remove(std::size_t timer) {
    std::erase_if(set, [&](const auto& entry) { return entry.second == timer; });
  }
};

std::vector<std::size_t> Pass(TimerQueue& queue, std::int64_t now,
                              const std::vector<std::shared_ptr<TimerEntry>>& timers) {
  std::vector<std::size_t> fired;
  queue.CollectDue(now);
  while (const auto entry = queue.TakeDue()) {
    fired.push_back(static_cast<std::size_t>(std::ranges::find(timers, entry) - timers.begin()));
  }
  return fired;
}

TEST(TimerQueue, RandomSetsAndCancels_AgreeWithASortedList) {
  std::mt19937 random(20240607);  // NOLINT(bugprone-random-generator-seed): the same run each time
  TimerQueue queue;
  Model model;
  std::vector<std::shared_ptr<TimerEntry>> timers(40);
  std::ranges::generate(timers, [] { return std::make_shared<TimerEntry>(Callback()); });
  for (std::int64_t now = 0; now < 3000; ++now) {
    const std::size_t timer = random() % timers.size();
    model.Remove(timer);
    if (random() % 4 == 0) {
      queue.Cancel(*timers[timer]);
    } else {
      const std::int64_t deadline = now + static_cast<std::int64_t>(random() % 50);
      model.set.emplace(deadline, timer);
      const bool first = queue.Set(*timers[timer], deadline);
      EXPECT_EQ(first, model.set.begin()->second == timer);
    }
    if (random() % 5 != 0) {
      continue;
    }
    std::vector<std::size_t> expected;
    while (!model.set.empty() && model.set.begin()->first <= now) {
      expected.push_back(model.set.begin()->second);
      model.set.erase(model.set.begin());
    }
    EXPECT_EQ(Pass(queue, now, timers), expected);
    ASSERT_EQ(queue.Earliest(), model.set.empty() ? std::nullopt : std::optional(model.set.begin()->first));
  }
  for (const auto& timer : timers) {
    queue.Cancel(*timer);
  }
  EXPECT_EQ(queue.Earliest(), std::nullopt);
}

TEST(TimerQueue, PassEndedEarly_KeepsTheRestInTheirOrder) {
  TimerQueue queue;
  std::vector<std::shared_ptr<TimerEntry>> timers(6);
  for (auto& timer : timers) {
    timer = std::make_shared<TimerEntry>(Callback());
    queue.Set(*timer, 7);
  }
  queue.CollectDue(7);
  EXPECT_EQ(queue.TakeDue(), timers[0]);
  queue.PutBackDue();
  EXPECT_TRUE(queue.IsSet(*timers[5]));
  EXPECT_EQ(Pass(queue, 7, timers), (std::vector<std::size_t>{1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace gyre::loop
