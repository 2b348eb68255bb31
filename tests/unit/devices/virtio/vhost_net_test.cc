// A network device whose rings the kernel serves, and gives back whenever they are needed here.
#include "tests/support/virtio/fake_vhost.h"

#include <deque>

#include "devices/virtio/net_vhost.h"
#include "gyre/memory/dirty.h"
#include "tests/unit/devices/virtio/net_fixture.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kUsual = kNetMergeable | kNetStatus | kNetCtrlQueue | kFeatureEventIndex;
constexpr int kTap = 100;  // of the fake network

class VhostNet : public NetTest {
 protected:
  VhostNet() { line.event_fd = call.get(); }
  ~VhostNet() override { Unplug(); }

  // The device is unplugged.
  VhostKernels NewKernels(unsigned pairs) override {
    kernels.clear();
    kernels.resize(pairs);
    network->kernel_fd = kTap;
    VhostKernels made;
    for (auto& kernel : kernels) {
      made.push_back(VhostKernel::Open(
                         [&](const std::string&) { return std::make_unique<test::FakeVhostCalls>(kernel); },
                         "/dev/vhost-net", kVhostNetFeatures)
                         .value());
      kernel.calls.clear();
    }
    return made;
  }
  void Start(std::uint64_t features = kUsual, unsigned pairs = 1) {
    Make(Options(), pairs);
    Bring(features, 16);
    Settle();
  }
  bool served() const { return nic->served_by_kernel(); }
  // The driver offers a buffer, and the kernel or we put a frame into it.
  void KernelReceives(std::uint64_t offset = 0) {
    OfferRoom(offset, 1600);
    Kick(0);
    EXPECT_EQ(kernels[0].Serve(0, 62), 1U);
    EXPECT_EQ(rings[0]->TakeUsed().value_or(test::Used{}).written, 62U);
  }
  void WeReceive(std::uint64_t offset = 0) {
    OfferRoom(offset, 1600);
    Kick(0);
    Arrive(Packet(kMac));
    EXPECT_TRUE(rings[0]->TakeUsed());
    const std::size_t before = network->pairs[0].from_guest.size();
    SendPacket(Packet(kOther));
    EXPECT_TRUE(rings[1]->TakeUsed());
    EXPECT_EQ(network->pairs[0].from_guest.size(), before + 1);
  }
  std::uint32_t InterruptStatus() { return mmio.Read(test::MmioDriver::kInterruptStatus); }

  UniqueFd call = NewEventFd().value();
  std::deque<test::FakeVhost> kernels;
};

TEST_F(VhostNet, RingsAreTheKernelsOnceTheDriverIsReady) {
  Make();
  EXPECT_TRUE(kernels[0].calls.empty());
  Bring(kUsual, 16);
  Settle();
  EXPECT_EQ(kernels[0].calls,
            (std::vector<std::string>{"features", "memory", "num 0", "base 0", "addr 0", "err 0", "call 0",
                                      "kick 0", "num 1", "base 1", "addr 1", "err 1", "call 1", "kick 1",
                                      "start 0", "start 1"}));
  EXPECT_TRUE(served());
  EXPECT_EQ(kernels[0].features, kFeatureVersion1 | kNetMergeable | kFeatureEventIndex);
  ASSERT_EQ(kernels[0].memory.size(), 1U) << "RAM, and neither ROM nor registers";
  EXPECT_EQ(kernels[0].memory[0].guest_phys_addr, 0U);
  EXPECT_EQ(kernels[0].memory[0].memory_size, GuestMemory::kSize);
  EXPECT_EQ(kernels[0].memory[0].userspace_addr, std::bit_cast<std::uint64_t>(memory.host()));
  for (unsigned i = 0; i < 2; ++i) {
    const auto& ring = kernels[0].rings.at(i);
    EXPECT_EQ(ring.backend, kTap);
    EXPECT_EQ(ring.kick, transport->device().kick_fd(i));
    EXPECT_EQ(ring.call, call.get());
    EXPECT_EQ(ring.where.desc_user_addr,
              std::bit_cast<std::uint64_t>(memory.host() + rings[i]->layout().descriptors.value()));
  }
}

