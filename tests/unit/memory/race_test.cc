// Readers while the topology changes. Meant for ThreadSanitizer as well.
#include <thread>

#include "tests/unit/memory/fakes.h"

namespace gyre::memory {
namespace {

constexpr int kChanges = 5000;
constexpr std::uint64_t kStep = 0x1000;

// Reads as its own number, so that a reader sees whether it got a mixture.
class ConstantHandler final : public RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t /*offset*/, unsigned /*size*/) override { return 0x11111111; }
  void Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t /*value*/) override { ++writes_; }

 private:
  std::uint64_t writes_ = 0;  // guarded by the big lock, as TSan will confirm
};

// RAM that moves, a device that comes and goes: an access finds the one or the
// other or nobody, never a half of them, and never waits forever.
TEST(Race, ReadersDuringThousandsOfChanges_SeeOneOrTheOther) {
  World world;
  ConstantHandler handler;
  const auto root = world.Container(kWholeSpace);
  AddressSpace space(world.topology, "space", root);
  const auto ram = world.Ram(kStep);
  ASSERT_TRUE(root->Add(0, ram));
  world.GiveUpLock();

  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> accesses{0};
  const auto reader = [&] {
    ViewCache cache;
    while (!done.load()) {
      for (std::uint64_t address = 0; address < 4 * kStep; address += kStep) {
        std::uint32_t value = 0;
        const auto result =
            space.Read(cache, GuestAddress(address), std::as_writable_bytes(std::span(&value, 1)));
        const std::uint32_t expected = result == AccessResult::kUnassigned ? UINT32_MAX : value;
        EXPECT_EQ(value, expected);
        EXPECT_TRUE(value == 0 || value == UINT32_MAX || value == 0x11111111) << value;
        const std::uint32_t zero = 0;
        space.Write(cache, GuestAddress(address), std::as_bytes(std::span(&zero, 1)));
      }
      accesses.fetch_add(8);
    }
  };
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back(reader);
  }
  for (int i = 0; i < kChanges; ++i) {
    const BigLockGuard guard(world.lock);
    // New regions each time: the views alone keep the old ones.
    const auto io = MemoryRegion::NewIo(world.topology, "io", kStep, handler);
    {
      const Transaction transaction(world.topology);
      ASSERT_TRUE(ram->SetOffset(static_cast<std::uint64_t>(i % 4) * kStep));
      ASSERT_TRUE(root->Add(static_cast<std::uint64_t>((i + 1) % 4) * kStep, io, 1));
    }
    root->Remove(io);
  }
  done.store(true);
  for (auto& thread : readers) {
    thread.join();
  }
  EXPECT_GT(accesses.load(), 0U);
  world.RetakeLock();
}

}  // namespace
}  // namespace gyre::memory
