// Tokens for operations in flight on the ring. A token names a slot and the
// slot's generation. A slot is given out again only after its operation's last
// completion, so that a late completion never reaches a new owner; the
// generation makes that hold even for a completion that should not exist.
// Guarded by the big lock.
#pragma once

#include <cstdint>
#include <vector>

#include "loop/ring.h"

namespace gyre::loop {

// Whom a completion is for.
class OpOwner {
 public:
  virtual ~OpOwner() = default;
  virtual void OnCompletion(const Completion& completion) = 0;
};

class OpTable {
 public:
  // `owner` must stay until its last completion, or until Disown.
  Token Add(OpOwner& owner);
  // Nobody wants the operation's completions any more; the slot lives on until the last.
  void Disown(Token token);
  // The owner of the operation, or null if it is disowned or unknown. Frees the slot at the last completion.
  OpOwner* Complete(const Completion& completion);
  // Asks for the cache lines of the operation's owner.
  void Prefetch(Token token) const;

  std::size_t in_flight() const { return in_flight_; }

 private:
  struct Slot {
    OpOwner* owner = nullptr;
    std::uint32_t generation = 1;
    bool used = false;
  };
  Slot* Find(Token token);
  void Grow();

  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::size_t in_flight_ = 0;
};

}  // namespace gyre::loop