TEST_F(VhostNet, WhatIsKickedIsTheKernelsAlone) {
  Start();
  network->pairs[0].to_guest.push_back(Packet(kMac));
  OfferRoom(0, 1600);
  Kick(0);
  SendPacket(Packet(kOther));
  Settle();
  EXPECT_FALSE(rings[0]->TakeUsed());
  EXPECT_FALSE(rings[1]->TakeUsed());
  EXPECT_TRUE(network->pairs[0].from_guest.empty());
  EXPECT_EQ(kernels[0].Serve(0, 62), 1U);
  EXPECT_EQ(kernels[0].Serve(1, 0), 1U);
  EXPECT_TRUE(rings[0]->TakeUsed());
  EXPECT_TRUE(rings[1]->TakeUsed());
  EXPECT_EQ(Control(0, 0, {0}), kControlError) << "the control queue is ours; without CTRL_RX it refuses";
}

TEST_F(VhostNet, EachGoesOnWhereTheOtherHasStopped) {
  Start();
  for (unsigned round = 0; round < 5; ++round) {
    for (unsigned i = 0; i < 7; ++i) {
      KernelReceives(2048 * std::uint64_t{i});
    }
    OfferRoom(0, 1600);  // which neither has used when they change
    transport->Stop();
    EXPECT_FALSE(served());
    EXPECT_TRUE(kernels[0].idle());
    transport->Drain();
    const MmioState state = transport->Save();
    EXPECT_EQ(state.queues[0].position.available, 8 * round + 7);
    EXPECT_EQ(state.queues[0].position.used, 8 * round + 7);
    transport->Start();
    Settle();
    EXPECT_TRUE(served());
    EXPECT_EQ(kernels[0].Serve(0, 62), 1U);
    EXPECT_TRUE(rings[0]->TakeUsed());
  }
  nic->SetLink(false);
  Settle();
  nic->SetLink(true);
  kernels[0].refuses = VHOST_SET_MEM_TABLE;
  Settle();
  EXPECT_FALSE(served());
  WeReceive();
}

TEST_F(VhostNet, S_4_2_2_WhileTheKernelInterruptsTheStatusSaysThatItMayHave) {
  Start();
  mmio.Write(test::MmioDriver::kInterruptAck, 1);
  EXPECT_EQ(InterruptStatus(), 1U) << "nobody sees when the kernel does";
  const int before = line.edges;
  line.resend();
  EXPECT_EQ(line.edges, before + 1) << "an edge of the kernel's may have met the mask";
  transport->Stop();
  EXPECT_EQ(line.edges, before + 2) << "and one may not have been heard of";
  EXPECT_EQ(InterruptStatus(), 1U);
  mmio.Write(test::MmioDriver::kInterruptAck, 1);
  EXPECT_EQ(InterruptStatus(), 0U);
}

TEST_F(VhostNet, ResetsStopTheKernelBeforeTheyAreDone) {
  Start();
  mmio.Write(test::MmioDriver::kStatus, 0);
  EXPECT_EQ(status(), 0U);
  EXPECT_TRUE(kernels[0].idle());
  EXPECT_EQ(kernels[0].rings[0].kick, -1);
  EXPECT_EQ(kernels[0].rings[0].call, -1);
  EXPECT_EQ(InterruptStatus(), 0U);
  Settle();
  EXPECT_FALSE(served());
  Bring(kUsual, 16);
  Settle();
  EXPECT_TRUE(served()) << "and the next life is the kernel's again";
  KernelReceives();
  transport->Reset();
  EXPECT_TRUE(kernels[0].idle());
}

TEST_F(VhostNet, S_2_6_1_AQueuesResetTakesItFromTheKernelUntilItIsThereAgain) {
  Start(kUsual | kFeatureRingReset);
  mmio.Write(test::MmioDriver::kQueueSel, 0);
  mmio.Write(0x0c0, 1);
  EXPECT_TRUE(kernels[0].idle());
  Settle();
  EXPECT_FALSE(served());
  SendPacket(Packet(kOther));
  EXPECT_TRUE(rings[1]->TakeUsed()) << "the other one goes on";
  const auto layout = rings[0]->layout();
  rings[0] = test::FakeDriver::New(memory.host(), layout, {.event_index = true});
  mmio.SetUpQueue(0, layout);
  Settle();
  EXPECT_TRUE(served());
  KernelReceives();
}

