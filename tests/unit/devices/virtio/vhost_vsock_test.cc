// A vsock device whose connections are the kernel's: its rings are lent and come back, and what is ours
// stays.
#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/vsock_packet.h"
#include "devices/virtio/vsock_vhost.h"
#include "gyre/devices/virtio/registry.h"
#include "gyre/devices/virtio/vsock.h"
#include "gyre/memory/dirty.h"
#include "tests/support/virtio/fake_vhost.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kCid = 7;
constexpr std::uint64_t kUsual = kVsockFeatureStream | kVsockFeatureSequenced | kFeatureEventIndex;
constexpr unsigned kRx = kVsockReceiveQueue;
constexpr unsigned kTx = kVsockTransmitQueue;
constexpr unsigned kEvents = kVsockEventQueue;
using Calls = std::vector<std::string>;

class VhostVsock : public DeviceTest {
 protected:
  VhostVsock() { line.event_fd = call.get(); }
  ~VhostVsock() override { Unplug(); }

  OpenVhost Opener() {
    return [this](const std::string& path) -> Result<std::unique_ptr<VhostCalls>> {
      if (!there) {
        return Fail(Error::Sys(path, ENOENT, ErrorKind::kUsage));
      }
      return std::make_unique<test::FakeVhostCalls>(kernel);
    };
  }
  Result<std::unique_ptr<VirtioDevice>> Open(const std::string& text = "cid=7,vhost=on") {
    const auto module = *std::ranges::find(Modules(), "vsock", &Module::option);
    const auto properties = Properties::Parse(text, module->properties);
    return properties ? OpenVhostVsock(context(), *properties, kCid, Opener()) : Fail(properties.error());
  }
  std::string WhatIsWrong(const std::string& text = "cid=7,vhost=on") {
    const auto made = Open(text);
    return made ? "" : made.error().message();
  }
  void Make() {
    Unplug();
    auto device = Open().value();
    vsock = dynamic_cast<const Vsock*>(device.get());
    Plug(std::move(device));
  }
  void Start(std::uint64_t features = kUsual) {
    Make();
    Bring(features, 16);
    Settle();
  }
  bool served() const { return vsock->server() == VsockServer::kKernel; }
  void Offer(unsigned queue) {
    rings[queue]->Offer(std::array{test::Buffer{kData + 0x1000 * std::uint64_t{queue}, 64, queue != kTx}});
    Kick(queue);
  }
  // What is offered is the kernel's to use.
  void KernelUses(unsigned queue) {
    Offer(queue);
    EXPECT_FALSE(rings[queue]->TakeUsed());
    EXPECT_EQ(kernel.Serve(queue, 44), 1U);
    EXPECT_EQ(rings[queue]->TakeUsed().value_or(test::Used{}).written, 44U);
  }
  void StopAndDrain() {
    transport->Stop();
    transport->Drain();
  }

  UniqueFd call = NewEventFd().value();
  test::FakeVhost kernel;
  bool there = true;  // /dev/vhost-vsock
  const Vsock* vsock = nullptr;
};

TEST_F(VhostVsock, S_5_10_4_TheCidIsTheGuestsFromTheStart) {
  Make();
  EXPECT_EQ(kernel.calls, (Calls{"features?", "owner", "cid"}));
  EXPECT_EQ(kernel.cid, kCid);
  EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 19U);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), kCid);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(4), 0U);
  EXPECT_EQ(vsock->cid(), kCid);
  EXPECT_EQ(vsock->socket_path(), "");
  EXPECT_EQ(vsock->server(), VsockServer::kNobody);
  Unplug();
  EXPECT_TRUE(kernel.closed) << "and no longer";
}

TEST_F(VhostVsock, TheKernelRunsOnceTheDriverIsReady) {
  Make();
  kernel.calls.clear();
  Bring(kUsual, 16);
  Settle();
  EXPECT_EQ(kernel.calls,
            (Calls{"features", "memory", "num 0", "base 0", "addr 0", "err 0", "call 0", "kick 0", "num 1",
                   "base 1", "addr 1", "err 1", "call 1", "kick 1", "running"}));
  EXPECT_TRUE(served());
  EXPECT_EQ(kernel.features, kFeatureVersion1 | kFeatureEventIndex | kVsockFeatureSequenced);
  for (unsigned i = 0; i < 2; ++i) {
    EXPECT_EQ(kernel.rings.at(i).kick, transport->device().kick_fd(i));
    EXPECT_EQ(kernel.rings.at(i).call, call.get());
    EXPECT_EQ(kernel.rings.at(i).where.desc_user_addr,
              std::bit_cast<std::uint64_t>(memory.host() + rings[i]->layout().descriptors.value()));
  }
  KernelUses(kRx);
  KernelUses(kTx);
}

TEST_F(VhostVsock, S_5_10_3_MessagesAreTheKernelsToHave) {
  kernel.can = kVhostVsockFeatures;
  Make();
  EXPECT_EQ(mmio.Features() & 3, kVsockFeatureStream);
  EXPECT_EQ(mmio.Features() & (kFeatureInOrder | kFeaturePacked), 0U);
  kernel.can = UINT64_MAX;
  Start(kVsockFeatureStream);
  EXPECT_EQ(kernel.features, kFeatureVersion1) << "of a driver that has none";
}

