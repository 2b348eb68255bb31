#include "gyre/memory/dirty.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <ranges>

#include "gyre/base/check.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "memory/address_space_impl.h"

namespace gyre::memory {
namespace {

std::uint32_t MaskOf(DirtyClient client) { return 1U << static_cast<unsigned>(client); }

int Membarrier(int command) { return static_cast<int>(::syscall(SYS_membarrier, command, 0U, 0)); }

// A full barrier on every thread of the process. Writers store their data and then
// look, without any barrier, whether somebody tracks; the barrier that they would
// need between the two is made for them here. After it, a writer either sees that
// somebody tracks, or its data can be seen.
Status BarrierOnAllThreads() {
  if (Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) {
    return {};
  }
  // Not registered: that is for the first time only.
  if (errno == EPERM && Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
      Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) {
    return {};
  }
  return Fail(Error::Sys("membarrier", errno));
}

}  // namespace

Status DirtyTracker::Start(DirtyClient client) {
  topology_.big_lock().AssertHeld();
  if (tracking(client)) {
    return Fail(Error::Usage("the guest's writes are already tracked for that"));
  }
  const auto all = blocks();
  for (const auto& block : all) {
    block->dirty().Start(client);
  }
  Status status = BarrierOnAllThreads();
  if (status && !listeners_log_) {
    status = StartListeners();
  }
  if (!status) {
    for (const auto& block : all) {
      block->dirty().Stop(client);
    }
    return status;
  }
  clients_ |= MaskOf(client);
  return {};
}

void DirtyTracker::Stop(DirtyClient client) {
  topology_.big_lock().AssertHeld();
  if (!tracking(client)) {
    return;
  }
  clients_ &= ~MaskOf(client);
  for (const auto& block : blocks()) {
    block->dirty().Stop(client);
  }
  if (clients_ == 0 && running_) {
    StopListeners();
  }
}

bool DirtyTracker::tracking(DirtyClient client) const { return (clients_ & MaskOf(client)) != 0; }

void DirtyTracker::NoteRunning(bool running) {
  topology_.big_lock().AssertHeld();
  running_ = running;
  if (running && clients_ == 0 && listeners_log_) {
    StopListeners();
  }
}

Status DirtyTracker::StartListeners() {
  const auto listeners = topology_.Listeners();
  for (auto started = listeners.begin(); started != listeners.end(); ++started) {
    if (Status status = (*started)->LogGlobalStart(); !status) {
      while (started != listeners.begin()) {
        (*--started)->LogGlobalStop();
      }
      return status;
    }
  }
  listeners_log_ = true;
  return {};
}

void DirtyTracker::StopListeners() {
  listeners_log_ = false;
  for (MemoryListener* listener : topology_.Listeners() | std::views::reverse) {
    listener->LogGlobalStop();
  }
}

Status DirtyTracker::Sync() {
  topology_.big_lock().AssertHeld();
  CHECK(clients_ != 0);
  FirstError errors;
  for (MemoryListener* listener : topology_.Listeners()) {
    errors.Note(listener->LogSync());
  }
  return std::move(errors).Take();
}

// Watched again first, taken second: what is written in between is logged anew, and
// what was written before can be seen.
Result<DirtyPages> DirtyTracker::Take(DirtyClient client, RamBlock& block, std::uint64_t first_page,
                                      std::uint64_t count) {
  topology_.big_lock().AssertHeld();
  for (MemoryListener* listener : topology_.Listeners()) {
    TRY(listener->LogClear(block, first_page, count));
  }
  return block.dirty().Take(client, first_page, count);
}

Result<DirtyPages> DirtyTracker::TakeAll(DirtyClient client, RamBlock& block) {
  return Take(client, block, 0, block.dirty().pages());
}

std::vector<std::shared_ptr<RamBlock>> DirtyTracker::blocks() const {
  std::map<std::uint64_t, std::shared_ptr<RamBlock>> alive;
  for (const auto& [address, known] : blocks_) {
    if (auto block = known.block.lock()) {
      alive.emplace(known.number, std::move(block));
    }
  }
  const auto values = std::views::values(alive);
  return {values.begin(), values.end()};
}

void DirtyTracker::AddBlock(const std::shared_ptr<RamBlock>& block) {
  if (blocks_.size() > 2 * swept_) {
    std::erase_if(blocks_, [](const auto& known) { return known.second.block.expired(); });
    swept_ = std::max<std::size_t>(blocks_.size(), 8);
  }
  Known& known = blocks_[block.get()];
  if (!known.block.expired()) {
    return;  // and it is this one: no other can have its address while it lives
  }
  known = {.block = block, .number = numbers_++};
  for (std::size_t client = 0; client < kDirtyClients; ++client) {
    if ((clients_ >> client & 1) != 0) {
      block->dirty().Start(static_cast<DirtyClient>(client));
    }
  }
  if (clients_ != 0) {
    // It has worked at the start, so it works now.
    CHECK(BarrierOnAllThreads().has_value());
  }
}

Status DirtyTracker::ListenerComes(MemoryListener& listener) {
  return listeners_log_ ? listener.LogGlobalStart() : Status();
}

void DirtyTracker::ListenerGoes(MemoryListener& listener) {
  if (listeners_log_) {
    listener.LogGlobalStop();
  }
}

}  // namespace gyre::memory