TEST_F(VhostNet, WhatWritesIsTrackedIsOurs) {
  Start();
  auto& dirty = memory.topology.dirty();
  ASSERT_TRUE(dirty.Start(memory::DirtyClient::kMigration));
  EXPECT_TRUE(kernels[0].idle()) << "when that returns";
  ASSERT_TRUE(dirty.TakeAll(memory::DirtyClient::kMigration, *memory.block));
  Settle();
  EXPECT_FALSE(served());
  WeReceive();
  EXPECT_NE(memory.block->dirty().Count(memory::DirtyClient::kMigration), 0U);
  dirty.Stop(memory::DirtyClient::kMigration);
  Settle();
  EXPECT_TRUE(served());
  KernelReceives();
}

TEST_F(VhostNet, S_5_1_5_WithTheLinkDownPacketsAreDroppedHere) {
  Start();
  nic->SetLink(false);
  EXPECT_TRUE(kernels[0].idle());
  Settle();
  OfferRoom(0, 1600);
  Kick(0);
  Arrive(Packet(kMac));
  SendPacket(Packet(kOther));
  EXPECT_TRUE(rings[1]->TakeUsed());
  EXPECT_TRUE(network->pairs[0].from_guest.empty());
  nic->SetLink(true);
  Settle();
  EXPECT_TRUE(served());
  EXPECT_EQ(kernels[0].Serve(0, 62), 1U);
}

