#include "tests/fuzz/memory_edits.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/check.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/dump.h"
#include "gyre/memory/ram.h"

namespace gyre::memory {
namespace {

constexpr std::size_t kMostRegions = 40;
constexpr std::size_t kMostSteps = 400;
constexpr std::uint64_t kRamSize = 0x1000;

// The bytes one after the other, and zeros behind their end.
class Script {
 public:
  explicit Script(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::uint8_t Byte() {
    if (bytes_.empty()) {
      return 0;
    }
    const auto byte = std::to_integer<std::uint8_t>(bytes_.front());
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  // Near 0, near the end of the space, or anywhere.
  std::uint64_t Address() {
    const std::uint8_t shape = Byte();
    const std::uint64_t small = std::uint64_t{Byte()} << (shape % 8);
    if (shape < 160) {
      return small;
    }
    return shape < 220 ? UINT64_MAX - small : small << (shape % 56);
  }

 private:
  std::span<const std::byte> bytes_;
};

// Answers with what dispatch must not pass on.
class Junk final : public RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t /*offset*/, unsigned /*size*/) override { return UINT64_MAX; }
  void Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t /*value*/) override {}
};

class Book final : public MemoryListener {
 public:
  void RegionDel(const FlatRange& range) override {
    const auto found = ranges_.find(range.start);
    CHECK(found != ranges_.end() && found->second == range);
    ranges_.erase(found);
  }
  void RegionAdd(const FlatRange& range) override { CHECK(ranges_.emplace(range.start, range).second); }
  Status EventFdDel(const PlacedEventFd& event_fd) override {
    const auto found = std::ranges::find(event_fds_, event_fd);
    CHECK(found != event_fds_.end());
    event_fds_.erase(found);
    return {};
  }
  Status EventFdAdd(const PlacedEventFd& event_fd) override {
    event_fds_.insert(std::ranges::upper_bound(event_fds_, event_fd), event_fd);
    return {};
  }
  Status CoalescedDel(const PlacedCoalescing& coalescing) override {
    CHECK(coalescing_.erase(coalescing) == 1);
    return {};
  }
  Status CoalescedAdd(const PlacedCoalescing& coalescing) override {
    CHECK(coalescing_.insert(coalescing).second);
    return {};
  }
  bool operator==(const Book& other) const {
    return ranges_ == other.ranges_ && event_fds_ == other.event_fds_ && coalescing_ == other.coalescing_;
  }

 private:
  std::map<std::uint64_t, FlatRange> ranges_;
  std::vector<PlacedEventFd> event_fds_;
  std::set<PlacedCoalescing> coalescing_;
};

// The big lock is held throughout.
class Round {
 public:
  explicit Round(Script script) : script_(script) {
    regions_.push_back(root_);
    CHECK(space_.AddListener(book_).has_value());
  }
  ~Round() { space_.RemoveListener(book_); }
  Round(const Round&) = delete;
  Round& operator=(const Round&) = delete;

  void Run() {
    for (std::size_t step = 0; step < kMostSteps && !script_.empty(); ++step) {
      const std::uint8_t what = script_.Byte();
      if (what % 4 == 0) {
        Access();
        continue;
      }
      const Transaction transaction(topology_);
      for (unsigned edits = what % 4; edits > 0; --edits) {
        Edit();
      }
    }
    Compare();
    CHECK(!DumpTree(*root_).empty() && !DumpJson("space", *space_.view()).empty());
  }

 private:
  const RegionPtr& Any() { return regions_[script_.Byte() % regions_.size()]; }

  RegionPtr New() {
    const auto ram = [] { return std::make_shared<RamBlock>("block", Mapping::Anonymous(kRamSize).value()); };
    switch (script_.Byte() % 7) {
      case 0:
        return MemoryRegion::NewContainer(topology_, "container", script_.Address());
      case 1:
        return MemoryRegion::NewRam(topology_, "ram", ram());
      case 2:
        return MemoryRegion::NewRom(topology_, "rom", ram());
      case 3:
        return MemoryRegion::NewRomDevice(topology_, "flash", ram(), handler_);
      case 4:
        return MemoryRegion::NewRamDevice(topology_, "device", ram());
      case 5:
        return MemoryRegion::NewIo(topology_, "io", script_.Address(), handler_, Traits());
      default: {
        const RegionPtr target = Any();
        return MemoryRegion::NewAlias(topology_, "alias", target, script_.Address(), script_.Address());
      }
    }
  }