TEST_F(VhostVsock, AStopTakesTheRingsInMidWorkAndTheKernelGoesOnThere) {
  Start();
  for (unsigned round = 0; round < 5; ++round) {
    for (unsigned i = 0; i < 7; ++i) {
      KernelUses(kRx);
      KernelUses(kTx);
    }
    Offer(kRx);
    Offer(kTx);
    kernel.calls.clear();
    StopAndDrain();
    EXPECT_EQ(kernel.calls.at(0), "standing");
    EXPECT_TRUE(kernel.idle());
    EXPECT_EQ(kernel.rings[0].kick, -1);
    EXPECT_EQ(vsock->server(), VsockServer::kNobody);
    const MmioState state = transport->Save();
    for (const unsigned queue : {kRx, kTx}) {
      EXPECT_EQ(state.queues[queue].position.available, 8 * round + 7);
      EXPECT_EQ(state.queues[queue].position.used, 8 * round + 7);
      EXPECT_FALSE(rings[queue]->TakeUsed());
    }
    transport->Start();
    Settle();
    EXPECT_TRUE(served());
    for (const unsigned queue : {kRx, kTx}) {
      EXPECT_EQ(kernel.Serve(queue, 44), 1U);
      EXPECT_TRUE(rings[queue]->TakeUsed());
    }
  }
}

TEST_F(VhostVsock, ResetsStopTheKernelBeforeTheyAreDone) {
  Start();
  mmio.Write(test::MmioDriver::kStatus, 0);
  EXPECT_EQ(status(), 0U);
  EXPECT_TRUE(kernel.idle());
  Settle();
  EXPECT_FALSE(served());
  Bring(kUsual, 16);
  Settle();
  EXPECT_TRUE(served());
  KernelUses(kRx);
  transport->Reset();
  EXPECT_TRUE(kernel.idle());
  EXPECT_EQ(kernel.cid, kCid);
  EXPECT_FALSE(kernel.closed);
}

TEST_F(VhostVsock, S_2_6_1_WhileOneQueueIsGoneNobodyHasTheOther) {
  Start(kUsual | kFeatureRingReset);
  mmio.Write(test::MmioDriver::kQueueSel, kRx);
  mmio.Write(0x0c0, 1);
  EXPECT_TRUE(kernel.idle());
  Offer(kTx);
  EXPECT_FALSE(served());
  EXPECT_FALSE(rings[kTx]->TakeUsed());
  const auto layout = rings[kRx]->layout();
  rings[kRx] = test::FakeDriver::New(memory.host(), layout, {.event_index = true});
  mmio.SetUpQueue(kRx, layout);
  Settle();
  EXPECT_TRUE(served());
  EXPECT_EQ(kernel.Serve(kTx, 0), 1U);
  KernelUses(kRx);
}

TEST_F(VhostVsock, S_5_10_6_7_ARestoredGuestIsToldThatItsConnectionsAreGone) {
  Start();
  KernelUses(kRx);
  KernelUses(kTx);
  Offer(kTx);
  StopAndDrain();
  const MmioState state = transport->Save();
  auto saved_rings = std::move(rings);
  Make();
  StopAndDrain();
  ASSERT_TRUE(transport->Load(state));
  EXPECT_EQ(transport->Save(), state);
  rings = std::move(saved_rings);
  Settle();
  EXPECT_TRUE(kernel.idle()) << "it stands";
  transport->Start();
  Settle();
  EXPECT_TRUE(served());
  std::memset(memory.host() + kTable, 0x55, 8);
  const auto id = rings[kEvents]->Offer(std::array{test::Buffer{kTable, 4, true}});
  Kick(kEvents);
  EXPECT_EQ(rings[kEvents]->TakeUsed(), (test::Used{id, 4}));
  EXPECT_EQ(std::to_integer<int>(memory.host()[kTable]), 0) << "TRANSPORT_RESET";
  rings[kEvents]->Offer(std::array{test::Buffer{kTable, 4, true}});
  Kick(kEvents);
  EXPECT_FALSE(rings[kEvents]->TakeUsed()) << "once";
  EXPECT_EQ(kernel.Serve(kTx, 0), 1U) << "what was offered before the save";
  EXPECT_TRUE(rings[kTx]->TakeUsed());
  KernelUses(kRx);
}

TEST_F(VhostVsock, WhileWhatIsWrittenIsTrackedTheDriverWaits) {
  Start();
  auto& dirty = memory.topology.dirty();
  ASSERT_TRUE(dirty.Start(memory::DirtyClient::kMigration));
  EXPECT_TRUE(kernel.idle()) << "when that returns";
  Settle();
  EXPECT_FALSE(served());
  Offer(kRx);
  Offer(kTx);
  EXPECT_FALSE(rings[kRx]->TakeUsed());
  EXPECT_FALSE(rings[kTx]->TakeUsed());
  EXPECT_EQ(status() & 0x40, 0U);
  dirty.Stop(memory::DirtyClient::kMigration);
  Settle();
  EXPECT_TRUE(served());
  EXPECT_EQ(kernel.Serve(kTx, 0), 1U);
  EXPECT_TRUE(rings[kTx]->TakeUsed());
}

