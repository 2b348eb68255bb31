// Queues that I/O threads serve: who serves them, and that stops, resets and the end of a
// device leave nothing in flight and no thread in a queue, whatever these are doing.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <string>

#include "devices/virtio/block_config.h"
#include "devices/virtio/block_image.h"
#include "gyre/base/format.h"
#include "gyre/devices/virtio/disk.h"
#include "gyre/devices/virtio/registry.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::MmioDriver;

// Keeps each queue's chains on its loop until the test lets go of them.
class Holder final : public VirtioDevice {
 public:
  explicit Holder(const DeviceContext& context)
      : VirtioDevice(context, {.name = "holder", .id = 42, .queues = kQueues, .queue_size = 16}) {}

  static constexpr unsigned kQueues = 3;
  struct Lane {
    std::vector<Chain> held;
    const loop::EventLoop* served_by = nullptr;
    std::size_t taken = 0;
    int removals = 0;
  };
  Lane& lane(unsigned index) { return lanes_.at(index); }
  // Then, in the same turn of the queue's loop, calls `look`.
  void CompleteAll(unsigned index, const std::function<void()>& look = [] {}) {
    OnLoop(index, [&] {
      for (Chain& chain : std::exchange(lane(index).held, {})) {
        chain.Complete(0);
      }
      look();
    });
  }
  std::size_t held(unsigned index) {
    std::size_t count = 0;
    OnLoop(index, [&] { count = lane(index).held.size(); });
    return count;
  }

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    Lane& mine = lane(index);
    mine.served_by = loop(index).OnLoopThread() ? &loop(index) : nullptr;
    while (auto chain = queue.Pop()) {
      mine.held.push_back(std::move(*chain));
      ++mine.taken;
    }
    return Served::kAll;
  }
  void OnRemoveQueue(unsigned index) override {
    EXPECT_TRUE(loop(index).OnLoopThread());
    EXPECT_TRUE(lane(index).held.empty());
    ++lane(index).removals;
  }

 private:
  std::array<Lane, kQueues> lanes_;
};

class IoThreads : public DeviceTest {
 protected:
  Holder& PlugHolder() {
    auto made = std::make_unique<Holder>(context());
    Holder& holder = *made;
    Plug(std::move(made));
    Bring(kFeatureRingReset);
    return holder;
  }
  void Offer(unsigned queue) {
    rings[queue]->Offer(std::array{Buffer{kData, 64, true}});
    mmio.Kick(queue);
  }
  // For a few seconds at most.
  template <typename Function>
  bool Await(const Function& done) {
    for (int i = 0; i < 5000; ++i) {
      if (done()) {
        return true;
      }
      RunPending();
      ::usleep(1000);
    }
    return false;
  }
  bool AwaitHeld(Holder& holder, unsigned queue, std::size_t count) {
    return Await([&] { return holder.held(queue) == count; });
  }
};

TEST_F(IoThreads, AQueueIsServedByItsThread) {
  StartThreads(2);
  Holder& holder = PlugHolder();
  for (unsigned i = 0; i < Holder::kQueues; ++i) {
    Offer(i);
    ASSERT_TRUE(AwaitHeld(holder, i, 1));
    EXPECT_EQ(holder.lane(i).served_by, &io_threads[i % 2]->loop());
  }
  for (unsigned i = 0; i < Holder::kQueues; ++i) {
    holder.CompleteAll(i);
    AwaitUsed(i);
  }
  EXPECT_GE(line.edges, 1);
}

