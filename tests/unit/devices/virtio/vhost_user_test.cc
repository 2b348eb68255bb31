// Devices whose back end is another process: what they do, and that nothing is lost when it goes.
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/unit/devices/virtio/vhost_user_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using test::MmioDriver;

TEST_F(VhostUserTest, RequestsAreCarriedOutByTheBackEndOnBothRings) {
  StartBackEnd();
  Make();
  EXPECT_EQ(mmio.ReadConfig<std::uint64_t>(0), test::FakeBackEnd::kDiskSize / 512);
  for (const std::uint64_t features : {std::uint64_t{0}, kFeaturePacked | kFeatureEventIndex}) {
    Bring(features | kBlockFlush);
    Fill(3, 'a');
    const auto write = Request(BlockRequest::kWrite, 3);
    EXPECT_EQ(AwaitUsed(), (test::Used{write, 1}));
    EXPECT_EQ(last_status(), 0);
    EXPECT_EQ(OnDisk(3), 'a');
    Fill(3, '-');
    const auto read = Request(BlockRequest::kRead, 3);
    EXPECT_EQ(AwaitUsed(), (test::Used{read, 513}));
    EXPECT_EQ(memory.host()[kData + 3 * kSectorSize + 511], std::byte{'a'});
    EXPECT_GE(line.edges.load(), 2);
  }
  EXPECT_EQ(back_end->driver_features(), kFeatureVersion1 | kVhostProtocolFeatures | kBlockFlush)
      << "the rings' formats are between the driver and us";
}

TEST_F(VhostUserTest, AResetStopsTheRings_AndTheNextDriverStartsThemAnew) {
  StartBackEnd();
  Make(2);
  Bring(0);
  Request(BlockRequest::kWrite, 0);
  AwaitUsed();
  EXPECT_TRUE(Await([this] { return back_end->started() == 2; }));  // the other ring, which has no request
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_TRUE(Await([this] { return back_end->stopped() == 2; }));
  Bring(0);
  Request(BlockRequest::kWrite, 1, 1, 1);
  AwaitUsed(1);
  EXPECT_TRUE(Await([this] { return back_end->started() == 4; }));
  EXPECT_TRUE(events.empty());
}

TEST_F(VhostUserTest, MoreThanTheRingTakesIsServedInParts) {
  StartBackEnd();
  Make();
  Bring(kFeatureIndirect, 256);
  std::set<std::uint16_t> wanted;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const std::uint64_t at = kHeaders + 16 * i;
    BlockHeader header;
    header.type = static_cast<std::uint32_t>(BlockRequest::kWrite);
    std::memcpy(memory.host() + at, &header, sizeof(header));
    std::vector<Buffer> buffers(12, Buffer{kData, 32});
    buffers.front() = {at, sizeof(header)};
    buffers.back() = {kData + 0x8000 + i, 1, true};
    wanted.insert(rings[0]->Offer(buffers, kTable + 256 * i));
  }
  mmio.Kick(0);
  for (unsigned i = 0; i < 200; ++i) {
    EXPECT_EQ(wanted.erase(AwaitUsed().id), 1U);
  }
  EXPECT_EQ(back_end->finished(), 200U);
}

TEST_F(VhostUserTest, ABackEndThatDies_NothingIsLostAndNothingIsAnsweredTwice) {
  StartBackEnd();
  Make();
  Bring(0, 16);
  back_end->SetMode(Mode::kHold);
  Fill(1, 'x');
  Fill(2, 'y');
  std::set<std::uint16_t> wanted = {Request(BlockRequest::kWrite, 1), Request(BlockRequest::kWrite, 2)};
  ASSERT_TRUE(Await([this] { return back_end->taken() == 2; }));
  EXPECT_EQ(info().in_flight, 2U);
  back_end.reset();
  ASSERT_TRUE(Await([this] { return !events.empty(); }));
  EXPECT_FALSE(info().connected);
  EXPECT_EQ(info().trouble, "has closed the connection");
  EXPECT_EQ(info().in_flight, 0U);
  wanted.insert(Request(BlockRequest::kWrite, 3));  // while there is nobody
  StartBackEnd();
  while (!wanted.empty()) {
    const auto used = AwaitUsed();
    ASSERT_EQ(wanted.erase(used.id), 1U);
  }
  EXPECT_EQ(OnDisk(1), 'x');
  EXPECT_EQ(OnDisk(2), 'y');
  EXPECT_EQ(events, (std::vector<std::string>{"d down", "d up"}));
  EXPECT_EQ(info().connections, 2U);
  EXPECT_EQ(info().resubmitted, 2U);
  EXPECT_EQ(back_end->taken(), 3U);
  Settle();
  EXPECT_FALSE(rings[0]->TakeUsed());
}

