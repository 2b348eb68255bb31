// Work that takes long, each on a thread of its own, so that the main loop goes on.
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <thread>

#include "gyre/loop/main_loop.h"
#include "src/control/command.h"

namespace gyre::control {

// Big lock's holder.
class Workers {
 public:
  // Looks at `cancelled` now and then. Without the big lock, and without anything that it guards.
  using Work = std::move_only_function<Outcome(const std::atomic<bool>& cancelled)>;

  explicit Workers(loop::MainLoop& loop) : loop_(loop) {}
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() { Stop(); }

  static constexpr std::size_t kMost = 16;

  using Cancelled = std::shared_ptr<std::atomic<bool>>;
  // `done` is called on the main loop's thread with what `work` has returned; at once, with a refusal, if
  // as many as there may be are at work. `cancelled` is the caller's way to end it early.
  void Run(Work work, Done done, Cancelled cancelled = std::make_shared<std::atomic<bool>>(false));
  // Cancels and waits for all; each `done` is called. None is started afterwards.
  void Stop();

 private:
  struct Worker {
    std::thread thread;
    Done done;
    Cancelled cancelled;
    Outcome outcome = Nothing();
    bool ended = false;
  };
  void Finish(Worker& worker);

  loop::MainLoop& loop_;
  bool stopped_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::list<std::unique_ptr<Worker>> workers_;
};

}  // namespace gyre::control
