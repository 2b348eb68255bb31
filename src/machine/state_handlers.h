// Who has something to do when the VM starts or stops: the seed's
// vm_change_state handlers, in two phases and by priority. Big lock's holder.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "gyre/base/result.h"
#include "src/machine/run_state.h"

namespace gyre::machine {

// `running` is false for a stop; `state` is the one that it leads to.
struct StateHandler {
  // Lower ones start first and stop last: what others stand on has a low one.
  int priority = 0;
  // Before anybody's `change`; may be empty.
  std::move_only_function<void(bool running, RunState state)> prepare = nullptr;
  // An error is the starter's or the stopper's to report; the others are called nevertheless.
  std::move_only_function<Status(bool running, RunState state)> change = nullptr;
};

class StateHandlers {
  struct Entry {
    StateHandler handler;
    bool removed = false;
  };

 public:
  // Removes the handler when destroyed; may outlive the list.
  class [[nodiscard]] Handle {
   public:
    Handle() = default;
    Handle(Handle&& other) noexcept = default;
    Handle& operator=(Handle&& other) noexcept {
      if (this != &other) {
        Remove();
        entry_ = std::move(other.entry_);
      }
      return *this;
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { Remove(); }
    // From within a handler too, of which none that is removed is called any more.
    void Remove();

   private:
    friend class StateHandlers;
    explicit Handle(std::shared_ptr<Entry> entry) : entry_(std::move(entry)) {}
    std::shared_ptr<Entry> entry_;
  };

  // From within a handler too; it is first called by the next Notify.
  Handle Add(StateHandler handler);
  // All `prepare`, then all `change`; a start in ascending priority, oldest first, a
  // stop in the opposite order. The first error.
  Status Notify(bool running, RunState state);

 private:
  std::vector<std::shared_ptr<Entry>> entries_;  // ascending priority, oldest first among equals
};

}  // namespace gyre::machine
