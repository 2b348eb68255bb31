// A list of callbacks, the seed's NotifierList. Newest first, as the seed runs
// them. Safe against any removal (of itself, of another, of the list's rest)
// and any addition from within a callback, and against a Notify from within one;
// additions are first called by the next Notify. Notify allocates nothing. One
// thread at a time (the big lock's holder).
#pragma once

#include <functional>
#include <memory>
#include <utility>

namespace gyre {

template <typename... Args>
class NotifierList {
  struct Entry {
    std::move_only_function<void(Args...)> callback;
    bool removed = false;
    std::shared_ptr<Entry> next;
  };

 public:
  // Removes the callback when destroyed; may outlive the list.
  class [[nodiscard]] Handle {
   public:
    Handle() = default;
    Handle(Handle&&) noexcept = default;
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
    void Remove() {
      if (auto entry = std::exchange(entry_, nullptr)) {
        entry->removed = true;
      }
    }

   private:
    friend class NotifierList;
    explicit Handle(std::shared_ptr<Entry> entry) : entry_(std::move(entry)) {}
    std::shared_ptr<Entry> entry_;
  };

  NotifierList() = default;
  NotifierList(const NotifierList&) = delete;
  NotifierList& operator=(const NotifierList&) = delete;
  // One by one: a chain that is freed by its head would recurse.
  ~NotifierList() {
    while (first_ != nullptr) {
      first_ = std::exchange(first_->next, nullptr);
    }
  }

  Handle Add(std::move_only_function<void(Args...)> callback) {
    DropRemoved();
    first_ = std::make_shared<Entry>(std::move(callback), false, std::move(first_));
    return Handle(first_);
  }

  void Notify(Args... args) {
    // New ones are put in front of where this starts, and none is unlinked while any Notify runs.
    ++notifying_;
    for (auto entry = first_; entry != nullptr; entry = entry->next) {
      if (!entry->removed) {
        entry->callback(args...);
      }
    }
    --notifying_;
    DropRemoved();
  }

  bool empty() const {
    for (const Entry* entry = first_.get(); entry != nullptr; entry = entry->next.get()) {
      if (!entry->removed) {
        return false;
      }
    }
    return true;
  }

 private:
  void DropRemoved() {
    if (notifying_ > 0) {
      return;
    }
    for (auto* link = &first_; *link != nullptr;) {
      if ((*link)->removed) {
        *link = std::exchange((*link)->next, nullptr);
      } else {
        link = &(*link)->next;
      }
    }
  }

  std::shared_ptr<Entry> first_;
  int notifying_ = 0;
};

}  // namespace gyre