// What is told as done is not done again, in whatever order that comes.
TEST_F(VhostUserTest, ABackEndThatDiesAfterAnswersOutOfOrder_OnlyTheRestGoesToTheNext) {
  StartBackEnd();
  Make();
  Bring(0, 64);
  back_end->SetMode(Mode::kHold);
  const auto first = Request(BlockRequest::kWrite, 1);
  ASSERT_TRUE(Await([this] { return back_end->taken() == 1; }));
  back_end->SetMode(Mode::kBackwards);
  std::set<std::uint16_t> later;
  for (unsigned i = 2; i < 8; ++i) {
    later.insert(Request(BlockRequest::kWrite, i));
  }
  for (unsigned i = 2; i < 8; ++i) {
    EXPECT_EQ(later.erase(AwaitUsed().id), 1U);
  }
  StartBackEnd();  // the old one is gone
  EXPECT_EQ(AwaitUsed().id, first);
  EXPECT_EQ(back_end->taken(), 1U);
}

TEST_F(VhostUserTest, AConnectionThatIsClosedIsMadeAgain_OverAndOver) {
  StartBackEnd();
  Make();
  Bring(0, 64);
  for (unsigned i = 0; i < 4; ++i) {
    const auto id = Request(BlockRequest::kWrite, i);
    EXPECT_EQ(AwaitUsed().id, id);
    back_end->Hangup();
    ASSERT_TRUE(Await([&] { return events.size() == 2 * i + 2; }));
  }
  EXPECT_EQ(info().connections, 5U);
}

TEST_F(VhostUserTest, ADriverThatComesWhileThereIsNoBackEndIsServedByTheNext) {
  StartBackEnd();
  Make();
  back_end.reset();
  ASSERT_TRUE(Await([this] { return !info().connected; }));
  Bring(0);
  Request(BlockRequest::kWrite, 1);
  Settle();
  EXPECT_FALSE(rings[0]->TakeUsed());
  mmio.Write(MmioDriver::kStatus, 0);
  Bring(0);
  const auto id = Request(BlockRequest::kWrite, 2);
  StartBackEnd();
  EXPECT_EQ(AwaitUsed().id, id);
  EXPECT_EQ(back_end->taken(), 1U) << "what was asked for before the reset is nobody's wish";
}

TEST_F(VhostUserTest, AStopWaitsForWhatIsInFlight) {
  StartBackEnd();
  Make();
  Bring(0);
  Request(BlockRequest::kWrite, 1);
  RunPending();
  transport->Stop();
  transport->Drain();
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_TRUE(events.empty());
  const auto id = Request(BlockRequest::kWrite, 2);
  Settle();
  EXPECT_FALSE(rings[0]->TakeUsed());
  transport->Start();
  EXPECT_EQ(AwaitUsed().id, id);
}

// A save holds what was asked for, and another back end has it after a load.
TEST_F(VhostUserTest, AStopDoesNotWaitForeverForABackEndThatHangs) {
  StartBackEnd();
  Make();
  Bring(0, 16);
  back_end->SetMode(Mode::kHold);
  const auto id = Request(BlockRequest::kWrite, 1);
  ASSERT_TRUE(Await([this] { return back_end->taken() == 1; }));
  transport->Stop();
  transport->Drain();
  EXPECT_EQ(info().trouble, "has not finished 1 requests within 300 ms");
  const MmioState state = transport->Save();
  ASSERT_EQ(state.queues[0].parked.size(), 1U);
  transport->Reset();
  EXPECT_TRUE(transport->Load(state));
  back_end->SetMode(Mode::kServe);
  transport->Start();
  EXPECT_EQ(AwaitUsed().id, id);
}

TEST_F(VhostUserTest, AResetDoesNotWaitForeverForABackEndThatHangs) {
  StartBackEnd();
  Make();
  Bring(0);
  back_end->SetMode(Mode::kHold);
  Request(BlockRequest::kWrite, 1);
  ASSERT_TRUE(Await([this] { return back_end->taken() == 1; }));
  mmio.Write(MmioDriver::kStatus, 0);
  EXPECT_EQ(holds, 1) << "the driver takes it for done when its write returns";
  ASSERT_TRUE(Await([this] { return releases == 1; }));
  EXPECT_EQ(status(), 0U);
  back_end->SetMode(Mode::kServe);
  Bring(0);
  const auto id = Request(BlockRequest::kWrite, 2);
  EXPECT_EQ(AwaitUsed().id, id);
}

TEST_F(VhostUserTest, QueuesOnThreadsOfTheirOwn) {
  StartThreads(2);
  StartBackEnd();
  Make(2);
  Bring(0, 64);
  for (unsigned round = 0; round < 3; ++round) {
    std::set<std::uint16_t> wanted;
    back_end->SetMode(round == 1 ? Mode::kHold : Mode::kServe);
    for (unsigned i = 0; i < 8; ++i) {
      wanted.insert(Request(BlockRequest::kWrite, i, 1, 1));
    }
    if (round == 1) {
      ASSERT_TRUE(Await([this] { return back_end->taken() == 16; }));
      StartBackEnd();
    }
    for (unsigned i = 0; i < 8; ++i) {
      EXPECT_EQ(wanted.erase(AwaitUsed(1).id), 1U);
    }
  }
  transport->Stop();
  transport->Drain();
  EXPECT_EQ(info().in_flight, 0U);
}

