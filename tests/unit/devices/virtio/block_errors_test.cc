// What a disk does about errors: the host's, and those of guest memory.
#include <cerrno>
#include <filesystem>
#include <utility>

#include "gyre/base/bus_error.h"
#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

class BlockErrors : public BlockFixture {
 protected:
  // From now on the named step fails with `error`, as often as `times` says.
  void FailAt(std::string_view step, std::int32_t error, int times = 1000) {
    disk().SetFault(
        [this, step, error, times](std::string_view at, std::uint64_t offset, std::int32_t result) mutable {
          offsets.push_back(offset);
          if (at == "allocate") {
            result = refuses_ranges;  // whatever this file system has
          }
          return at.ends_with(step) && times-- > 0 ? error : result;  // a durable write is a write
        });
  }
  void Work() { disk().SetFault({}); }
  void StopVm() {
    transport->Stop();
    transport->Drain();
  }

  std::vector<std::uint64_t> offsets;
  std::int32_t refuses_ranges = 0;  // -errno
};

struct Step {
  const char* name;
  std::uint32_t type;
  const char* options = "";
  bool ranges_refused = false;  // so that zeros are written
};
// Where there is no FLUSH, a range that was changed is synced.
constexpr std::array<Step, 11> kSteps = {{{"read", 0},
                                          {"write", 1},
                                          {"sync", 4},
                                          {"allocate", 11},
                                          {"allocate", 13},
                                          {"write", 13, "", true},
                                          {"write", 13, ",cache=writethrough", true},
                                          {"sync", 11},
                                          {"sync", 13},
                                          {"sync", 11, ",cache=writethrough"},
                                          {"sync", 13, ",cache=writethrough"}}};