  IoTraits Traits() {
    const std::uint8_t bits = script_.Byte();
    IoTraits traits;
    traits.valid = {.min = 1U << (bits & 1U), .max = 4U << (bits >> 1U & 1U), .unaligned = (bits & 4U) != 0};
    traits.impl = {
        .min = 1U << (bits >> 3U & 1U), .max = 4U << (bits >> 4U & 1U), .unaligned = (bits & 32U) != 0};
    traits.lock = (bits & 64U) != 0 ? LockPolicy::kNone : LockPolicy::kBigLock;
    return traits;
  }

  // What is refused is as good an edit as another.
  void Edit() {
    const std::uint8_t what = script_.Byte() % 10;
    if (what < 2) {
      Place();
      return;
    }
    const RegionPtr region = Any();
    if (what == 2) {
      if (const RegionPtr container = region->container()) {
        container->Remove(region);
      }
    } else if (what == 3) {
      (void)region->SetOffset(script_.Address());
    } else if (what == 4) {
      (void)region->SetSize(script_.Address());
    } else if (what == 5) {
      region->SetEnabled((script_.Byte() & 1U) != 0);
    } else if (what == 6) {
      region->SetReadonly((script_.Byte() & 1U) != 0);
    } else if (what == 7) {
      region->SetUnmergeable((script_.Byte() & 1U) != 0);
    } else if (what == 8) {
      EditEventFd(*region);
    } else if (region->kind() == RegionKind::kAlias) {
      (void)region->SetAliasOffset(script_.Address());
    } else if (region->kind() == RegionKind::kRomDevice) {
      region->SetRomDirect(!region->rom_direct());
    } else if (region->kind() == RegionKind::kIo) {
      if (region->coalescing().size() < 4) {
        (void)region->AddCoalescing(script_.Address(), script_.Address());
      } else {
        region->ClearCoalescing();
      }
    }
  }

  void Place() {
    if (regions_.size() < kMostRegions) {
      regions_.push_back(New());
    }
    const RegionPtr region = (script_.Byte() & 1U) != 0 ? regions_.back() : Any();
    const RegionPtr container = Any();
    (void)container->Add(script_.Address(), region, static_cast<int>(script_.Byte() % 5) - 2);
  }

  void EditEventFd(MemoryRegion& region) {
    const IoEventFd event_fd{
        .offset = script_.Address(), .size = script_.Byte() % 2 * 4U, .match = std::nullopt, .fd = 3};
    if (std::ranges::find(region.io_event_fds(), event_fd) == region.io_event_fds().end()) {
      region.AddIoEventFd(event_fd);
    } else {
      region.RemoveIoEventFd(event_fd);
    }
  }

  void Access() {
    constexpr std::size_t kEdge = 8;
    std::array<std::byte, 64 + 2 * kEdge> bytes{};
    const std::size_t size = script_.Byte() % 65;
    const GuestAddress address(script_.Address());
    if ((script_.Byte() & 1U) != 0) {
      space_.Write(cache_, address, std::span(bytes).subspan(kEdge, size));
    } else {
      space_.Read(cache_, address, std::span(bytes).subspan(kEdge, size));
    }
    for (std::size_t i = 0; i < kEdge; ++i) {
      CHECK(bytes.at(i) == std::byte{} && bytes.at(kEdge + size + i) == std::byte{});
    }
  }

  // With a root of its own, since equal ones would share the view.
  void Compare() {
    const RegionPtr other = MemoryRegion::NewContainer(topology_, "other", kWholeSpace);
    CHECK(other->Add(0, MemoryRegion::NewContainer(topology_, "second", 0)).has_value());
    CHECK(other->Add(0, MemoryRegion::NewAlias(topology_, "all", root_, 0, kWholeSpace)).has_value());
    AddressSpace again(topology_, "again", other);
    Book fresh;
    CHECK(again.AddListener(fresh).has_value());
    CHECK(space_.view()->ranges() == again.view()->ranges());
    CHECK(book_ == fresh);
    again.RemoveListener(fresh);
  }

  struct Held {
    Held() NO_THREAD_SAFETY_ANALYSIS { lock.Lock(); }
    ~Held() NO_THREAD_SAFETY_ANALYSIS { lock.Unlock(); }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
    BigLock lock;
  };

  Script script_;
  Held held_;
  Topology topology_{held_.lock};
  Junk handler_;
  Book book_;
  RegionPtr root_ = MemoryRegion::NewContainer(topology_, "root", kWholeSpace);
  AddressSpace space_{topology_, "space", root_};
  ViewCache cache_;
  std::vector<RegionPtr> regions_;
};

}  // namespace

void FuzzMemoryEdits(std::span<const std::byte> script) { Round(Script(script)).Run(); }

}  // namespace gyre::memory
