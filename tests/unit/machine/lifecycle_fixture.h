// A lifecycle on a real main loop, with a target that only writes down what it is told.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gyre/base/big_lock.h"
#include "src/machine/lifecycle.h"

namespace gyre::machine {

class FakeTarget final : public LifecycleTarget {
 public:
  explicit FakeTarget(std::vector<std::string>& calls) : calls_(calls) {}
  void PauseVcpus() override {
    calls_.emplace_back("pause");
    if (auto hook = std::exchange(while_pausing, nullptr)) {
      hook();
    }
  }
  void ResumeVcpus() override { calls_.emplace_back("resume"); }
  void StopCurrentVcpu() override { ++stops; }
  void InjectNmi() override { calls_.emplace_back("nmi"); }
  Status ResetMachine() override {
    calls_.emplace_back("reset");
    return reset_error ? Status(Fail(Error::Host("image lost"))) : Status();
  }

  std::move_only_function<void()> while_pausing;
  int stops = 0;
  bool reset_error = false;

 private:
  std::vector<std::string>& calls_;
};

class LifecycleTest : public ::testing::Test {
 protected:
  LifecycleTest() NO_THREAD_SAFETY_ANALYSIS {
    big_lock_.Lock();
    loop_ = loop::MainLoop::Create(big_lock_).value();
    Make({});
  }
  ~LifecycleTest() override { Free(); }
  void Free() NO_THREAD_SAFETY_ANALYSIS {
    lifecycle_.reset();
    loop_.reset();
    big_lock_.Unlock();
  }
  void Make(const Actions& actions) {
    lifecycle_ = std::make_unique<Lifecycle>(*loop_, events_, target_, actions);
  }
  // What happened since the last call: target calls and events, in order.
  std::vector<std::string> Took() { return std::exchange(log_, {}); }

  BigLock big_lock_;
  std::unique_ptr<loop::MainLoop> loop_;
  EventBus events_;
  std::vector<std::string> log_;
  FakeTarget target_{log_};
  EventBus::Subscription subscription_ =
      events_.Subscribe([this](const Event& event) { log_.push_back(Describe(event)); });
  std::unique_ptr<Lifecycle> lifecycle_;
};

}  // namespace gyre::machine
