// Who tracks the guest's writes, and how they come to learn of them (semantics
// 1.2, "dirty logging"). One for a topology.
//
// Writes reach a block's bitmaps (dirty_bitmap.h) in two ways: gyred's own at
// once, by RamBlock::MarkDirty; those of the guest stay with the listeners (KVM)
// until Sync. A client goes round after round:
//
//   Start(client);                    every page of every block is marked
//   until few enough: Sync();         what was written since
//     for each block, part by part:   pages = Take(client, block, ...); copy them
//   stop the vCPUs; Sync(); Take all; copy: the copy equals guest RAM
//   Stop(client);
//
// No write is lost in between. A page may be marked though it was not written since
// it was taken: by a write from shortly before. Who wants a fresh beginning (a
// rate) does one Sync and takes everything.
//
// Big lock's holder, all of it; the lock is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/memory/dirty_bitmap.h"

namespace gyre::memory {

class MemoryListener;
class RamBlock;
class Topology;

class DirtyTracker {
 public:
  explicit DirtyTracker(Topology& topology) : topology_(topology) {}
  DirtyTracker(const DirtyTracker&) = delete;
  DirtyTracker& operator=(const DirtyTracker&) = delete;

  // The first client makes all listeners log. If one of them cannot, those that
  // already do are stopped, last first, and nobody tracks. An error too if the
  // client tracks already.
  Status Start(DirtyClient client);
  // Nothing if it does not track. The last client's makes the listeners stop, last first;
  // while the VM does not run that is put off until it does, since it takes long and a
  // VM that has just been copied will not run again. A Start meanwhile calls it off.
  void Stop(DirtyClient client);
  bool tracking(DirtyClient client) const;
  bool listeners_log() const { return listeners_log_; }

  // Marks what the guest has written, for every client. If it fails nothing is
  // lost, but what was written is not known: try again, or give up.
  Status Sync();
  // The client's marks of these pages of the block, which it has none of from then
  // on: the pages are watched again before it sees them. CHECKs that they are within.
  Result<DirtyPages> Take(DirtyClient client, RamBlock& block, std::uint64_t first_page, std::uint64_t count);
  Result<DirtyPages> TakeAll(DirtyClient client, RamBlock& block);

  // All RAM and ROM that is alive, in the order in which it came.
  std::vector<std::shared_ptr<RamBlock>> blocks() const;

  // --- the machine's: before the vCPUs go on, and after they have stopped ---
  void NoteRunning(bool running);

 private:
  friend class AddressSpace;
  friend class MemoryRegion;
  // One that regions show from now on, once or again.
  void AddBlock(const std::shared_ptr<RamBlock>& block);
  // Late ones log as the others do before they are shown anything.
  Status ListenerComes(MemoryListener& listener);
  void ListenerGoes(MemoryListener& listener);
  Status StartListeners();
  void StopListeners();

  Topology& topology_;
  std::uint32_t clients_ = 0;  // a bit each
  bool listeners_log_ = false;
  bool running_ = true;
  struct Known {
    std::weak_ptr<RamBlock> block;
    std::uint64_t number = 0;  // ascending as they came
  };
  std::unordered_map<const RamBlock*, Known> blocks_;  // and some that are gone
  std::size_t swept_ = 0;                              // how many there were after the last sweep
  std::uint64_t numbers_ = 0;
};

}  // namespace gyre::memory
