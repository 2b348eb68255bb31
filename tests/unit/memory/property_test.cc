// Random trees and random edits against a model that knows nothing of ranges: it
// asks of every single byte who shows there. SEED= repeats a run, STEPS= sets its length.
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>
#include <set>

#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

constexpr std::uint64_t kWindow = 128;  // addresses compared byte by byte
constexpr std::size_t kMaxNodes = 24;

std::uint64_t FromEnvironment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

// Each byte tells region and offset, so that what dispatch reads can be told too.
class TellingHandler final : public RegionHandler {
 public:
  explicit TellingHandler(std::uint64_t id) : id_(id) {}
  static std::uint8_t Byte(std::uint64_t id, std::uint64_t offset) {
    return static_cast<std::uint8_t>((id * 37 + offset) % 251);
  }
  std::uint64_t Read(std::uint64_t offset, unsigned /*size*/) override { return Byte(id_, offset); }
  void Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t /*value*/) override {}

 private:
  std::uint64_t id_;
};

// The model's region. Sizes and offsets are small, so plain signed numbers do.
struct Node {
  RegionKind kind = RegionKind::kContainer;
  std::int64_t size = 0;
  std::int64_t offset = 0;
  int priority = 0;
  std::uint64_t placed = 0;  // when it was last placed; the newest wins a tie
  bool enabled = true;
  bool readonly = false;
  std::size_t target = 0;  // kAlias
  std::int64_t alias_offset = 0;
  std::optional<std::size_t> container;
  std::vector<IoEventFd> event_fds;
  std::set<std::int64_t> coalesced;  // offsets of bytes
  RegionPtr region;
  std::unique_ptr<TellingHandler> handler;
};

// Who shows at a byte.
struct Shown {
  std::size_t node = 0;
  std::int64_t offset = 0;
  bool readonly = false;
  bool operator==(const Shown&) const = default;
};

class Model {
 public:
  Model(World& world, std::mt19937_64& random) : world_(world), random_(random) {
    Node& root = nodes_.emplace_back();
    root.size = kWindow;
    root.region = world_.Container(kWindow, "0");
  }

  const RegionPtr& root() const { return nodes_[0].region; }
  const std::vector<Node>& nodes() const { return nodes_; }

  void Step() {
    const auto choice = Pick(13);
    const std::size_t at = Pick(nodes_.size());
    if (choice < 2 && nodes_.size() < kMaxNodes) {
      New();
    } else if (choice < 5) {
      Add(at, Pick(nodes_.size()));
    } else if (choice == 5 && Pick(3) == 0) {
      Remove(at);
    } else if (choice < 8) {
      Move(at);
    } else if (choice == 8) {
      nodes_[at].enabled = !nodes_[at].enabled;
      nodes_[at].region->SetEnabled(nodes_[at].enabled);
    } else if (choice == 9) {
      ToggleReadonly(at);
    } else if (choice == 10) {
      Resize(at);
    } else if (choice == 11) {
      EditEventFds(at);
    } else {
      EditCoalescing(at);
    }
  }

  std::vector<std::optional<Shown>> Bytes() const {
    std::vector<std::optional<Shown>> bytes;
    for (std::int64_t at = 0; at < static_cast<std::int64_t>(kWindow); ++at) {
      bytes.push_back(Resolve(0, at, false));
    }
    return bytes;
  }

