// Giving guest RAM back to the host while the guest lives: what balloons, free
// page reporting and memory devices do with a RamBlock, and who must know of it.
//
// RamBlock::Discard lets content go: the guest may use the pages again at any time,
// and nobody keeps a book (a balloon, free page reporting). A DiscardManager keeps
// one for a device whose parts are there or not (virtio-mem): others that map the
// memory follow its listeners. A DiscardBan holds discards off for whoever pins
// pages for hardware. Big lock's holder.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/memory/ram.h"

namespace gyre::memory {

// Whoever has a block's pages mapped elsewhere, or keeps what it knows of their content.
class DiscardListener {
 public:
  virtual ~DiscardListener() = default;
  // The pages of [offset, offset + size) are about to go: let go of them now.
  virtual void BeforeDiscard(const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
    (void)block, (void)offset, (void)size;
  }
  // They are gone, and read as zeros; or, if the host refused, are as they were.
  virtual void AfterDiscard(const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
    (void)block, (void)offset, (void)size;
  }
};

// While any of a block's lives, all of its pages stay: Discard is refused, and Clear
// and Zero overwrite. Goes before the block.
class DiscardBan {
 public:
  // Refused where a DiscardManager takes pages away by design.
  static Result<DiscardBan> Of(std::shared_ptr<RamBlock> block);
  DiscardBan(DiscardBan&& other) noexcept = default;
  DiscardBan& operator=(DiscardBan&& other) noexcept;
  DiscardBan(const DiscardBan&) = delete;
  DiscardBan& operator=(const DiscardBan&) = delete;
  ~DiscardBan();

 private:
  explicit DiscardBan(std::shared_ptr<RamBlock> block) : block_(std::move(block)) {}
  std::shared_ptr<RamBlock> block_;
};

// Whoever maps only what is populated. Offsets and sizes are the block's, in bytes.
class PopulationListener {
 public:
  virtual ~PopulationListener() = default;
  virtual Status Populate(std::uint64_t offset, std::uint64_t size) = 0;
  virtual void Depopulate(std::uint64_t offset, std::uint64_t size) = 0;
};

class DiscardManager {
 public:
  using Visit = std::function<Status(std::uint64_t offset, std::uint64_t size)>;

  // Nothing is populated at first. `granule` is in bytes, whole pages of the block.
  // Refused while there is a DiscardBan.
  static Result<std::unique_ptr<DiscardManager>> Create(std::shared_ptr<RamBlock> block,
                                                        std::uint64_t granule);
  DiscardManager(const DiscardManager&) = delete;
  DiscardManager& operator=(const DiscardManager&) = delete;
  ~DiscardManager();

  // Of whole granules. What is as wanted already is left alone. If a listener fails,
  // those that had been told are told the contrary, and nothing has changed.
  Status Populate(std::uint64_t offset, std::uint64_t size);
  // Listeners first, then the pages are discarded. If the host refuses that, the part
  // is not populated nevertheless, and the error is returned.
  Status Depopulate(std::uint64_t offset, std::uint64_t size);
  // All of it.
  bool IsPopulated(std::uint64_t offset, std::uint64_t size) const;
  // The populated parts of [offset, offset + size), ascending; ends at the first error.
  Status ForEachPopulated(std::uint64_t offset, std::uint64_t size, const Visit& visit) const;
  // Is told of all that is populated; if it fails, of the contrary, and is not added.
  Status AddListener(PopulationListener& listener);
  void RemoveListener(PopulationListener& listener);

 private:
  struct Part {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
  };
  DiscardManager(std::shared_ptr<RamBlock> block, std::uint64_t granule);
  Status Check(std::uint64_t offset, std::uint64_t size) const;
  std::vector<Part> Populated(std::uint64_t offset, std::uint64_t size) const;
  std::vector<Part> Gaps(std::uint64_t offset, std::uint64_t size) const;
  void Insert(std::uint64_t offset, std::uint64_t end);
  static Status Tell(PopulationListener& listener, const std::vector<Part>& parts);

  std::shared_ptr<RamBlock> block_;
  std::uint64_t granule_;
  std::map<std::uint64_t, std::uint64_t> populated_;  // end of each part by its start; apart from each other
  std::vector<PopulationListener*> listeners_;
};

}  // namespace gyre::memory