TEST_F(BlockErrors, EachStepAndError_FollowsItsPolicy) {
  for (const auto& [step, type, options, refused] : kSteps) {
    for (const std::int32_t error : {-EIO, -ENOSPC, -EFBIG}) {
      for (const std::string policy : {"report", "ignore", "stop", "enospc"}) {
        const bool read = type == kRead;
        if (read && policy == "enospc") {
          continue;
        }
        SCOPED_TRACE(format("{} of {}{}: {}, {}", step, type, options, error, policy));
        told.clear();
        Advance(2'000'000'000);
        Make(format(",id=d,{}error={}{}", read ? "r" : "w", policy, options));
        refuses_ranges = refused ? -EOPNOTSUPP : 0;
        FailAt(step, error);
        const auto request = [&] {
          const std::array<std::uint32_t, 4> range{8, 0, 8, 0};
          if (type == kDiscard || type == kWriteZeroes) {
            std::memcpy(memory.host() + kData, range.data(), 16);
            return Offer(type, 0, std::array{Buffer{kData, 16}});
          }
          return type == kFlush ? Offer(type, 0, {}) : Offer(type, 8, std::array{Buffer{kData, 512, read}});
        };
        request();
        const bool stops = policy == "stop" || (policy == "enospc" && error == -ENOSPC);
        EXPECT_TRUE(Await([&] { return !told.empty() && (stops || Answer() != kUnanswered); }));
        EXPECT_EQ(told.at(0).disk, "d");
        EXPECT_EQ(told.at(0).read, read);
        EXPECT_EQ(told.at(0).no_space, error == -ENOSPC);
        EXPECT_FALSE(told.at(0).reason.empty());
        if (!stops) {
          EXPECT_EQ(Answer(), policy == "ignore" ? kOk : kIoError);
          EXPECT_EQ(Name(told.at(0).action), policy == "ignore" ? "ignore" : "report");
          continue;
        }
        EXPECT_EQ(Name(told.at(0).action), "stop");
        EXPECT_EQ(disk().Info().io_status, error == -ENOSPC ? IoStatus::kNoSpace : IoStatus::kFailed);
        mmio.Kick(0);
        Settle();
        EXPECT_EQ(Answer(), kUnanswered) << "not tried again before the VM has stood";
        EXPECT_EQ(told.size(), 1U);
        StopVm();
        EXPECT_EQ(Answer(), kUnanswered);
        Work();
        transport->Start();
        EXPECT_TRUE(Await([&] { return Answer() != kUnanswered; }));
        EXPECT_EQ(Answer(), kOk);
        EXPECT_EQ(disk().Info().io_status, IoStatus::kOk);
      }
    }
  }
}

TEST_F(BlockErrors, ZerosAreWrittenWhereTheHostCannotMakeThem) {
  constexpr std::size_t kMany = 9 * kMiB;  // of several writes
  for (const std::int32_t refusal : {-EOPNOTSUPP, -EINVAL}) {
    for (const std::uint32_t unmap : {0U, 1U}) {
      SCOPED_TRACE(format("{} {}", refusal, unmap));
      std::ofstream(image) << std::string(kMany + kMiB, 'a');
      Make();
      refuses_ranges = refusal;
      FailAt("nothing", 0);
      EXPECT_EQ(Ranges(kWriteZeroes, {Range{1, 0, 2, unmap}, Range{16, 0, kMany / kSector, unmap}}), kOk);
      EXPECT_TRUE(told.empty());
      std::string expected(kMany + kMiB, 'a');
      expected.replace(1 * kSector, 2 * kSector, 2 * kSector, '\0');
      expected.replace(16 * kSector, kMany, kMany, '\0');
      EXPECT_TRUE(Content(0, kMany + kMiB) == expected);
      // Fewer bytes than were asked for.
      EXPECT_EQ(Request(kWrite, 1024, std::array{Buffer{kHeader, 4096}}), kOk);
      FailAt("write", 512, 3);
      EXPECT_EQ(Ranges(kWriteZeroes, {Range{1024, 0, 8, unmap}}), kOk);
      const std::uint64_t at = 1024 * kSector;
      EXPECT_EQ(offsets.back(), at + 4096) << "the sync";
      EXPECT_TRUE(Content(at, 4096) == std::string(4096, '\0'));
      offsets.clear();
    }
  }
}

TEST_F(BlockErrors, ZerosThatDidNotFit_AreWrittenOnceTheyDo) {
  Make(",werror=stop");
  refuses_ranges = -EOPNOTSUPP;
  FailAt("nothing", 0);
  ASSERT_EQ(::truncate(image.c_str(), 4096), 0);
  const std::array<std::uint32_t, 4> range{16, 0, 8, 0};
  std::memcpy(memory.host() + kData, range.data(), 16);
  {
    const FileSizeLimit limit(4096);
    Offer(kWriteZeroes, 0, std::array{Buffer{kData, 16}});
    EXPECT_TRUE(Await([&] { return !told.empty(); }));
    EXPECT_EQ(Answer(), kUnanswered);
  }
  StopVm();
  EXPECT_EQ(std::filesystem::file_size(image), 4096U);
  transport->Start();
  AwaitUsed();
  EXPECT_EQ(Answer(), kOk);
  EXPECT_EQ(std::filesystem::file_size(image), 16 * kSector + 4096);
  EXPECT_EQ(Content(16 * kSector, 4096), std::string(4096, '\0'));
}

// The first flush that fails has lost them, as with what a guest has written.
TEST_F(BlockErrors, ZerosThatDidNotBecomeDurable_AreNeverSaidToBe) {
  for (const std::string options : {"", ",cache=writethrough"}) {
    Make(options);
    refuses_ranges = -EOPNOTSUPP;
    FailAt("sync", -EIO, 1);
    EXPECT_EQ(Ranges(kWriteZeroes, {Range{8, 0, 8, 0}}), kIoError);
    EXPECT_EQ(Ranges(kWriteZeroes, {Range{8, 0, 8, 0}}), kIoError);
    EXPECT_EQ(Ranges(kDiscard, {Range{8, 0, 8, 0}}), kIoError);
  }
}

TEST_F(BlockErrors, WhatTheImageIsTooShortFor_IsReportedAndWhatDoesNotFitStops) {
  Make();
  FailAt("read", 0);
  EXPECT_EQ(Request(kRead, 8, std::array{Buffer{kData, 512, true}}), kIoError);
  FailAt("write", 0);
  Offer(kWrite, 8, std::array{Buffer{kData, 512}});
  EXPECT_TRUE(Await([&] { return told.size() == 2; }));
  EXPECT_EQ(told[0].reason, "the image ends before it");
  EXPECT_TRUE(told[1].no_space && told[1].action == ErrorAction::kStop);
}

TEST_F(BlockErrors, AShortAnswerIsGoneOnWith) {
  Make(",rerror=stop,werror=stop", kFlushFeature);
  FailAt("write", 512, 1);
  std::memset(memory.host() + kData, 's', 4096);
  EXPECT_EQ(Request(kWrite, 8, std::array{Buffer{kData, 4096}}), kOk);
  EXPECT_EQ(Content(8 * kSector, 4096), std::string(4096, 's'));
  EXPECT_EQ(offsets, (std::vector<std::uint64_t>{4096, 4608}));
  EXPECT_TRUE(told.empty());
}

// In which order: BothRings.ParkedChainsComeAgainFirstAndInTheirOrder.
TEST_F(BlockErrors, AllThatFailedBeforeTheStopIsTriedAgain) {
  Make(",werror=stop");
  Bring(kFlushFeature, 64);
  FailAt("write", -EIO);
  constexpr std::uint64_t kRequests = 10;
  for (std::uint64_t i = 0; i < kRequests; ++i) {
    // A header and a byte for each, since they are read again.
    const std::uint64_t header = kHeader + 0x200 + 16 * i;
    std::memset(memory.host() + header, 0, 16);
    memory.host()[header] = std::byte{kWrite};
    memory.host()[header + 8] = static_cast<std::byte>(8 * i);
    std::memset(memory.host() + kData + 512 * i, static_cast<int>('A' + i), 512);
    rings[0]->Offer(std::array{Buffer{header, 16}, Buffer{kData + 512 * i, 512}, Buffer{kStatus, 1, true}});
  }
  mmio.Kick(0);
  EXPECT_TRUE(Await([&] { return !told.empty(); }));
  StopVm();
  EXPECT_EQ(told.size(), 1U) << "the others say nothing new";
  EXPECT_FALSE(rings[0]->TakeUsed());
  Work();
  transport->Start();
  for (std::uint64_t i = 0; i < kRequests; ++i) {
    AwaitUsed();
  }
  EXPECT_EQ(Answer(), kOk);
  for (std::uint64_t i = 0; i < kRequests; ++i) {
    EXPECT_EQ(Content(4096 * i, 512), std::string(512, static_cast<char>('A' + i)));
  }
}

TEST_F(BlockErrors, AResetForgetsWhatWasToBeTriedAgain) {
  for (const bool by_guest : {true, false}) {
    Make(",werror=stop");
    FailAt("write", -EIO);
    Offer(kWrite, 0, std::array{Buffer{kData, 512}});
    EXPECT_TRUE(Await([&] { return disk().Info().io_status == IoStatus::kFailed; }));
    if (by_guest) {
      mmio.Write(test::MmioDriver::kStatus, 0);
      EXPECT_EQ(status(), 0U) << "at once";
    } else {
      StopVm();
      transport->Reset();
      transport->Start();
    }
    Work();
    Settle();
    EXPECT_EQ(Answer(), kUnanswered);
    Bring(0);
    EXPECT_EQ(Request(kWrite, 8, std::array{Buffer{kData, 512}}), kOk) << "nothing is held any more";
    FailAt("write", -EIO);
    Offer(kWrite, 0, std::array{Buffer{kData, 512}});
    EXPECT_TRUE(Await([&] { return disk().Info().io_status == IoStatus::kFailed; }));
    Unplug();  // ends with it
  }
}

// Saved while it is to be tried again, a request is carried out where it is loaded, on both rings.
TEST_F(BlockErrors, ASavedStateHoldsWhatIsToBeTriedAgain) {
  for (const std::uint64_t features : {std::uint64_t{0}, kFeaturePacked}) {
    Make(",werror=stop,packed=on", features);
    FailAt("write", -ENOSPC);
    std::memset(memory.host() + kData, 'p', 1024);
    Offer(kWrite, 8, std::array{Buffer{kData, 512}, Buffer{kData + 512, 512}});
    EXPECT_TRUE(Await([&] { return disk().Info().io_status == IoStatus::kNoSpace; }));
    StopVm();
    const MmioState state = transport->Save();
    const devices::SavedState bytes = transport->SaveState();
    ASSERT_EQ(state.queues[0].parked.size(), 1U);
    Unplug();
    auto device = Open(",werror=stop,packed=on");
    ASSERT_TRUE(device);
    Plug(std::move(*device));
    transport->Stop();
    MmioState wrong = state;
    wrong.queues[0].parked[0].writable[0].start = GuestAddress(GuestMemory::kHole);
    EXPECT_FALSE(transport->Load(wrong));
    transport->Reset();
    wrong = state;
    wrong.queues[0].parked[0].entries = 100;
    EXPECT_FALSE(transport->Load(wrong));
    transport->Reset();
    ASSERT_TRUE(transport->LoadState(bytes)) << "parked chains are in the bytes, too";
    EXPECT_EQ(transport->Save(), state);
    transport->Start();
    AwaitUsed();
    EXPECT_EQ(Answer(), kOk);
    EXPECT_EQ(Content(8 * kSector, 1024), std::string(1024, 'p'));
    EXPECT_EQ(Request(kRead, 8, std::array{Buffer{kData, 512, true}}), kOk) << "the ring goes on";
  }
}

// The kernel says once that what was in the page cache is gone, and then that all is well.
TEST_F(BlockErrors, AFlushThatFailed_NeverSucceedsAgainForThatImage) {
  Make("", kFlushFeature);
  EXPECT_EQ(Request(kWrite, 0, std::array{Buffer{kData, 512}}), kOk);
  FailAt("sync", -EIO, 1);
  EXPECT_EQ(Request(kFlush, 0, {}), kIoError);
  EXPECT_EQ(Request(kFlush, 0, {}), kIoError);
  EXPECT_EQ(Request(kWrite, 0, std::array{Buffer{kData, 512}}), kOk);
  EXPECT_EQ(Request(kFlush, 0, {}), kIoError);
  Make("", kFlushFeature);
  EXPECT_EQ(Request(kFlush, 0, {}), kOk);
}

TEST_F(BlockErrors, AFailingGuestCannotFloodAnybody) {
  Make();
  FailAt("read", -EIO);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(Request(kRead, 0, std::array{Buffer{kData, 512, true}}), kIoError);
  }
  Settle();
  EXPECT_LE(told.size(), 5U);
  EXPECT_EQ(disk().Stats().of[0].failed, 50U);
  EXPECT_EQ(disk().Stats().of[0].operations, 0U);
}

