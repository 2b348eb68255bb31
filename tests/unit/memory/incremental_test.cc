// Commits render only what has changed: in maps of hundreds of regions the view,
// the listeners' books and the ioeventfds must be those of a rendering from scratch.
// SEED= repeats a run, STEPS= sets its length.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

constexpr std::uint64_t kSpan = 1U << 16;

std::uint64_t FromEnvironment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

// A root with containers, in which devices and RAM stand, and aliases of all of them.
class Crowd {
 public:
  explicit Crowd(std::uint64_t seed) : random_(seed) {
    const Transaction build(world_.topology);
    containers_.push_back(root_);
    for (int i = 0; i < 12; ++i) {
      containers_.push_back(world_.Container(kSpan / 4, "container" + std::to_string(i)));
      Put(containers_.back());
    }
    for (int i = 0; i < 250; ++i) {
      const auto name = "device" + std::to_string(i);
      leaves_.push_back(i % 3 == 0 ? world_.Ram(256, name)
                                   : MemoryRegion::NewIo(world_.topology, name, 256, handler_));
      Put(leaves_.back());
    }
    for (int i = 0; i < 40; ++i) {
      const RegionPtr& target = i % 2 == 0 ? Any(leaves_) : Any(containers_);
      leaves_.push_back(world_.Alias(target, Pick(512), 1 + Pick(2048), "alias" + std::to_string(i)));
      Put(leaves_.back());
    }
  }

  void Transact() {
    {
      const Transaction transaction(world_.topology);
      for (std::uint64_t edits = 1 + Pick(Pick(8) == 0 ? 60 : 3); edits > 0; --edits) {
        Edit();
      }
    }
    // A root that does not come to the same, or the two would share one view.
    const RegionPtr other = world_.Container(kWholeSpace, "other");
    ASSERT_TRUE(other->Add(0, world_.Alias(root_, 0, kWholeSpace)));
    ASSERT_TRUE(other->Add(0, world_.Container(0, "second")));
    AddressSpace again(world_.topology, "again", other);
    Mirror fresh;
    ASSERT_TRUE(again.AddListener(fresh));
    ASSERT_EQ(space_.view()->ranges(), again.view()->ranges());
    ASSERT_EQ(space_.view()->size(), again.view()->ranges().size());
    ASSERT_EQ(mirror_.ranges(), fresh.ranges());
    ASSERT_EQ(mirror_.event_fds(), fresh.event_fds());
    CheckLookUps();
    again.RemoveListener(fresh);
  }
  std::size_t ranges() const { return space_.view()->size(); }

 private:
  std::uint64_t Pick(std::uint64_t limit) { return random_() % limit; }
  template <typename T>
  const T& Any(const std::vector<T>& of) {
    return of[Pick(of.size())];
  }

  // Refused where it would contain itself, which is as good an edit as another.
  void Put(const RegionPtr& region) {
    const RegionPtr& container = Pick(2) == 0 ? root_ : Any(containers_);
    (void)container->Add(Pick(std::min(kSpan, container->size())), region, static_cast<int>(Pick(4)));
  }

  void Edit() {
    const RegionPtr region = Pick(8) == 0 ? containers_[1 + Pick(containers_.size() - 1)] : Any(leaves_);
    switch (Pick(9)) {
      case 0:
        if (const RegionPtr container = region->container()) {
          container->Remove(region);
        }
        if (Pick(4) != 0) {
          Put(region);
        }
        break;
      case 1:
        Put(region);
        break;
      case 2:
      case 3:
        EXPECT_TRUE(region->SetOffset(Pick(kSpan / 4)));
        break;
      case 4:
        region->SetEnabled(Pick(8) != 0);
        break;
      case 5:
        EXPECT_TRUE(region->SetSize(region->kind() == RegionKind::kContainer ? Pick(kSpan) : Pick(257)));
        break;
      case 6:
        region->SetReadonly(Pick(2) == 0);
        break;
      case 7:
        region->SetUnmergeable(Pick(2) == 0);
        break;
      default:
        EditEventFds(region);
    }
  }

  void EditEventFds(const RegionPtr& region) {
    if (region->kind() != RegionKind::kIo) {
      return;
    }
    if (region->io_event_fds().size() > 3) {
      region->RemoveIoEventFd(region->io_event_fds().front());
      return;
    }
    // At a place of its own: KVM would refuse the same twice.
    const std::uint64_t place = Pick(64) * 4;
    for (const IoEventFd& other : region->io_event_fds()) {
      if (other.offset == place) {
        return;
      }
    }
    region->AddIoEventFd({.offset = place, .size = 4, .match = std::nullopt, .fd = static_cast<int>(++fds_)});
  }

