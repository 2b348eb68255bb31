#include "src/machine/state_handlers.h"

#include <algorithm>

namespace gyre::machine {

void StateHandlers::Handle::Remove() {
  if (const auto entry = std::exchange(entry_, nullptr)) {
    entry->removed = true;
  }
}

StateHandlers::Handle StateHandlers::Add(StateHandler handler) {
  auto entry = std::make_shared<Entry>(std::move(handler));
  const auto at = std::ranges::upper_bound(entries_, entry->handler.priority, {},
                                           [](const auto& other) { return other->handler.priority; });
  entries_.insert(at, entry);
  return Handle(std::move(entry));
}

Status StateHandlers::Notify(bool running, RunState state) {
  std::erase_if(entries_, [](const auto& entry) { return entry->removed; });
  auto snapshot = entries_;  // handlers may add and remove
  if (!running) {
    std::ranges::reverse(snapshot);
  }
  for (const auto& entry : snapshot) {
    if (!entry->removed && entry->handler.prepare) {
      entry->handler.prepare(running, state);
    }
  }
  Status first;
  for (const auto& entry : snapshot) {
    if (entry->removed || !entry->handler.change) {
      continue;
    }
    if (auto status = entry->handler.change(running, state); first && !status) {
      first = std::move(status);
    }
  }
  return first;
}

}  // namespace gyre::machine