  // An ioeventfd shows where all its bytes are its region's, in a row.
  std::vector<PlacedEventFd> EventFds(const std::vector<std::optional<Shown>>& bytes) const {
    std::vector<PlacedEventFd> placed;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      if (!bytes[at]) {
        continue;
      }
      for (const IoEventFd& event_fd : nodes_[bytes[at]->node].event_fds) {
        bool whole = static_cast<std::uint64_t>(bytes[at]->offset) == event_fd.offset;
        for (std::size_t i = 1; whole && i < event_fd.size; ++i) {
          Shown next = *bytes[at];
          next.offset += static_cast<std::int64_t>(i);
          whole = at + i < bytes.size() && bytes[at + i] == next;
        }
        if (whole) {
          placed.push_back(
              {.address = at, .size = event_fd.size, .match = event_fd.match, .fd = event_fd.fd});
        }
      }
    }
    std::ranges::sort(placed);
    return placed;
  }

  // The bytes whose writes may wait.
  static std::set<std::uint64_t> BytesOf(const std::set<PlacedCoalescing>& coalescing, std::uint64_t base) {
    std::set<std::uint64_t> all;
    for (const PlacedCoalescing& zone : coalescing) {
      for (std::uint64_t at = 0; at <= zone.last - zone.start; ++at) {
        all.insert(zone.start - base + at);
      }
    }
    return all;
  }
  std::set<std::uint64_t> Coalesced(const std::vector<std::optional<Shown>>& bytes) const {
    std::set<std::uint64_t> all;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      if (bytes[at] && nodes_[bytes[at]->node].coalesced.contains(bytes[at]->offset)) {
        all.insert(at);
      }
    }
    return all;
  }

 private:
  std::uint64_t Pick(std::uint64_t limit) { return random_() % limit; }
  std::int64_t PickSigned(std::uint64_t limit) { return static_cast<std::int64_t>(Pick(limit)); }

  std::optional<Shown> Resolve(std::size_t index, std::int64_t at, bool readonly) const {
    const Node& node = nodes_[index];
    if (!node.enabled || at < 0 || at >= node.size) {
      return std::nullopt;
    }
    readonly = readonly || node.readonly;
    if (node.kind == RegionKind::kAlias) {
      return Resolve(node.target, at + node.alias_offset, readonly);
    }
    std::vector<std::size_t> children;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].container == index) {
        children.push_back(i);
      }
    }
    std::ranges::sort(children, std::greater<>(),
                      [&](std::size_t i) { return std::pair(nodes_[i].priority, nodes_[i].placed); });
    for (const std::size_t child : children) {
      if (const auto shown = Resolve(child, at - nodes_[child].offset, readonly)) {
        return shown;
      }
    }
    if (node.kind == RegionKind::kContainer) {
      return std::nullopt;
    }
    return Shown{.node = index, .offset = at, .readonly = readonly && node.kind != RegionKind::kIo};
  }

  bool Reaches(std::size_t from, std::size_t to) const {
    if (from == to) {
      return true;
    }
    if (nodes_[from].kind == RegionKind::kAlias) {
      return Reaches(nodes_[from].target, to);
    }
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].container == from && Reaches(i, to)) {
        return true;
      }
    }
    return false;
  }

  void New() {
    const std::size_t index = nodes_.size();
    const auto name = std::to_string(index);
    const std::uint64_t size = 1 + Pick(kWindow);
    Node node;
    node.size = static_cast<std::int64_t>(size);
    switch (Pick(5)) {
      case 0:
        node.region = world_.Container(size, name);
        break;
      case 1:
        node.kind = RegionKind::kRam;
        node.region = world_.Ram(size, name);
        break;
      case 2:
        node.kind = RegionKind::kRom;
        node.readonly = true;
        node.region = world_.Rom(size, name);
        break;
      case 3:
        node.kind = RegionKind::kIo;
        node.handler = std::make_unique<TellingHandler>(index);
        node.region = MemoryRegion::NewIo(world_.topology, name, size, *node.handler,
                                          {.impl = {.min = 1, .max = 1}, .lock = LockPolicy::kNone});
        break;
      default:
        node.kind = RegionKind::kAlias;
        node.target = Pick(nodes_.size());
        node.alias_offset = PickSigned(kWindow);
        node.region = world_.Alias(nodes_[node.target].region, static_cast<std::uint64_t>(node.alias_offset),
                                   size, name);
    }
    if (node.region->ram()) {
      for (std::uint64_t i = 0; i < size; ++i) {
        node.region->ram()->host()[i] = std::byte{TellingHandler::Byte(index, i)};
      }
    }
    nodes_.push_back(std::move(node));
    if (Pick(4) != 0) {
      Add(Pick(index), index);
    }
  }

  void Add(std::size_t container, std::size_t child) {
    const std::int64_t offset = PickSigned(kWindow);
    const int priority = static_cast<int>(Pick(4)) - 2;
    const bool sound = child != 0 && !nodes_[child].container &&
                       nodes_[container].kind != RegionKind::kAlias && !Reaches(child, container);
    const auto status =
        nodes_[container].region->Add(static_cast<std::uint64_t>(offset), nodes_[child].region, priority);
    ASSERT_EQ(status.has_value(), sound);
    if (sound) {
      nodes_[child].container = container;
      nodes_[child].offset = offset;
      nodes_[child].priority = priority;
      nodes_[child].placed = ++clock_;
    }
  }

  void Remove(std::size_t child) {
    if (const auto container = std::exchange(nodes_[child].container, std::nullopt)) {
      nodes_[*container].region->Remove(nodes_[child].region);
    }
  }

  void Move(std::size_t at) {
    Node& node = nodes_[at];
    const std::int64_t offset = PickSigned(kWindow);
    if (node.kind == RegionKind::kAlias && Pick(2) == 0) {
      ASSERT_TRUE(node.region->SetAliasOffset(static_cast<std::uint64_t>(offset)));
      node.alias_offset = offset;
    } else if (at != 0 && offset != node.offset) {
      ASSERT_TRUE(node.region->SetOffset(static_cast<std::uint64_t>(offset)));
      node.offset = offset;
      node.placed = ++clock_;
    }
  }

  void ToggleReadonly(std::size_t at) {
    Node& node = nodes_[at];
    node.readonly = !node.readonly || node.kind == RegionKind::kRom;
    node.region->SetReadonly(node.readonly);
  }

  void Resize(std::size_t at) {
    Node& node = nodes_[at];
    const std::uint64_t size = Pick(kWindow + 1);
    const bool sound = !node.region->ram() || size <= node.region->ram()->size();
    if (at != 0) {
      ASSERT_EQ(node.region->SetSize(size).has_value(), sound);
      node.size = sound ? static_cast<std::int64_t>(size) : node.size;
    }
  }

  void EditEventFds(std::size_t at) {
    Node& node = nodes_[at];
    if (node.kind != RegionKind::kIo) {
      return;
    }
    if (!node.event_fds.empty() && Pick(2) == 0) {
      node.region->RemoveIoEventFd(node.event_fds.back());
      node.event_fds.pop_back();
      return;
    }
    const IoEventFd event_fd{.offset = Pick(kWindow),
                             .size = 1U << Pick(4),
                             .match = std::nullopt,
                             .fd = static_cast<int>(++clock_)};
    for (const IoEventFd& other : node.event_fds) {
      if (other.offset == event_fd.offset && other.size == event_fd.size) {
        return;  // KVM would refuse it
      }
    }
    node.region->AddIoEventFd(event_fd);
    node.event_fds.push_back(event_fd);
  }

  void EditCoalescing(std::size_t at) {
    Node& node = nodes_[at];
    if (node.kind != RegionKind::kIo) {
      return;
    }
    if (Pick(3) == 0) {
      node.region->ClearCoalescing();
      node.coalesced.clear();
      return;
    }
    const std::uint64_t offset = Pick(kWindow);
    const std::uint64_t size = 1 + Pick(kWindow);
    ASSERT_TRUE(node.region->AddCoalescing(offset, size));
    for (std::uint64_t byte = offset; byte < offset + size; ++byte) {
      node.coalesced.insert(static_cast<std::int64_t>(byte));
    }
  }

  World& world_;
  std::mt19937_64& random_;
  std::vector<Node> nodes_;
  std::uint64_t clock_ = 0;
};