  // What a bare search in the ranges finds.
  void CheckLookUps() {
    const auto view = space_.view();
    const auto ranges = view->ranges();
    for (int i = 0; i < 16; ++i) {
      const std::uint64_t address = Pick(2 * kSpan);
      const auto found = std::ranges::lower_bound(ranges, address, {}, &FlatRange::last);
      const FlatRange* const sought = view->Seek(address);
      ASSERT_EQ(sought == nullptr, found == ranges.end()) << address;
      if (sought != nullptr) {
        ASSERT_EQ(*sought, *found) << address;
      }
    }
  }

  std::mt19937_64 random_;
  World world_;
  FakeHandler handler_;
  Mirror mirror_;
  RegionPtr root_ = world_.Container(kWholeSpace, "root");
  AddressSpace space_{world_.topology, "space", root_};
  bool listens_ = space_.AddListener(mirror_).has_value();
  std::vector<RegionPtr> containers_;
  std::vector<RegionPtr> leaves_;
  std::uint64_t fds_ = 0;
};

TEST(Incremental, CommitsInLargeMaps_EqualARenderingFromScratch) {
  const std::uint64_t seed = FromEnvironment("SEED", std::random_device()());
  const std::uint64_t steps = FromEnvironment("STEPS", 400);
  constexpr std::uint64_t kStepsATrial = 200;
  std::printf("SEED=%llu STEPS=%llu\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(steps));
  std::size_t most = 0;
  for (std::uint64_t step = 0; step < steps; step += kStepsATrial) {
    Crowd crowd(seed + step);
    for (std::uint64_t i = 0; i < std::min(kStepsATrial, steps - step); ++i) {
      crowd.Transact();
      ASSERT_FALSE(testing::Test::HasFailure()) << "SEED=" << seed << ", at step " << step + i;
      most = std::max(most, crowd.ranges());
    }
  }
  EXPECT_GT(most, 100U);  // or it was no large map
}

// A view's tree under edits of every size, down to nothing and up again.
TEST(Incremental, ViewWithPatches_EqualsASortedVector) {
  std::mt19937_64 random(FromEnvironment("SEED", 1));
  World world;
  const RegionPtr region = world.Ram(4096);
  const auto range = [&](std::uint64_t start, std::uint64_t size) {
    return FlatRange{
        .start = start, .last = start + size - 1, .region = region, .region_offset = random() % 64};
  };
  FlatView view;
  std::vector<FlatRange> model;
  for (int step = 0; step < 3000; ++step) {
    // Mostly growing for a while, then mostly shrinking.
    const bool grows = step / 500 % 2 == 0;
    const std::uint64_t first = random() % 100'000;
    const std::uint64_t last = first + random() % (grows ? 64 : 4096);
    std::vector<FlatRange> patch;
    for (std::uint64_t at = first; grows && at + 8 <= last; at += 8 + random() % 8) {
      patch.push_back(range(at, 1 + random() % 8));
    }
    // What overlaps goes whole, so the patch must not stand where its neighbours stay.
    std::erase_if(model, [&](const FlatRange& old) { return old.start <= last && old.last >= first; });
    const auto at = std::ranges::lower_bound(model, first, {}, &FlatRange::start);
    model.insert(at, patch.begin(), patch.end());
    view = view.With(first, last, patch);
    ASSERT_EQ(view.size(), model.size()) << "step " << step;
    if (step % 16 == 0) {
      ASSERT_EQ(view.ranges(), model) << "step " << step;
    }
  }
  view = view.With(0, UINT64_MAX, {});
  EXPECT_EQ(view.size(), 0U);
  EXPECT_EQ(view.Seek(0), nullptr);
}

// A reader keeps its view, whatever is published after it.
TEST(Incremental, OldView_StaysAsItWas) {
  World world;
  FakeHandler handler;
  const RegionPtr root = world.Container(kWholeSpace);
  AddressSpace space(world.topology, "space", root);
  std::vector<RegionPtr> regions;
  for (std::uint64_t i = 0; i < 300; ++i) {
    regions.push_back(MemoryRegion::NewIo(world.topology, "device", 16, handler));
    ASSERT_TRUE(root->Add(i * 32, regions.back()));
  }
  const auto view = space.view();
  const auto before = view->ranges();
  ASSERT_EQ(before.size(), 300U);
  for (const RegionPtr& region : regions) {
    root->Remove(region);
  }
  EXPECT_EQ(view->ranges(), before);
  EXPECT_EQ(space.view()->size(), 0U);
}

}  // namespace
}  // namespace gyre::memory
