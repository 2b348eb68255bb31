// A doubly linked FIFO whose links lie in its elements: a callback can be moved
// from queue to queue, or taken out of whichever it is in, in constant time and
// without allocation. It owns nothing. No locking of its own.
#pragma once

#include "gyre/base/check.h"

namespace gyre::loop {

class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  ~ListNode() { CHECK(!linked()); }

  bool linked() const { return next_ != nullptr; }
  // Takes it out of its list; nothing if it is in none.
  void Unlink() {
    if (linked()) {
      previous_->next_ = next_;
      next_->previous_ = previous_;
      previous_ = next_ = nullptr;
    }
  }

 private:
  template <typename T>
  friend class IntrusiveList;
  ListNode* previous_ = nullptr;
  ListNode* next_ = nullptr;
};

template <typename T>
class IntrusiveList {
 public:
  IntrusiveList() { end_.previous_ = end_.next_ = &end_; }
  IntrusiveList(const IntrusiveList&) = delete;
  IntrusiveList& operator=(const IntrusiveList&) = delete;
  ~IntrusiveList() {
    CHECK(empty());
    end_.previous_ = end_.next_ = nullptr;
  }

  bool empty() const { return end_.next_ == &end_; }
  void PushBack(T& element) {
    ListNode& node = element;
    CHECK(!node.linked());
    node.previous_ = end_.previous_;
    node.next_ = &end_;
    end_.previous_->next_ = &node;
    end_.previous_ = &node;
  }
  T& front() { return static_cast<T&>(*end_.next_); }
  T& PopFront() {
    T& element = front();
    element.Unlink();
    return element;
  }
  // Moves all of `other` behind what is here.
  void Append(IntrusiveList& other) {
    if (other.empty()) {
      return;
    }
    other.end_.next_->previous_ = end_.previous_;
    end_.previous_->next_ = other.end_.next_;
    other.end_.previous_->next_ = &end_;
    end_.previous_ = other.end_.previous_;
    other.end_.previous_ = other.end_.next_ = &other.end_;
  }

 private:
  ListNode end_;
};

}  // namespace gyre::loop