// A page of guest RAM whose file has been cut short, met by the kernel for a request: it is posted
// as a bus error is, and the guest gets no answer, since the VM is about to stop for it.
TEST_F(BlockErrors, LostGuestPage_IsABusErrorAndNoAnswerOfTheDisks) {
  constexpr std::uint64_t kLost = 0x600000;
  const std::string file = image + "-ram";
  // Where there is one, the thread itself carries them out.
  for (const auto& [type, on_thread] :
       {std::pair(kRead, false), {kWrite, false}, {kWrite, true}, {kRead, true}}) {
    if (on_thread && io_threads.empty()) {
      StartThreads(1);
    }
    const auto errors = BusErrors::Create().value();
    auto block =
        memory::RamBlock::New(
            "lost", {.size = kMiB, .backend = memory::RamBackend::kFile, .share = true, .path = file})
            .value();
    block->Guard(*errors);
    const auto lost = memory::MemoryRegion::NewRam(memory.topology, "lost", block);
    ASSERT_TRUE(memory.root->Add(kLost, lost));
    Make("", kFlushFeature);
    const bool to_guest = type == kRead;
    EXPECT_EQ(Request(type, 8, std::array{Buffer{kLost, 8192, to_guest}}), kOk);
    ASSERT_EQ(::truncate(file.c_str(), 4096), 0);
    EXPECT_EQ(Request(type, 8, std::array{Buffer{kLost, 4096, to_guest}}), kOk) << "what is left";
    Offer(type, 8, std::array{Buffer{kLost, 8192, to_guest}});
    EXPECT_TRUE(Await([&] { return errors->lost(); }));
    Settle();
    const auto taken = errors->Take();
    ASSERT_EQ(taken.size(), 1U);
    EXPECT_EQ(taken[0].memory, block->host());
    EXPECT_EQ(taken[0].offset, 4096U);
    EXPECT_EQ(Answer(), kUnanswered);
    EXPECT_FALSE(rings[0]->TakeUsed());
    // The machine stops and is reset.
    transport->Stop();
    transport->Drain();
    EXPECT_EQ(Answer(), kUnanswered);
    transport->Reset();
    transport->Start();
    Settle();
    EXPECT_EQ(Answer(), kUnanswered);
    Unplug();
    memory.root->Remove(lost);
    ::unlink(file.c_str());
  }
}

}  // namespace
}  // namespace gyre::virtio