TEST_F(VhostVsock, MemoryThatComesIsTold) {
  Start();
  kernel.calls.clear();
  auto more = memory::RamBlock::NewAnonymous("more", kPageSize).value();
  ASSERT_TRUE(memory.root->Add(0x600000, memory::MemoryRegion::NewRam(memory.topology, "more", more)));
  Settle();
  EXPECT_EQ(kernel.calls, Calls{"memory"}) << "while it serves";
  EXPECT_EQ(kernel.memory.size(), 2U);
}

TEST_F(VhostVsock, WhateverTheKernelRefusesNeedsAReset) {
  for (const unsigned long request : test::RequestsOfAStart(VHOST_VSOCK_SET_RUNNING)) {
    SCOPED_TRACE(request);
    Make();
    kernel.refuses = request;
    Bring(kUsual, 16);
    Settle();
    EXPECT_FALSE(served());
    EXPECT_EQ(status() & 0x40, 0x40U);
    Offer(kTx);
    EXPECT_FALSE(rings[kTx]->TakeUsed()) << "nobody else can serve it";
    kernel.refuses = 0;
    mmio.Write(test::MmioDriver::kStatus, 0);
    Bring(kUsual, 16);
    Settle();
    EXPECT_TRUE(served()) << "and the next life is the kernel's";
  }
}

TEST_F(VhostVsock, ARingThatTheKernelCannotGoOnWithNeedsAReset) {
  Start();
  SignalEventFd(kernel.rings[1].error);
  Settle();
  EXPECT_TRUE(served()) << "it may have been for memory that was not told of yet";
  SignalEventFd(kernel.rings[1].error);
  Settle();
  EXPECT_FALSE(served());
  EXPECT_EQ(status() & 0x40, 0x40U);
  mmio.Write(test::MmioDriver::kStatus, 0);
  Bring(kUsual, 16);
  Settle();
  EXPECT_TRUE(served());
}

TEST_F(VhostVsock, AKernelThatDoesNotStopIsClosed) {
  Start();
  kernel.refuses_stop = true;
  transport->Stop();
  EXPECT_TRUE(kernel.closed);
  EXPECT_EQ(status() & 0x40, 0x40U);
}

TEST_F(VhostVsock, MistakesAreToldInOneLine) {
  EXPECT_EQ(WhatIsWrong(), "");
  EXPECT_EQ(WhatIsWrong("cid=7,vhost=on,uds=/tmp/x"),
            "vhost=on does not go with uds: the host's end is AF_VSOCK");
  EXPECT_EQ(WhatIsWrong("cid=7,vhost=on,connections=9"),
            "vhost=on does not go with connections: the kernel counts none");
  EXPECT_EQ(WhatIsWrong("cid=7,vhost=on,packed=on"),
            "vhost=on does not go with packed: the kernel has split rings alone");
  EXPECT_EQ(WhatIsWrong("cid=7,vhost=on,iothread=a"),
            "vhost=on does not go with iothread: the kernel has a thread of its own");
  kernel.cid_taken = true;
  EXPECT_EQ(WhatIsWrong(), "cid=7: is taken on this host");
  EXPECT_TRUE(kernel.closed);
  kernel.cid_taken = false;
  kernel.refuses = VHOST_VSOCK_SET_GUEST_CID;
  EXPECT_EQ(WhatIsWrong(), "/dev/vhost-vsock: VHOST_VSOCK_SET_GUEST_CID: Operation not permitted");
  kernel.can = kFeatureVersion1;
  EXPECT_EQ(WhatIsWrong(),
            "vhost=on: /dev/vhost-vsock: this kernel's lacks features that are needed: 0x30000000");
  there = false;
  EXPECT_EQ(WhatIsWrong(), "vhost=on: /dev/vhost-vsock: No such file or directory");
}

// By the module, as the options are read.
TEST_F(VhostVsock, TheModuleKnowsTheWish) {
  const auto module = *std::ranges::find(Modules(), "vsock", &Module::option);
  const auto wrong = [&](const std::string& text) {
    return module->create(context(), Properties::Parse(text, module->properties).value()).error().message();
  };
  EXPECT_EQ(wrong("cid=7,vhost=auto"), "vhost=auto: is neither on nor off");
  EXPECT_EQ(wrong("cid=2,vhost=on"), "cid=2: must be a number from 3 to 4294967294");
  EXPECT_EQ(wrong("cid=4294967295,vhost=on"), "cid=4294967295: must be a number from 3 to 4294967294");
  EXPECT_EQ(wrong("cid=7,vhost=on,uds=/tmp/x"), "vhost=on does not go with uds: the host's end is AF_VSOCK");
}

}  // namespace
}  // namespace gyre::virtio