TEST_F(VhostNet, ABackEndThatGoesIsSeenThoughTheKernelTellsNobody) {
  Start();
  EXPECT_EQ(network->checks, 0);
  Advance(1'000'000'000);
  Advance(1'000'000'000);
  EXPECT_EQ(network->checks, 2);
  network->Change(false);
  EXPECT_TRUE(kernels[0].idle());
  EXPECT_EQ(ConfigStatus(), 0U);
  Advance(5'000'000'000);
  EXPECT_EQ(network->checks, 2);
}

TEST_F(VhostNet, MemoryThatComesIsToldAndWhatIsNoneIsNot) {
  Start();
  kernels[0].calls.clear();
  auto more = memory::RamBlock::NewAnonymous("more", kPageSize).value();
  ASSERT_TRUE(memory.root->Add(0x600000, memory::MemoryRegion::NewRam(memory.topology, "more", more)));
  Settle();
  EXPECT_EQ(kernels[0].calls, std::vector<std::string>{"memory"}) << "while it serves";
  EXPECT_EQ(kernels[0].memory.size(), 2U);
  ASSERT_TRUE(memory.root->Add(
      0x700000, memory::MemoryRegion::NewIo(memory.topology, "more-io", kPageSize, memory.registers)));
  Settle();
  EXPECT_EQ(kernels[0].calls.size(), 1U);
  EXPECT_TRUE(served());
}

TEST_F(VhostNet, ARingThatTheKernelCannotGoOnWithIsOursUntilTheNextReset) {
  Start();
  KernelReceives();
  SignalEventFd(kernels[0].rings[1].error);
  Settle();
  EXPECT_TRUE(served()) << "it may have been for memory that was not told of yet";
  SignalEventFd(kernels[0].rings[1].error);
  Settle();
  EXPECT_FALSE(served());
  WeReceive();
  transport->Stop();
  transport->Drain();
  transport->Start();
  Settle();
  EXPECT_FALSE(served());
  mmio.Write(test::MmioDriver::kStatus, 0);
  Bring(kUsual, 16);
  Settle();
  EXPECT_TRUE(served());
}

// Each time that memory has come, it may have been that.
TEST_F(VhostNet, ATroubleThatIsOverIsForgotten) {
  Start();
  for (const std::uint64_t place : {0x600000U, 0x700000U, 0x800000U}) {
    auto more = memory::RamBlock::NewAnonymous("more", kPageSize).value();
    SignalEventFd(kernels[0].rings[0].error);
    ASSERT_TRUE(memory.root->Add(place, memory::MemoryRegion::NewRam(memory.topology, "more", more)));
    Settle();
    EXPECT_TRUE(served());
  }
  EXPECT_EQ(kernels[0].memory.size(), 4U);
}

TEST_F(VhostNet, WhateverTheKernelRefusesWeServe) {
  for (const unsigned long request : test::RequestsOfAStart(VHOST_NET_SET_BACKEND)) {
    SCOPED_TRACE(request);
    Make();
    kernels[0].refuses = request;
    Bring(kUsual, 16);
    Settle();
    EXPECT_FALSE(served());
    EXPECT_TRUE(kernels[0].idle());
    if (request != VHOST_NET_SET_BACKEND) {
      WeReceive();  // one that does not start does not stop either, here: it is closed, and the driver has to
                    // reset
    }
  }
  line.event_fd = -1;  // KVM's
  Start();
  EXPECT_FALSE(served());
  WeReceive();
}

// A position that is not known is no position.
TEST_F(VhostNet, ARingThatDoesNotComeBackNeedsAReset) {
  Start();
  kernels[0].refuses = VHOST_GET_VRING_BASE;
  transport->Stop();
  EXPECT_EQ(status() & 0x40, 0x40U);
  EXPECT_TRUE(kernels[0].idle());
  transport->Drain();
  transport->Start();
  SendPacket(Packet(kOther));
  EXPECT_FALSE(rings[1]->TakeUsed()) << "nobody knows what of it is done";
  EXPECT_FALSE(served());
  kernels[0].refuses = 0;
  mmio.Write(test::MmioDriver::kStatus, 0);
  Bring(kUsual, 16);
  Settle();
  EXPECT_TRUE(served());
  KernelReceives();
}

TEST_F(VhostNet, AKernelThatDoesNotStopIsClosed) {
  Start();
  kernels[0].refuses_stop = true;
  transport->Stop();
  EXPECT_TRUE(kernels[0].closed);
  EXPECT_EQ(status() & 0x40, 0x40U);
  mmio.Write(test::MmioDriver::kStatus, 0);
  transport->Start();
  Bring(kUsual, 16);
  Settle();
  EXPECT_FALSE(served());
  WeReceive();
}

TEST_F(VhostNet, WhatTheKernelCannotIsOurs) {
  Start(kUsual & ~kNetMergeable);
  EXPECT_FALSE(served()) << "5.1.6.4.1: the number of buffers is set without mergeable ones, too";
  WeReceive();
  Start(kUsual | kFeaturePacked);
  EXPECT_FALSE(served());
  WeReceive();
}

TEST_F(VhostNet, S_5_1_6_5_5_PairsChangeWhileTheRingsAreOurs) {
  for (const unsigned threads : {0U, 2U}) {
    SCOPED_TRACE(threads);
    Unplug();
    StartThreads(threads);
    Start(kUsual | kNetMultiQueue, 2);
    EXPECT_TRUE(kernels[0].serves());
    EXPECT_TRUE(kernels[1].idle()) << "its tap is not attached";
    for (const std::uint8_t pairs : std::array<std::uint8_t, 2>{2, 1}) {
      memory.host()[kControl] = std::byte{4};
      memory.host()[kControl + 1] = std::byte{0};
      memory.host()[kControl + 2] = std::byte{pairs};
      memory.host()[kControl + 3] = std::byte{0};
      rings[4]->Offer(std::array{test::Buffer{kControl, 4}, test::Buffer{kAnswer, 1, true}});
      mmio.Kick(4);
      EXPECT_EQ(AwaitUsed(4).written, 1U);
      EXPECT_EQ(memory.host()[kAnswer], std::byte{0});
      for (int i = 0; i < 1000 && !served(); ++i) {
        RunPending();
        ::usleep(1000);
      }
      EXPECT_EQ(network->pairs_in_use, pairs);
      EXPECT_TRUE(kernels[0].serves());
      EXPECT_EQ(kernels[1].serves(), pairs == 2);
      if (pairs == 2) {
        EXPECT_EQ(kernels[1].rings[1].backend, kTap + 1);
        EXPECT_EQ(kernels[1].rings[1].kick, transport->device().kick_fd(3));
      }
    }
  }
}

TEST_F(VhostNet, ASavedDeviceIsNobodysBusinessWhoServed) {
  Start();
  KernelReceives();
  KernelReceives();
  transport->Stop();
  transport->Drain();
  const MmioState saved = transport->Save();
  transport->Reset();
  ASSERT_TRUE(transport->Load(saved));
  EXPECT_EQ(transport->Save(), saved);
  transport->Start();
  Settle();
  EXPECT_TRUE(served());
  EXPECT_EQ(kernels[0].rings[0].base, 2U);
  KernelReceives();
}

// --- By the user's wish ---

struct Wish {
  std::string_view properties;
  bool there = true;         // /dev/vhost-net
  std::string_view error{};  // what it is told to be wrong
  std::size_t kernels = 0;
};

TEST_F(VhostNet, TheKernelIsChosenByItselfWhereItCan) {
  for (const Wish& wish : std::vector<Wish>{
           {"tap=t", true, "", 2},
           {"tap=t,vhost=auto", false},
           {"tap=t,vhost=on", true, "", 2},
           {"tap=t,vhost=on", false, "vhost=on: /dev/vhost-net: No such file or directory"},
           {"tap=t,vhost=off"},
           {"tap=t,vhost=maybe", true, "vhost=maybe: is neither auto, on nor off"},
           {"tap=t,packed=on"},
           {"tap=t,packed=on,vhost=on", true,
            "vhost=on does not go with packed=on: the kernel has split rings alone"},
           {"tap=t,rx-rate=1M"},
           {"tap=t,tx-packets=9,vhost=on", true,
            "vhost=on does not go with tx-packets: the kernel knows no rates"},
           {"tap=t,iothread=a"},
           {"tap=t,iothread=a,vhost=on", true, "", 2},
       }) {
    SCOPED_TRACE(wish.properties);
    const Properties properties = Properties::Parse(wish.properties, kNetProperties).value();
    const NetOptions options = ParseNetOptions(context(), properties).value();
    FakeNetwork two(2);
    two.kernel_fd = kTap;
    test::FakeVhost kernel;
    const auto made = OpenVhostNet(properties, options, FakeNetBackend(two),
                                   [&](const std::string& path) -> Result<std::unique_ptr<VhostCalls>> {
                                     if (!wish.there) {
                                       return Fail(Error::Sys(path, ENOENT, ErrorKind::kUsage));
                                     }
                                     return std::make_unique<test::FakeVhostCalls>(kernel);
                                   });
    EXPECT_EQ(made ? "" : made.error().message(), wish.error);
    EXPECT_EQ(made ? made->size() : 0, wish.kernels);
  }
}

TEST_F(VhostNet, AKernelThatLacksFeaturesIsNotUsed) {
  const Properties properties = Properties::Parse("tap=t,vhost=on", kNetProperties).value();
  const NetOptions options = ParseNetOptions(context(), properties).value();
  FakeNetwork one(1);
  const auto open = [](test::FakeVhost& kernel) {
    return [&kernel](const std::string&) { return std::make_unique<test::FakeVhostCalls>(kernel); };
  };
  test::FakeVhost kernel;
  EXPECT_EQ(OpenVhostNet(properties, options, FakeNetBackend(one), open(kernel)).error().message(),
            "vhost=on goes with tap and fd alone");
  one.kernel_fd = kTap;
  kernel.can = kFeatureVersion1;
  EXPECT_EQ(OpenVhostNet(properties, options, FakeNetBackend(one), open(kernel)).error().message(),
            "vhost=on: /dev/vhost-net: this kernel's lacks features that are needed: 0x30008000");
}

}  // namespace
}  // namespace gyre::virtio