// When a driver sees its answers: on the main loop, and on a thread.
class Answers : public IoThreads, public testing::WithParamInterface<unsigned> {
 protected:
  Answers() { StartThreads(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(On, Answers, testing::Values(0, 1),
                         [](const auto& test) { return test.param == 0 ? "MainLoop" : "Thread"; });

TEST_P(Answers, AreShownAtOnceWhereNothingElseIsInFlight) {
  Holder& holder = PlugHolder();
  Offer(0);
  ASSERT_TRUE(AwaitHeld(holder, 0, 1));
  holder.CompleteAll(0, [&] {
    EXPECT_TRUE(rings[0]->TakeUsed());
    EXPECT_EQ(line.edges, 1);
  });
}

TEST_P(Answers, OfATurnAreShownTogether_WithOneInterrupt) {
  Holder& holder = PlugHolder();
  Offer(0);
  Offer(0);
  ASSERT_TRUE(AwaitHeld(holder, 0, 2));
  holder.CompleteAll(0, [&] { EXPECT_FALSE(rings[0]->TakeUsed()); });
  AwaitUsed(0);
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_TRUE(Await([&] { return line.edges != 0; }));
  holder.CompleteAll(0);  // nothing: the turn before is over
  EXPECT_EQ(line.edges, 1);
}

// Its driver may have given the ring's memory away.
TEST_P(Answers, OfAQueueThatIsResetAreNotShown) {
  for (const bool whole_device : {false, true}) {
    for (const unsigned count : {1U, 2U}) {
      Unplug();
      Holder& holder = PlugHolder();
      const int edges = line.edges;
      for (unsigned i = 0; i < count; ++i) {
        Offer(0);
      }
      ASSERT_TRUE(AwaitHeld(holder, 0, count));
      mmio.Write(MmioDriver::kQueueSel, 0);
      mmio.Write(whole_device ? MmioDriver::kStatus : MmioDriver::kQueueReset, whole_device ? 0 : 1);
      const auto nothing_is_shown = [&] { EXPECT_FALSE(rings[0]->TakeUsed()); };
      holder.CompleteAll(0, nothing_is_shown);
      EXPECT_TRUE(Await([&] { return holder.lane(0).removals == 1; }))
          << "whoever waits for the last is told";
      nothing_is_shown();
      EXPECT_EQ(line.edges, edges);
    }
  }
}

TEST_F(IoThreads, AStopTakesNothingAnyMoreAndADrainWaitsForTheRest) {
  StartThreads(2);
  Holder& holder = PlugHolder();
  Offer(0);
  ASSERT_TRUE(AwaitHeld(holder, 0, 1));
  transport->Stop();
  Offer(1);
  // Somebody else's completion ends the drain.
  std::thread later([&] {
    ::usleep(20'000);
    io_threads[0]->RunAndWait([&] {
      for (Chain& chain : std::exchange(holder.lane(0).held, {})) {
        chain.Complete(0);
      }
    });
  });
  transport->Drain();
  EXPECT_TRUE(rings[0]->TakeUsed()) << "and the driver sees what is completed";
  later.join();
  EXPECT_EQ(holder.held(1), 0U);
  transport->Start();
  EXPECT_TRUE(AwaitHeld(holder, 1, 1)) << "what was kicked meanwhile is served then";
  holder.CompleteAll(1);
}

TEST_F(IoThreads, S_2_4_AResetIsCompleteOnceThreadsAreDone) {
  StartThreads(2);
  Holder& holder = PlugHolder();
  for (unsigned i = 0; i < Holder::kQueues; ++i) {
    Offer(i);
    ASSERT_TRUE(AwaitHeld(holder, i, 1));
  }
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(holds, 1);
  holder.CompleteAll(0);
  holder.CompleteAll(2);
  Settle();
  EXPECT_NE(status(), 0U);
  holder.CompleteAll(1);
  EXPECT_TRUE(Await([&] { return status() == 0; }));
  EXPECT_EQ(releases, 1);
  for (unsigned i = 0; i < Holder::kQueues; ++i) {
    EXPECT_FALSE(rings[i]->TakeUsed()) << "it may have given its memory away";
    EXPECT_EQ(holder.lane(i).removals, 1);
  }
}

TEST_F(IoThreads, S_2_6_1_AQueueIsResetWhileAnotherThreadGoesOn) {
  StartThreads(2);
  Holder& holder = PlugHolder();
  Offer(0);
  Offer(1);
  ASSERT_TRUE(AwaitHeld(holder, 0, 1));
  ASSERT_TRUE(AwaitHeld(holder, 1, 1));
  mmio.Write(MmioDriver::kQueueSel, 0);
  mmio.Write(MmioDriver::kQueueReset, 1);
  holder.CompleteAll(1);
  AwaitUsed(1);
  mmio.Write(MmioDriver::kQueueSel, 0);
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReset), 1U);
  holder.CompleteAll(0);
  EXPECT_TRUE(Await([&] { return mmio.Read(MmioDriver::kQueueReset) == 0; }));
  EXPECT_EQ(mmio.Read(MmioDriver::kQueueReady), 0U);
  EXPECT_EQ(holder.lane(0).removals, 1);
  EXPECT_EQ(holder.lane(1).removals, 0);
}

// A completion of a queue whose ring is not there any more ends a drain, too.
TEST_F(IoThreads, ARingWhoseMemoryGoesIsDrained) {
  StartThreads(1);
  Holder& holder = PlugHolder();
  Offer(0);
  ASSERT_TRUE(AwaitHeld(holder, 0, 1));
  memory.root->Remove(memory.ram);
  mmio.Kick(0);
  ASSERT_TRUE(Await([&] { return (status() & MmioDriver::kNeedsReset) != 0; }));
  transport->Stop();
  std::thread later([&] {
    ::usleep(20'000);
    io_threads[0]->RunAndWait([&] {
      for (Chain& chain : std::exchange(holder.lane(0).held, {})) {
        EXPECT_EQ(chain.Write(0, std::array{std::byte{1}}), 1U) << "its memory stays as long as it does";
        chain.Complete(0);
      }
    });
  });
  transport->Drain();
  later.join();
}

// --- A disk that works while the world around it changes ---

const Module& DiskModule() {
  return **std::ranges::find(Modules(), "disk", [](const Module* module) { return module->option; });
}

// With a driver that flushes, whose writes their thread carries out itself, or one whose writes are durable.
class DiskOnThreads : public IoThreads, public testing::WithParamInterface<bool> {
 protected:
  static constexpr unsigned kQueues = 4;
  static constexpr std::uint32_t kSize = 4096;
  static constexpr std::uint64_t kHeaders = 0xb0000;
  static constexpr std::uint64_t kBuffers = 0x100000;  // of each queue 16

  explicit DiskOnThreads(const loop::PollLimits& poll = {}) {
    std::ofstream(path) << std::string(std::size_t{1} << 20, 'a');
    StartThreads(2, poll);
    auto properties =
        Properties::Parse(format("path={},queues={}", path, kQueues), DiskModule().properties).value();
    auto where = context();
    where.disks = &disks;
    where.id = "disk0";
    Plug(DiskModule().create(where, properties).value());
    Bring(features, 64);
  }
  ~DiskOnThreads() override {
    Unplug();
    ::unlink(path.c_str());
  }

  std::uint64_t HeaderAt(unsigned queue, unsigned i) const { return kHeaders + 32 * (16 * queue + i); }
  std::uint64_t BufferAt(unsigned queue, unsigned i) const { return kBuffers + kSize * (16 * queue + i); }
  // Queue by queue sixteen requests, each of its own place in the image, and a kick.
  void OfferAll(std::uint32_t type) {
    for (unsigned queue = 0; queue < kQueues; ++queue) {
      for (unsigned i = 0; i < 16; ++i) {
        std::byte* const header = memory.host() + HeaderAt(queue, i);
        const std::uint64_t sector = kSize / 512 * (16 * queue + i);
        std::memset(header, 0, 32);
        std::memcpy(header, &type, 4);
        std::memcpy(header + 8, &sector, 8);
        header[16] = std::byte{0xee};
        rings[queue]->Offer(std::array{Buffer{HeaderAt(queue, i), 16},
                                       Buffer{BufferAt(queue, i), kSize, type == 0},
                                       Buffer{HeaderAt(queue, i) + 16, 1, true}});
      }
      if (rings[queue]->MustKick()) {
        mmio.Kick(queue);
      }
    }
  }
  void AwaitAll() {
    for (unsigned queue = 0; queue < kQueues; ++queue) {
      for (unsigned i = 0; i < 16; ++i) {
        AwaitUsed(queue);
      }
      for (unsigned i = 0; i < 16; ++i) {
        EXPECT_EQ(memory.host()[HeaderAt(queue, i) + 16], std::byte{0});
      }
    }
  }
  void Fill(std::uint8_t first) {
    for (unsigned i = 0; i < 16 * kQueues; ++i) {
      std::memset(memory.host() + kBuffers + std::uint64_t{kSize} * i, static_cast<int>(first + i), kSize);
    }
  }
  bool BuffersAre(std::uint8_t first) {
    for (unsigned i = 0; i < 16 * kQueues; ++i) {
      const std::byte* const at = memory.host() + kBuffers + std::uint64_t{kSize} * i;
      if (!std::all_of(at, at + kSize,
                       [&](std::byte byte) { return byte == static_cast<std::byte>(first + i); })) {
        return false;
      }
    }
    return true;
  }

  const std::uint64_t features = kFeatureRingReset | kFeatureEventIndex | (GetParam() ? kBlockFlush : 0);
  Disks disks{*loop_, [](const DiskError&) {}};
  const std::string path = testing::TempDir() + format("gyre-io-threads-{}", ::getpid());
};

TEST_P(DiskOnThreads, WhatAllQueuesWriteAtOnceIsReadBack) {
  for (std::uint8_t round = 1; round < 20; ++round) {
    Fill(round);
    OfferAll(1);
    AwaitAll();
    Fill(0xff);
    OfferAll(0);
    AwaitAll();
    ASSERT_TRUE(BuffersAre(round));
  }
}

TEST_P(DiskOnThreads, AfterAStopNothingMovesUntilTheStart) {
  Fill(1);
  OfferAll(1);
  AwaitAll();
  for (unsigned round = 0; round < 50; ++round) {
    OfferAll(0);
    ::usleep(round * 10);
    transport->Stop();
    transport->Drain();
    EXPECT_TRUE(transport->device().Idle());
    const MmioState before = transport->Save();
    Fill(0xaa);
    ::usleep(200);
    EXPECT_TRUE(BuffersAre(0xaa)) << "no request is in flight";
    EXPECT_EQ(transport->Save(), before);
    transport->Start();
    AwaitAll();
  }
}

TEST_P(DiskOnThreads, S_2_4_AfterAResetMemoryIsTheDriversAtAnyMoment) {
  for (unsigned round = 0; round < 50; ++round) {
    OfferAll(round % 2);
    ::usleep(round * 10);
    mmio.Write(MmioDriver::kStatus, 0);
    ASSERT_TRUE(Await([&] { return status() == 0; }));
    Fill(0x55);
    ::usleep(200);
    ASSERT_TRUE(BuffersAre(0x55));
    Bring(features, 64);
  }
}

TEST_P(DiskOnThreads, TheMemoryMapChangesUnderIt) {
  auto other = memory::MemoryRegion::NewAlias(memory.topology, "window", memory.ram, 0, kPageSize);
  for (unsigned round = 0; round < 30; ++round) {
    OfferAll(1);
    EXPECT_TRUE(memory.root->Add(GuestMemory::kHole, other));
    memory.root->Remove(other);
    AwaitAll();
  }
}

// The threads' rings have an image's files: these go before it does, and so does its lock.
TEST_P(DiskOnThreads, AnotherImageTakesItsPlaceUnderLoad) {
  const std::array<std::string, 2> images = {path, path + "-other"};
  std::ofstream(images[1]) << std::string(std::size_t{1} << 20, 'b');
  for (unsigned round = 0; round < 40; ++round) {
    const unsigned next = (round + 1) % 2;
    OfferAll(0);
    ::usleep(round * 10);
    ASSERT_TRUE(disks.all().front().disk->ChangeImage(images.at(next)));
    EXPECT_TRUE(BlockImage::Open({.path = images.at(1 - next)})) << "nobody has locked the old one any more";
    AwaitAll();
    Fill(0);
    OfferAll(0);
    AwaitAll();
    for (unsigned i = 0; i < 16 * kQueues; ++i) {
      ASSERT_EQ(memory.host()[kBuffers + std::uint64_t{kSize} * i], static_cast<std::byte>('a' + next))
          << round;
    }
  }
  ::unlink(images[1].c_str());
}

TEST_P(DiskOnThreads, ItsEndWaitsForWhatIsInFlight) {
  OfferAll(1);
  Unplug();
  Fill(0x77);
  ::usleep(200);
  EXPECT_TRUE(BuffersAre(0x77));
}

// Threads that look at the rings themselves, and ask for kicks only before they sleep.
class DiskOnPollingThreads : public DiskOnThreads {
 protected:
  DiskOnPollingThreads() : DiskOnThreads({.max_ns = 1'000'000}) {}
};

TEST_P(DiskOnPollingThreads, NoRequestIsMissedWhetherKickedOrNot) {
  for (unsigned round = 0; round < 300; ++round) {
    OfferAll(round % 2);
    if (round % 16 == 0) {
      ::usleep(2000);  // so that they fall asleep
    }
    AwaitAll();
  }
}

TEST_P(DiskOnPollingThreads, AfterAStopNothingMovesUntilTheStart) {
  for (unsigned round = 0; round < 50; ++round) {
    OfferAll(0);
    ::usleep(round * 10);
    transport->Stop();
    transport->Drain();
    Fill(0xaa);
    ::usleep(200);
    EXPECT_TRUE(BuffersAre(0xaa)) << "no request is in flight";
    transport->Start();
    AwaitAll();
  }
}

std::string FlushName(const testing::TestParamInfo<bool>& info) { return info.param ? "Flushes" : "Durable"; }
INSTANTIATE_TEST_SUITE_P(Drivers, DiskOnThreads, testing::Bool(), FlushName);
INSTANTIATE_TEST_SUITE_P(Drivers, DiskOnPollingThreads, testing::Bool(), FlushName);

}  // namespace
}  // namespace gyre::virtio
