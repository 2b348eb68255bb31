// What the memory model costs, beside a bare sorted array. Run by `tools/bench memory`.
#include <benchmark/benchmark.h>
#include <malloc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/memory/address_space.h"

namespace gyre::memory {
namespace {

constexpr std::uint64_t kSize = 0x1000;
constexpr std::uint64_t kStride = 0x3000;  // a gap behind each region, as between devices

class Quiet final : public RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t /*offset*/, unsigned /*size*/) override { return 0; }
  void Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t /*value*/) override {}
};

// Holds the big lock for its life.
struct Held {
  Held() NO_THREAD_SAFETY_ANALYSIS { lock.Lock(); }
  ~Held() NO_THREAD_SAFETY_ANALYSIS { lock.Unlock(); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  BigLock lock;
};

// A machine of `count` devices, each with one region of registers.
struct Map {
  explicit Map(std::size_t count) {
    Transaction build(topology);
    regions.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      regions.push_back(MemoryRegion::NewIo(topology, "device", kSize, handler, {.lock = LockPolicy::kNone}));
      if (!root->Add(i * kStride, regions.back())) {
        std::abort();
      }
    }
    if (!build.Commit()) {
      std::abort();
    }
  }

  Held held;
  Topology topology{held.lock};
  Quiet handler;
  RegionPtr root = MemoryRegion::NewContainer(topology, "root", kWholeSpace);
  AddressSpace space{topology, "space", root};
  std::vector<RegionPtr> regions;
};

// Addresses in the ranges, in no order that a cache or a branch predictor could learn.
std::vector<std::uint64_t> Addresses(std::size_t ranges) {
  std::vector<std::uint64_t> addresses(4096);
  std::uint64_t state = 88172645463325252;
  for (std::uint64_t& address : addresses) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    address = state % ranges * kStride + state % kSize;
  }
  return addresses;
}

void LookupBare(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  std::vector<std::uint64_t> starts(count);
  for (std::size_t i = 0; i < count; ++i) {
    starts[i] = i * kStride;
  }
  const auto addresses = Addresses(count);
  std::size_t next = 0;
  for ([[maybe_unused]] const auto _ : state) {
    benchmark::DoNotOptimize(std::ranges::upper_bound(starts, addresses[next++ % addresses.size()]));
  }
}

void LookupView(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const Map map(count);
  const auto view = map.space.view();
  const auto addresses = Addresses(count);
  std::size_t next = 0;
  for ([[maybe_unused]] const auto _ : state) {
    benchmark::DoNotOptimize(view->Find(addresses[next++ % addresses.size()]));
  }
}

void FullRender(benchmark::State& state) {
  Map map(static_cast<std::size_t>(state.range(0)));
  for ([[maybe_unused]] const auto _ : state) {
    const AddressSpace again(map.topology, "again", map.root);
    benchmark::DoNotOptimize(&again);
  }
}

// One region taken out of the view and put back: two commits an iteration.
void CommitOne(benchmark::State& state) {
  Map map(static_cast<std::size_t>(state.range(0)));
  std::size_t next = 0;
  for ([[maybe_unused]] const auto _ : state) {
    MemoryRegion& region = *map.regions[next++ * 7919 % map.regions.size()];
    region.SetEnabled(false);
    region.SetEnabled(true);
  }
  state.SetItemsProcessed(2 * static_cast<std::int64_t>(state.iterations()));
}

// One region moved by a page and back: two commits an iteration.
void CommitMove(benchmark::State& state) {
  Map map(static_cast<std::size_t>(state.range(0)));
  std::size_t next = 0;
  for ([[maybe_unused]] const auto _ : state) {
    MemoryRegion& region = *map.regions[next++ * 7919 % map.regions.size()];
    const std::uint64_t offset = region.offset();
    benchmark::DoNotOptimize(region.SetOffset(offset + kSize));
    benchmark::DoNotOptimize(region.SetOffset(offset));
  }
  state.SetItemsProcessed(2 * static_cast<std::int64_t>(state.iterations()));
}

// By one transaction, and gone again; the regions themselves exist before.
void Build(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  Map map(count);
  for ([[maybe_unused]] const auto _ : state) {
    Transaction build(map.topology);
    const RegionPtr root = MemoryRegion::NewContainer(map.topology, "machine", count * kStride);
    for (std::size_t i = 0; i < count; ++i) {
      benchmark::DoNotOptimize(
          root->Add(i * kStride, MemoryRegion::NewIo(map.topology, "device", kSize, map.handler, {}), 1));
    }
    benchmark::DoNotOptimize(map.root->Add(0, root, 1));
    benchmark::DoNotOptimize(build.Commit());
    state.PauseTiming();
    map.root->Remove(root);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(count) * static_cast<std::int64_t>(state.iterations()));
}

// MMIO without the big lock, as vCPUs do it: each thread with its own cache.
void Dispatch(benchmark::State& state) {
  static std::optional<Map> map;
  if (state.thread_index() == 0) {
    map.emplace(1000);
  }
  ViewCache cache;
  std::array<std::byte, 4> value{};
  std::uint64_t next = static_cast<std::uint64_t>(state.thread_index()) * 131;
  for ([[maybe_unused]] const auto _ : state) {
    benchmark::DoNotOptimize(map->space.Read(cache, GuestAddress(++next % 1000 * kStride), value));
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
  if (state.thread_index() == 0) {
    map.reset();
  }
}

std::size_t InUse() { return ::mallinfo2().uordblks; }

// What is allocated for regions with a container's index, and for a view's ranges.
void Footprint(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  for ([[maybe_unused]] const auto _ : state) {
    const std::size_t before = InUse();
    Map map(count);
    const std::size_t with_map = InUse();
    const FlatView copy(map.space.view()->ranges());
    benchmark::DoNotOptimize(&copy);
    const std::size_t with_copy = InUse();
    const auto per = [count](std::size_t bytes) {
      return static_cast<double>(bytes) / static_cast<double>(count);
    };
    const std::size_t view = with_copy - with_map;
    state.counters["bytes_per_range"] = per(view);
    state.counters["bytes_per_region"] = per(with_map - before - view);
  }
}

BENCHMARK(LookupBare)->RangeMultiplier(4)->Range(16, 16384);
BENCHMARK(LookupView)->RangeMultiplier(4)->Range(16, 16384);
BENCHMARK(FullRender)->Arg(100)->Arg(1000)->Arg(10000);
BENCHMARK(CommitOne)->Arg(100)->Arg(1000)->Arg(10000);
BENCHMARK(CommitMove)->Arg(100)->Arg(1000)->Arg(10000);
BENCHMARK(Build)->Arg(100)->Arg(1000)->Arg(10000);
BENCHMARK(Dispatch)->ThreadRange(1, 8)->UseRealTime();
BENCHMARK(Footprint)->Arg(1000)->Arg(10000)->Iterations(1);

}  // namespace
}  // namespace gyre::memory

BENCHMARK_MAIN();