// The view as bytes; checks its form on the way.
std::vector<std::optional<Shown>> BytesOf(const FlatView& view, std::uint64_t base) {
  std::vector<std::optional<Shown>> bytes(kWindow);
  const FlatRange* before = nullptr;
  for (const FlatRange& range : view.ranges()) {
    EXPECT_LE(range.start, range.last);
    if (before != nullptr) {
      EXPECT_LT(before->last, range.start);
      const bool mergeable = before->last + 1 == range.start && before->region == range.region &&
                             before->readonly == range.readonly &&
                             before->region_offset + before->size() == range.region_offset;
      EXPECT_FALSE(mergeable) << "a seam at " << range.start;
    }
    before = &range;
    for (std::uint64_t at = 0; at <= range.last - range.start; ++at) {
      bytes.at(range.start - base + at) = Shown{.node = std::stoul(range.region->name()),
                                                .offset = static_cast<std::int64_t>(range.region_offset + at),
                                                .readonly = range.readonly};
    }
  }
  return bytes;
}

// One random machine: a window of the address space whose bytes the model knows.
class Trial {
 public:
  Trial(std::uint64_t seed, std::uint64_t base) : random_(seed), base_(base) {
    EXPECT_TRUE(root_->Add(base_, model_.root()));
    EXPECT_TRUE(space_.AddListener(mirror_));
  }

