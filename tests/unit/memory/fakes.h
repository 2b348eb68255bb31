// What the memory tests share: a held big lock with a topology, a listener that
// keeps a book, and a handler that does.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/format.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/listener.h"
#include "gyre/memory/ram.h"
#include "gyre/memory/region.h"

namespace gyre::memory {

// Holds the big lock for its life, but for what is between GiveUpLock and RetakeLock.
struct World {
  World() { lock.Lock(); }
  ~World() { lock.Unlock(); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  void GiveUpLock() NO_THREAD_SAFETY_ANALYSIS { lock.Unlock(); }
  void RetakeLock() NO_THREAD_SAFETY_ANALYSIS { lock.Lock(); }

  RegionPtr Container(std::uint64_t size, std::string name = "container") {
    return MemoryRegion::NewContainer(topology, std::move(name), size);
  }
  RegionPtr Ram(std::uint64_t size, std::string name = "ram") {
    return MemoryRegion::NewRam(topology, std::move(name), Block(size));
  }
  RegionPtr Rom(std::uint64_t size, std::string name = "rom") {
    return MemoryRegion::NewRom(topology, std::move(name), Block(size));
  }
  RegionPtr Alias(const RegionPtr& target, std::uint64_t offset, std::uint64_t size,
                  std::string name = "alias") {
    return MemoryRegion::NewAlias(topology, std::move(name), target, offset, size);
  }
  // Blocks of any size, as the tests' small maps want them.
  static std::shared_ptr<RamBlock> Block(std::uint64_t size) {
    return std::make_shared<RamBlock>("block", Mapping::Anonymous(size).value());
  }

  BigLock lock;
  Topology topology{lock};
};

class FakeHandler final : public RegionHandler {
 public:
  struct Access {
    char kind;
    std::uint64_t offset;
    unsigned size;
    std::uint64_t value;
    bool operator==(const Access&) const = default;
  };

  std::uint64_t Read(std::uint64_t offset, unsigned size) override {
    accesses.push_back({'r', offset, size, 0});
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) {
      value |= ((base + offset + i) & 0xff) << (8 * i);
    }
    return value | junk;
  }
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
    accesses.push_back({'w', offset, size, value});
  }

  std::uint64_t base = 0;  // each byte reads as base + its offset
  std::uint64_t junk = 0;  // ORed into what is read, as by a careless device
  std::vector<Access> accesses;
};

inline void PrintTo(const FakeHandler::Access& access, std::ostream* out) {
  *out << format("{}{}@{:#x}={:#x}", access.kind, access.size, access.offset, access.value);
}

// Mirrors an address space, and fails the test at whatever no mirror could follow.
class Mirror : public MemoryListener {
 public:
  explicit Mirror(int priority = 0, std::vector<std::string>* journal = nullptr, std::string name = "")
      : priority_(priority), journal_(journal), name_(std::move(name)) {}

  int priority() const override { return priority_; }
  void Begin() override {
    EXPECT_FALSE(std::exchange(in_change_, true));
    added_.clear();
    removed_.clear();
    Note("begin");
  }
  void RegionDel(const FlatRange& range) override {
    EXPECT_TRUE(in_change_);
    EXPECT_TRUE(added_.empty()) << "a removal after an addition";
    const auto found = ranges_.find(range.start);
    if (found == ranges_.end() || found->second != range) {
      ADD_FAILURE() << "removal of an unknown range at " << range.start;
      return;
    }
    removed_.push_back(range);
    ranges_.erase(found);
    Note(format("del {:x}", range.start));
  }
  void RegionAdd(const FlatRange& range) override {
    EXPECT_TRUE(in_change_);
    for (const auto& [start, other] : ranges_) {
      EXPECT_TRUE(other.last < range.start || range.last < start) << "an overlap at " << range.start;
    }
    for (const FlatRange& other : removed_) {
      EXPECT_NE(other, range) << "an unchanged range was removed";
    }
    added_.push_back(range);
    ranges_[range.start] = range;
    Note(format("add {:x}", range.start));
  }
  Status Commit() override {
    EXPECT_TRUE(std::exchange(in_change_, false));
    ++commits;
    Note("commit");
    return commit_result;
  }
  Status EventFdDel(const PlacedEventFd& event_fd) override {
    EXPECT_EQ(std::erase(event_fds_, event_fd), 1U) << "removal of an unknown ioeventfd";
    Note(format("fd-del {:x}", event_fd.address));
    return {};
  }
  Status EventFdAdd(const PlacedEventFd& event_fd) override {
    // KVM answers EEXIST to the same place and value, whatever the descriptor.
    for (const PlacedEventFd& other : event_fds_) {
      EXPECT_FALSE(other.address == event_fd.address && other.size == event_fd.size &&
                   other.match == event_fd.match);
    }
    event_fds_.push_back(event_fd);
    std::ranges::sort(event_fds_);
    Note(format("fd-add {:x}", event_fd.address));
    return event_fd_result;
  }

  Status CoalescedDel(const PlacedCoalescing& zone) override {
    EXPECT_EQ(coalescing_.erase(zone), 1U) << "removal of an unknown zone at " << zone.start;
    return {};
  }
  Status CoalescedAdd(const PlacedCoalescing& zone) override {
    const auto next = coalescing_.lower_bound({.start = zone.last, .last = UINT64_MAX});
    EXPECT_TRUE(next == coalescing_.begin() || std::prev(next)->last < zone.start)
        << "an overlap at " << zone.start;
    coalescing_.insert(zone);
    return {};
  }

  std::vector<FlatRange> ranges() const {
    std::vector<FlatRange> all;
    for (const auto& [start, range] : ranges_) {
      all.push_back(range);
    }
    return all;
  }
  const std::vector<PlacedEventFd>& event_fds() const { return event_fds_; }
  const std::set<PlacedCoalescing>& coalescing() const { return coalescing_; }
  const std::vector<FlatRange>& added() const { return added_; }
  const std::vector<FlatRange>& removed() const { return removed_; }

  int commits = 0;
  Status commit_result;
  Status event_fd_result;

 private:
  void Note(const std::string& event) {
    if (journal_ != nullptr) {
      journal_->push_back(name_ + event);
    }
  }

  int priority_;
  std::vector<std::string>* journal_;
  std::string name_;
  bool in_change_ = false;
  std::map<std::uint64_t, FlatRange> ranges_;
  std::vector<PlacedEventFd> event_fds_;
  std::set<PlacedCoalescing> coalescing_;
  std::vector<FlatRange> added_;
  std::vector<FlatRange> removed_;
};

// "0-fff ram@0 | 1000-1fff rom@0 ro"
inline std::string Describe(const FlatView& view) {
  std::string text;
  for (const FlatRange& range : view.ranges()) {
    text += format("{}{:x}-{:x} {}@{:x}{}", text.empty() ? "" : " | ", range.start, range.last,
                   range.region->name(), range.region_offset, range.readonly ? " ro" : "");
  }
  return text;
}

inline std::string Describe(const AddressSpace& space) { return Describe(*space.view()); }

}  // namespace gyre::memory
