// What stands in for the rest of the machine in device tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gyre/base/irq.h"
#include "gyre/devices/char_backend.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/region.h"
#include "tests/support/manual_time.h"

namespace gyre::devices {

// A wire that counts its rising edges, as an edge-triggered pin does.
class FakeLine final : public IrqLine {
 public:
  void Set(bool asserted) override {
    edges += asserted && !high ? 1 : 0;
    high = asserted;
  }
  bool high = false;
  int edges = 0;
};

class FakeMsi final : public MsiSink {
 public:
  void Send(const MsiMessage& message) override { sent.push_back(message); }
  void SetRoute(Gsi gsi, const std::optional<MsiMessage>& message) override {
    routes.at(gsi.value()) = message;
    ++route_changes;
  }
  std::vector<MsiMessage> sent;
  std::vector<std::optional<MsiMessage>> routes = std::vector<std::optional<MsiMessage>>(48);
  int route_changes = 0;
};

// A host that takes as much as `room` says.
class FakeBackend final : public CharBackend {
 public:
  std::size_t Write(std::span<const std::uint8_t> bytes) override {
    const std::size_t taken = std::min(bytes.size(), room);
    room -= taken;
    output.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
    return taken;
  }
  void SetFrontend(CharFrontend* new_frontend) override { frontend = new_frontend; }
  void ResumeInput() override { ++resumes; }
  std::string filename() const override { return "fake"; }
  bool open() const override { return is_open; }
  WindowSize size() const override { return window; }

  // Sends as the real ones do: no more than there is room for, the rest stays.
  void Deliver() {
    const std::size_t size = std::min(frontend->ReceiveRoom(), input.size());
    const std::string piece = input.substr(0, size);
    input.erase(0, size);
    if (size != 0) {
      frontend->Receive({reinterpret_cast<const std::uint8_t*>(piece.data()), piece.size()});
    }
  }
  void MakeRoom(std::size_t bytes) {
    room = bytes;
    frontend->WriteReady();
  }

  std::size_t room = SIZE_MAX;
  std::string output;
  std::string input;
  int resumes = 0;
  bool is_open = true;
  WindowSize window;
  CharFrontend* frontend = nullptr;
};

// A main loop on hand-set or real clocks, the big lock held.
class LoopTest : public testing::Test {
 public:
  LoopTest(const LoopTest&) = delete;
  LoopTest& operator=(const LoopTest&) = delete;

 protected:
  explicit LoopTest(const loop::TimeSource* source = nullptr) NO_THREAD_SAFETY_ANALYSIS {
    big_lock_.Lock();
    loop_ = loop::MainLoop::Create(big_lock_, source != nullptr ? *source : time_).value();
    loop_->EnableClock(loop::ClockType::kVirtual, true);
  }
  ~LoopTest() override {
    loop_.reset();
    UnlockAll();
  }

  // Both clocks go on by `ns`, and what is due runs.
  void Advance(std::int64_t ns) {
    time_.Advance(ns);
    RunPending();
  }
  void RunPending() NO_THREAD_SAFETY_ANALYSIS { loop_->RunOnce(true); }

  BigLock big_lock_;
  test::ManualTime time_;
  std::unique_ptr<loop::MainLoop> loop_;

 private:
  void UnlockAll() NO_THREAD_SAFETY_ANALYSIS { big_lock_.Unlock(); }
};

// Random accesses of every size to `size` bytes of registers: nothing may abort,
// hang or leave its bounds. `between` lets the world move on.
inline void FuzzRegisters(memory::RegionHandler& device, std::uint64_t size, unsigned seed,
                          const std::function<void(std::uint64_t)>& between = {}) {
  SCOPED_TRACE(seed);
  std::uint64_t state = 0x9e3779b97f4a7c15ULL * (seed + 1);
  const auto next = [&state] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  };
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t offset = next() % size;
    const unsigned width = 1U << (next() % 4 == 0 ? next() % 4 : 0);
    if (next() % 2 == 0) {
      device.Write(offset, width, next() >> (next() % 64));
    } else {
      device.Read(offset, width);
    }
    if (between && next() % 4 == 0) {
      between(next());
    }
  }
}

}  // namespace gyre::devices
