// The dump of guest memory that is being written, if one is, and how the last one
// ended. Big lock's holder, but for the counters.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "gyre/loop/event_loop.h"
#include "src/control/command.h"
#include "src/control/json.h"
#include "src/control/output_file.h"

namespace gyre::control {

class Dump {
 public:
  enum class State : std::uint8_t { kNone, kActive, kCompleted, kFailed };
  struct Plan {
    std::uint64_t begin = 0;
    std::uint64_t length = UINT64_MAX;
    bool paging = false;  // segments are by linear address
    bool detach = false;  // answer at once
  };

  bool active() const { return state_ == State::kActive; }
  // Stops the VM, writes on a thread, and starts the VM again if it ran.
  // Unless it is detached, `client`'s end is its end.
  void Start(Services& services, const ClientState& client, OutputFile file, const Plan& plan, Done done);
  // The end has come: the VM is not started again.
  void StayStopped() { resume_ = false; }
  // {"status", "completed", "total"}.
  Json Describe() const;

 private:
  struct Progress {
    std::atomic<std::uint64_t> completed{0};
    std::atomic<std::uint64_t> total{0};
  };
  struct Core;
  void Tell(Services& services);
  void Finish(Services& services, const Outcome& outcome);

  State state_ = State::kNone;
  bool resume_ = false;
  std::unique_ptr<loop::Timer> progress_timer_;  // while one is active
  std::shared_ptr<Progress> progress_ = std::make_shared<Progress>();
};

}  // namespace gyre::control