TEST_F(VhostUserTest, BuffersThatAreNotSharedGetNothing) {
  StartBackEnd();
  Make();
  Bring(0);
  const auto id = rings[0]->Offer(std::array{Buffer{GuestMemory::kRom, 16}, Buffer{kData, 1, true}});
  mmio.Kick(0);
  EXPECT_EQ(AwaitUsed(), (test::Used{id, 0}));
  EXPECT_EQ(back_end->taken(), 0U);
}

// Memory that has come since the rings were started.
TEST_F(VhostUserTest, TheBackEndIsToldOfMemoryThatComesLater) {
  StartBackEnd();
  Make();
  Bring(0, 16);
  Request(BlockRequest::kWrite, 1);
  AwaitUsed();
  const auto block =
      memory::RamBlock::New("more", {.size = kPageSize, .backend = memory::RamBackend::kMemfd}).value();
  ASSERT_TRUE(memory.root->Add(0x600000, memory::MemoryRegion::NewRam(memory.topology, "more", block)));
  BlockHeader header;
  header.type = static_cast<std::uint32_t>(BlockRequest::kWrite);
  header.sector = 5U;
  std::memcpy(memory.host() + kData, &header, sizeof(header));
  std::memset(block->host(), 'm', 512);
  const auto id = rings[0]->Offer(
      std::array{Buffer{kData, sizeof(header)}, Buffer{0x600000, 512}, Buffer{kData + 16, 1, true}});
  mmio.Kick(0);
  EXPECT_EQ(AwaitUsed(), (test::Used{id, 1}));
  EXPECT_EQ(OnDisk(5), 'm');
}

const Module& FindModule(std::string_view option) {
  return **std::ranges::find(Modules(), option, [](const Module* module) { return module->option; });
}

TEST_F(VhostUserTest, TheDiskOptionTakesABackEndInsteadOfAPath) {
  const Module& module = FindModule("disk");
  const auto create = [&](const std::string& text) -> std::string {
    auto properties = Properties::Parse(text, module.properties);
    if (!properties) {
      return properties.error().message();
    }
    EXPECT_TRUE(module.shares_memory(*properties));
    auto made = module.create(context(), *properties);
    return made ? "made" : made.error().message();
  };
  EXPECT_EQ(create("vhost-user=" + path), path + ": No such file or directory");
  StartBackEnd();
  EXPECT_EQ(create("vhost-user=" + path + ",queues=2,packed=on,id=q"), "made");
  EXPECT_EQ(create("vhost-user=" + path + ",queues=9"), path + ": the back end has 4 queues, not 9");
  EXPECT_EQ(create("vhost-user=" + path + ",cache=none"),
            "cache does not go with vhost-user: it is the back end's");
  EXPECT_EQ(create("vhost-user=a,path=b"), "path and vhost-user do not go together");
  EXPECT_EQ(create("queues=1"), "path=PATH is missing");
}

// 5.11.4.
TEST_F(VhostUserTest, S_5_11_4_AShareTellsItsTagAndItsQueues) {
  const Module& module = FindModule("share");
  StartBackEnd();
  const auto make = [&](const std::string& text) {
    return module.create(context(), Properties::Parse(text, module.properties).value());
  };
  Plug(make("tag=home,queues=3,socket=" + path).value());
  EXPECT_EQ(mmio.Read(MmioDriver::kDeviceId), 26U);
  EXPECT_EQ(transport->device().traits().queues, 4U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), 0x656d6f68U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(32), 0U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(36), 3U);
  Unplug();
  EXPECT_EQ(make("socket=" + path + ",tag=" + std::string(37, 'x')).error().message(),
            "tag=" + std::string(37, 'x') + ": is not 1 to 36 bytes");
  EXPECT_EQ(make("path=" + path + ",tag=a").error().message(), path + ": is not a directory");
  EXPECT_EQ(make("path=/nowhere,tag=a").error().message(), "/nowhere: No such file or directory");
  EXPECT_EQ(make("path=/tmp,tag=a,virtiofsd=/nowhere/d").error().message(),
            "/nowhere/d: No such file or directory");
  EXPECT_EQ(make("path=/tmp,tag=a,virtiofsd=true").error().message(),
            "/tmp: the back end has closed the connection");
}

// virtiofsd binds it after it has gone to another directory.
TEST_F(VhostUserTest, Regression_AShareInTheWorkingDirectory_IsToldByItsWholeName) {
  const std::string server = directory.string() + "/server";
  const std::string told = directory.string() + "/told";
  std::ofstream(server) << "#!/bin/sh\necho \"$@\" >" << told << "\n";
  ASSERT_EQ(::chmod(server.c_str(), 0700), 0);
  ASSERT_TRUE(std::filesystem::create_directory(directory / "here"));
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory);
  const Module& module = FindModule("share");
  EXPECT_FALSE(module.create(
      context(), Properties::Parse("path=here,tag=a,virtiofsd=" + server, module.properties).value()));
  std::filesystem::current_path(before);
  std::string words;
  std::getline(std::ifstream(told), words);
  EXPECT_TRUE(words.ends_with("source=" + directory.string() + "/here")) << words;
  for (const char* const name : {"server", "told", "here"}) {
    std::filesystem::remove(directory / name);
  }
}

}  // namespace
}  // namespace gyre::virtio