  void Transact() {
    {
      const Transaction outer(world_.topology);
      for (auto edits = 1 + random_() % 4; edits > 0; --edits) {
        const Transaction inner(world_.topology);
        model_.Step();
      }
    }
    const auto bytes = model_.Bytes();
    ASSERT_EQ(BytesOf(*space_.view(), base_), bytes);
    ASSERT_EQ(mirror_.ranges(), space_.view()->ranges());
    auto event_fds = model_.EventFds(bytes);
    for (PlacedEventFd& event_fd : event_fds) {
      event_fd.address += base_;
    }
    ASSERT_EQ(mirror_.event_fds(), event_fds);
    ASSERT_EQ(Model::BytesOf(mirror_.coalescing(), base_), model_.Coalesced(bytes));
    CheckAccess(bytes);
    if (random_() % 8 == 0) {
      CheckLateListener(event_fds);
    }
  }

 private:
  // One read of the whole window shows what each byte's region has there.
  void CheckAccess(const std::vector<std::optional<Shown>>& bytes) {
    std::array<std::byte, kWindow> read{};
    space_.Read(cache_, GuestAddress(base_), read);
    for (std::size_t at = 0; at < kWindow; ++at) {
      const auto expected =
          bytes[at] ? TellingHandler::Byte(bytes[at]->node, static_cast<std::uint64_t>(bytes[at]->offset))
                    : 0xff;
      ASSERT_EQ(std::to_integer<unsigned>(read.at(at)), expected) << "at " << at;
    }
  }

  void CheckLateListener(const std::vector<PlacedEventFd>& event_fds) {
    Mirror late;
    ASSERT_TRUE(space_.AddListener(late));
    EXPECT_EQ(late.ranges(), space_.view()->ranges());
    EXPECT_EQ(late.event_fds(), event_fds);
    EXPECT_EQ(late.coalescing(), mirror_.coalescing());
    space_.RemoveListener(late);
    EXPECT_TRUE(late.coalescing().empty());
    EXPECT_TRUE(late.ranges().empty());
    EXPECT_TRUE(late.event_fds().empty());
  }

  std::mt19937_64 random_;
  std::uint64_t base_;
  World world_;
  Mirror mirror_;
  Model model_{world_, random_};
  RegionPtr root_ = world_.Container(kWholeSpace, "root");
  AddressSpace space_{world_.topology, "space", root_};
  ViewCache cache_;
};

TEST(Property, RandomEdits_RenderAsTheOracleSays) {
  const std::uint64_t seed = FromEnvironment("SEED", std::random_device()());
  const std::uint64_t steps = FromEnvironment("STEPS", 4000);
  constexpr std::uint64_t kStepsATrial = 100;
  std::printf("SEED=%llu STEPS=%llu\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(steps));
  testing::Test::RecordProperty("seed", std::to_string(seed));
  for (std::uint64_t step = 0; step < steps; step += kStepsATrial) {
    // At the bottom, in the middle, and against the last address.
    constexpr std::array<std::uint64_t, 3> kBases{0, 0x1'0000'0000, UINT64_MAX - kWindow + 1};
    Trial trial(seed + step, kBases.at(step / kStepsATrial % kBases.size()));
    for (std::uint64_t i = 0; i < std::min(kStepsATrial, steps - step); ++i) {
      trial.Transact();
      ASSERT_FALSE(testing::Test::HasFailure()) << "SEED=" << seed << ", at step " << step + i;
    }
  }
}

}  // namespace
}  // namespace gyre::memory
