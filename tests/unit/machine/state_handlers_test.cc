// vm_state_notify of the seed.
#include "src/machine/state_handlers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

namespace gyre::machine {
namespace {

using ::testing::ElementsAre;

class StateHandlersTest : public ::testing::Test {
 protected:
  StateHandlers::Handle Add(const std::string& name, int priority) {
    return handlers_.Add({.priority = priority,
                          .prepare = [this, name](bool, RunState) { log_.push_back("prepare " + name); },
                          .change =
                              [this, name](bool running, RunState) {
                                log_.push_back((running ? "start " : "stop ") + name);
                                return name == "bad" ? Status(Fail(Error::Host("bad " + name))) : Status();
                              }});
  }
  std::vector<std::string> Took() { return std::exchange(log_, {}); }

  StateHandlers handlers_;
  std::vector<std::string> log_;
};

TEST_F(StateHandlersTest, Start_GoesUpInTwoPhases_StopComesBackDown) {
  const auto late = Add("device", 10);
  const auto first = Add("bus", 0);
  const auto second = Add("bus2", 0);
  EXPECT_TRUE(handlers_.Notify(true, RunState::kRunning));
  EXPECT_THAT(Took(), ElementsAre("prepare bus", "prepare bus2", "prepare device", "start bus", "start bus2",
                                  "start device"));
  EXPECT_TRUE(handlers_.Notify(false, RunState::kPaused));
  EXPECT_THAT(Took(), ElementsAre("prepare device", "prepare bus2", "prepare bus", "stop device", "stop bus2",
                                  "stop bus"));
}

TEST_F(StateHandlersTest, Error_IsTheFirstOneAndStopsNobodyElse) {
  const auto one = Add("one", 2);
  const auto bad = Add("bad", 1);
  const auto last = Add("last", 0);
  const auto status = handlers_.Notify(false, RunState::kPaused);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "bad bad");
  EXPECT_THAT(Took(),
              ElementsAre("prepare one", "prepare bad", "prepare last", "stop one", "stop bad", "stop last"));
}

// The seed's list is safe only against removing oneself.
TEST_F(StateHandlersTest, RemovedByAnother_IsNotCalledAnyMore) {
  std::optional<StateHandlers::Handle> victim;
  const auto killer = handlers_.Add({.priority = -1, .change = [&](bool, RunState) {
                                       victim.reset();
                                       return Status();
                                     }});
  victim = Add("victim", 0);
  EXPECT_TRUE(handlers_.Notify(true, RunState::kRunning));
  EXPECT_THAT(Took(), ElementsAre("prepare victim"));
  EXPECT_TRUE(handlers_.Notify(false, RunState::kPaused));
  EXPECT_THAT(Took(), ElementsAre());
}

TEST_F(StateHandlersTest, AddedByAnother_IsCalledFromTheNextOn) {
  std::vector<StateHandlers::Handle> added;
  const auto parent = handlers_.Add({.change = [&](bool, RunState) {
    if (added.empty()) {
      added.push_back(Add("child", 1));
    }
    return Status();
  }});
  EXPECT_TRUE(handlers_.Notify(true, RunState::kRunning));
  EXPECT_THAT(Took(), ElementsAre());
  EXPECT_TRUE(handlers_.Notify(false, RunState::kPaused));
  EXPECT_THAT(Took(), ElementsAre("prepare child", "stop child"));
}

}  // namespace
}  // namespace gyre::machine
