// A list of callbacks, the seed's NotifierList. Newest first, as the seed runs
// them. Safe against any removal (of itself, of another, of the list's rest)
// and any addition from within a callback; additions are first called by the
// next Notify. One thread at a time (the big lock's holder).
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <utility>

namespace gyre {

template <typename... Args>
class NotifierList {
  struct Entry {
    std::move_only_function<void(Args...)> callback;
    bool removed = false;
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

  Handle Add(std::move_only_function<void(Args...)> callback) {
    auto entry = std::make_shared<Entry>(std::move(callback));
    entries_.push_front(entry);
    return Handle(std::move(entry));
  }

  void Notify(Args... args) {
    const auto snapshot = entries_;
    for (const auto& entry : snapshot) {
      if (!entry->removed) {
        entry->callback(args...);
      }
    }
    entries_.remove_if([](const auto& entry) { return entry->removed; });
  }

  bool empty() const {
    for (const auto& entry : entries_) {
      if (!entry->removed) {
        return false;
      }
    }
    return true;
  }

 private:
  std::list<std::shared_ptr<Entry>> entries_;
};

}  // namespace gyre
