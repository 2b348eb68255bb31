#include "loop/op_table.h"

#include <cstddef>

#include "gyre/base/check.h"

namespace gyre::loop {

Token OpTable::Add(OpOwner& owner) {
  if (free_.empty()) [[unlikely]] {
    Grow();
  }
  const std::uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot.owner = &owner;
  slot.used = true;
  ++in_flight_;
  return (Token{slot.generation} << 32) | index;
}

// By one; there is room for all of them to be free.
void OpTable::Grow() {
  free_.push_back(static_cast<std::uint32_t>(slots_.size()));
  slots_.emplace_back();
  free_.reserve(slots_.size());
}

void OpTable::Disown(Token token) {
  Slot* slot = Find(token);
  CHECK(slot != nullptr);
  slot->owner = nullptr;
}

OpOwner* OpTable::Complete(const Completion& completion) {
  Slot* slot = Find(completion.token);
  if (slot == nullptr) {
    return nullptr;
  }
  OpOwner* owner = slot->owner;
  if (!completion.more) {
    slot->owner = nullptr;
    slot->used = false;
    slot->generation = slot->generation == UINT32_MAX ? 1 : slot->generation + 1;  // a token is never 0
    free_.push_back(static_cast<std::uint32_t>(slot - slots_.data()));
    --in_flight_;
  }
  return owner;
}

void OpTable::Prefetch(Token token) const {
  constexpr std::size_t kCacheLine = 64;
  const auto index = static_cast<std::uint32_t>(token);
  const void* const owner = index < slots_.size() ? slots_[index].owner : nullptr;
  if (owner != nullptr) {
    __builtin_prefetch(owner, 1);
    __builtin_prefetch(static_cast<const std::byte*>(owner) + kCacheLine, 1);
  }
}

OpTable::Slot* OpTable::Find(Token token) {
  const auto index = static_cast<std::uint32_t>(token);
  const auto generation = static_cast<std::uint32_t>(token >> 32);
  if (index >= slots_.size() || !slots_[index].used || slots_[index].generation != generation) {
    return nullptr;
  }
  return &slots_[index];
}

}  // namespace gyre::loop
