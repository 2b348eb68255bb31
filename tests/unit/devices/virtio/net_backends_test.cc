// What carries a network device's frames: another process, as passt is one, and a tap.
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "devices/virtio/net_passt.h"
#include "gyre/base/format.h"
#include "gyre/devices/virtio/registry.h"
#include "gyre/loop/clock.h"
#include "tests/unit/devices/virtio/net_fixture.h"

namespace gyre::virtio {
namespace {

class NetBackends : public NetTest {
 protected:
  NetBackends() : NetTest(&loop::KernelTime()) {}
  ~NetBackends() override {
    Unplug();
    if (!program.empty()) {
      ::unlink(program.c_str());
    }
  }
  Result<std::unique_ptr<VirtioDevice>> Create(std::string_view options) {
    const Module& module = **std::ranges::find(Modules(), "net", &Module::option);
    DeviceContext with = context();
    with.net_changed = [this](std::string_view id, bool up) {
      events.push_back(std::string(id) + (up ? " up" : " down"));
    };
    const auto properties = TRY(Properties::Parse(options, module.properties));
    with.id = TRY(DeviceId(module, properties, 0));
    return module.create(with, properties);
  }
  void MakeBy(std::string_view options) {
    auto device = Create(options);
    ASSERT_TRUE(device) << device.error().message();
    nic = dynamic_cast<Nic*>(device->get());
    Plug(std::move(*device));
  }
  // A shell script stands for passt: its descriptor 3 is the connection.
  void MakeWith(std::string_view script) {
    std::string path = testing::TempDir() + "gyre-passt-XXXXXX";
    ::close(::mkstemp(path.data()));
    program = path;
    std::ofstream(program) << "#!/bin/sh\n" << script << "\n";
    ::chmod(program.c_str(), 0700);
    MakeBy(format("user,passt={}", program));
  }
  template <typename Condition>
  bool Await(const Condition& condition) {
    for (int i = 0; i < 10'000; ++i) {
      if (condition()) {
        return true;
      }
      RunPending();
      ::usleep(1000);
    }
    return false;
  }
  std::string Refusal(std::string_view options) {
    const auto device = Create(options);
    return device ? "none" : device.error().message();
  }
  std::string program;
};

TEST_F(NetBackends, AProcessGetsFramesAndSendsThem) {
  MakeWith("exec cat <&3 >&3");
  Bring(0, 64);
  const Bytes packet = Packet(kMac, 1200);
  for (unsigned i = 0; i < 20; ++i) {
    OfferRoom(1600 * std::uint64_t{i}, 1600);
  }
  Kick(0);
  for (unsigned i = 0; i < 20; ++i) {
    SendPacket(packet);
    EXPECT_TRUE(rings[1]->TakeUsed());
  }
  ASSERT_TRUE(Await([this] { return nic->counters().received.packets == 20; }));
  Bytes expected = packet;
  expected[kNetBuffersAt] = 1;
  for (unsigned i = 0; i < 20; ++i) {
    EXPECT_TRUE(rings[0]->TakeUsed());
    EXPECT_EQ(Guest(1600 * std::uint64_t{i}, packet.size()), expected);
  }
  EXPECT_TRUE(events.empty());
}

TEST_F(NetBackends, AProcessThatEndsTakesTheLinkDownAndIsStartedAgain) {
  // The first one ends at once, the second stays.
  MakeWith("if [ ! -e $0.once ]; then touch $0.once; exit 3; fi; rm $0.once; exec cat <&3 >&3");
  Bring(kNetStatus);
  ASSERT_TRUE(Await([this] { return events.size() == 1; }));
  EXPECT_EQ(events[0], "net0 down");
  EXPECT_EQ(ConfigStatus(), 0U);
  SendPacket(Packet(kOther));
  EXPECT_TRUE(rings[1]->TakeUsed()) << "the guest does not hang";
  ASSERT_TRUE(Await([this] { return events.size() == 2; }));
  EXPECT_EQ(events[1], "net0 up");
  EXPECT_EQ(ConfigStatus(), 1U);
  OfferRoom(0, 1600);
  Kick(0);
  SendPacket(Packet(kMac));
  EXPECT_TRUE(Await([this] { return nic->counters().received.packets == 1; }));
}

TEST_F(NetBackends, AProcessThatBreaksTheProtocolIsEnded) {
  MakeWith("printf '\\377\\377\\377\\377' >&3; exec sleep 1000");
  Bring(kNetStatus);
  OfferRoom(0, 1600);
  Kick(0);
  ASSERT_TRUE(Await([this] { return !events.empty(); }));
  EXPECT_EQ(events[0], "net0 down");
  EXPECT_FALSE(rings[0]->TakeUsed());
}

TEST_F(NetBackends, FramesOfOddLengthsAreDroppedAndTheNextOneComes) {
  MakeWith(
      "printf '\\0\\0\\0\\0\\0\\0\\0\\001x\\0\\0\\0\\022abcdefghijklmnop' >&3; sleep 0.1; printf 'qr' >&3; "
      "exec sleep "
      "1000");
  Bring(0);
  OfferRoom(0, 1600);
  Kick(0);
  ASSERT_TRUE(Await([this] { return nic->counters().received.packets == 1; }));
  EXPECT_EQ(rings[0]->TakeUsed()->written, kNetHeaderSize + 18);
  EXPECT_EQ(std::memcmp(memory.host() + kData + kNetHeaderSize, "abcdefghijklmnopqr", 18), 0);
  EXPECT_EQ(nic->counters().received.dropped, 2U);
  EXPECT_TRUE(events.empty());
}

TEST_F(NetBackends, AProcessThatReadsNothingHoldsUpNoStopAndNoReset) {
  MakeWith("exec sleep 1000");
  Bring(0, 256);
  const Bytes packet = Packet(kOther, 1400);
  std::memcpy(memory.host() + kSend, packet.data(), packet.size());
  unsigned sent = 0;
  for (unsigned i = 0; i < 255; ++i) {
    rings[1]->Offer(std::array{test::Buffer{kSend, static_cast<std::uint32_t>(packet.size())}});
  }
  Kick(1);
  while (rings[1]->TakeUsed()) {
    ++sent;
  }
  EXPECT_LT(sent, 255U) << "the socket takes no more";
  EXPECT_TRUE(transport->device().Idle());
  transport->Stop();
  transport->Drain();
  transport->Start();
  mmio.Write(test::MmioDriver::kStatus, 0);
  EXPECT_EQ(status(), 0U);
}

TEST_F(NetBackends, OptionsThatAreWrongAreRefused) {
  EXPECT_EQ(Refusal("mac=02:00:00:00:00:01"), "one of tap=NAME, fd=N, user and vhost-user=SOCKET is needed");
  EXPECT_EQ(Refusal("user,tap=x"), "one of tap=NAME, fd=N, user and vhost-user=SOCKET is needed");
  EXPECT_EQ(Refusal("tap=x,hostfwd=tcp::1-:2"), "hostfwd and passt go with user");
  EXPECT_EQ(Refusal("user,mac=01:00:00:00:00:01"), "mac=01:00:00:00:00:01: is no host's address");
  EXPECT_EQ(Refusal("user,mac=02-00-00-00-00-01"),
            "mac=02-00-00-00-00-01: is not of the form 02:00:00:00:00:01");
  EXPECT_EQ(Refusal("user,queues=2"), "queues=2: must be a number from 1 to 1");
  EXPECT_EQ(Refusal("user,passt=/nonexistent/passt"), "/nonexistent/passt: No such file or directory");
  EXPECT_EQ(Refusal("user=on"), "'user=on': 'user' has no value");
  EXPECT_EQ(Refusal("tap=a-name-that-is-too-long"), "tap=a-name-that-is-too-long: is no interface's name");
  EXPECT_EQ(Refusal("fd=0,mtu=3"), "mtu=3: must be a number from 68 to 65535");
}

TEST(NetOptions, ForwardsAreToldInPasstsWords) {
  const auto words = [](std::string_view text) {
    const auto forward = ToPasstForward(text);
    return forward ? (*forward)[0] + " " + (*forward)[1] : forward.error().message();
  };
  EXPECT_EQ(words("tcp::2222-:22"), "--tcp-ports 2222:22");
  EXPECT_EQ(words("udp:127.0.0.1:53-:5353"), "--udp-ports 127.0.0.1/53:5353");
  EXPECT_EQ(words("tcp:[::1]:8080-:80"), "--tcp-ports ::1/8080:80");
  for (const std::string_view bad : {"", "tcp", "tcp:-:1", "tcp::-:1", "tcp::0-:1", "tcp::1-:70000",
                                     "tcp:a b:1-:1", "sctp::1-:1", "tcp::1:2"}) {
    EXPECT_EQ(words(bad), format("hostfwd={}: is not of the form tcp|udp:[HOST]:PORT-:GUESTPORT", bad));
  }
}

TEST(NetOptions, AnAddressIsTheVmsOwnAndStaysSo) {
  const Mac mac = GenerateMac("web", 0);
  EXPECT_EQ(mac, GenerateMac("web", 0));
  EXPECT_NE(mac, GenerateMac("web", 1));
  EXPECT_NE(mac, GenerateMac("db", 0));
  EXPECT_NE(GenerateMac("", 0), GenerateMac("", 0));
  for (const Mac& one : {mac, GenerateMac("db", 3), GenerateMac("", 1)}) {
    EXPECT_EQ(one[0] & 3, 2) << "locally administered, of one host";
  }
}

// In a network namespace of its own, whose thread the device is made on.
class NetTap : public NetBackends {
 protected:
  void SetUp() override {
    if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
      GTEST_SKIP() << "no network namespace: " << std::strerror(errno);
    }
    // No frames but the test's own.
    std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << "1";
    const UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (!tun || ::ioctl(tun.get(), TUNSETIFF, &request) != 0) {
      GTEST_SKIP() << "no taps: " << std::strerror(errno);
    }
  }
  // The host's end: up, and a socket that sees all of its frames.
  void Open(const char* name) {
    const UniqueFd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, name);
    ASSERT_EQ(::ioctl(any.get(), SIOCGIFFLAGS, &request), 0);
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    ASSERT_EQ(::ioctl(any.get(), SIOCSIFFLAGS, &request), 0);
    host = UniqueFd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0xb588));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = 0xb588;
    address.sll_ifindex = static_cast<int>(::if_nametoindex(name));
    ASSERT_EQ(::bind(host.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  Bytes Frame(const Bytes& packet) { return {packet.begin() + kNetHeaderSize, packet.end()}; }
  UniqueFd host;
};

TEST_F(NetTap, FramesGoBothWays) {
  MakeBy("tap=gyretest0");
  Open("gyretest0");
  Bring(kNetMergeable | kNetStatus, 64);
  std::map<std::uint32_t, std::uint64_t> places;
  for (std::uint64_t place = 0; place < 32 * 2048; place += 2048) {
    places[OfferRoom(place, 1024)] = place;
  }
  Kick(0);
  const Bytes out = Packet(kAll, 1400);
  SendPacket(out);
  EXPECT_TRUE(Await([this] { return rings[1]->TakeUsed().has_value(); }));
  Bytes got(2000);
  ssize_t size = -1;
  EXPECT_TRUE(Await([&] { return (size = ::recv(host.get(), got.data(), got.size(), 0)) >= 0; }));
  got.resize(static_cast<std::size_t>(size));
  EXPECT_EQ(got, Frame(out));
  for (unsigned i = 0; i < 5; ++i) {
    const Bytes in = Frame(Packet(kMac, 1300 + i));
    ASSERT_EQ(::send(host.get(), in.data(), in.size(), 0), static_cast<ssize_t>(in.size()));
  }
  ASSERT_TRUE(Await([this] { return nic->counters().received.packets >= 5; }));
  EXPECT_EQ(rings[0]->TakeUsed()->written, 1024U);
  const auto second = rings[0]->TakeUsed();
  EXPECT_EQ(second->written, 12U + 14 + 1300 - 1024);
  const Bytes first = Packet(kMac, 1300);
  EXPECT_EQ(Guest(places[second->id], first.size() - 1024), Bytes(first.begin() + 1024, first.end()));
}

// One that is alone is written at once, and overtakes none that was there before.
TEST_F(NetTap, FramesStayInTheirOrder_AloneAndTogether) {
  MakeBy("tap=gyretest3");
  Open("gyretest3");
  Bring(kNetStatus, 64);
  std::vector<Bytes> frames;
  for (const unsigned turn : {1U, 3U, 1U, 1U, 5U, 1U}) {
    for (unsigned i = 0; i < turn; ++i) {
      const Bytes packet = Packet(kAll, 100 + static_cast<unsigned>(frames.size()));
      const std::uint64_t place = kSend + 2048 * frames.size();
      std::memcpy(memory.host() + place, packet.data(), packet.size());
      rings[1]->Offer(std::array{test::Buffer{place, static_cast<std::uint32_t>(packet.size())}});
      frames.push_back(Frame(packet));
    }
    mmio.Kick(1);
    RunPending();
  }
  for (const Bytes& frame : frames) {
    Bytes got(2000);
    ssize_t size = -1;
    ASSERT_TRUE(Await([&] { return (size = ::recv(host.get(), got.data(), got.size(), 0)) >= 0; }));
    got.resize(static_cast<std::size_t>(size));
    EXPECT_EQ(got, frame);
    EXPECT_TRUE(Await([this] { return rings[1]->TakeUsed().has_value(); }));
  }
}

TEST_F(NetTap, AnInterfaceThatIsDeletedIsALinkThatGoesDown) {
  MakeBy("tap=gyretest1");
  Open("gyretest1");
  Bring(kNetStatus);
  OfferRoom(0, 1600);
  Kick(0);
  ASSERT_EQ(std::system("ip link delete gyretest1"), 0);
  ASSERT_TRUE(Await([this] { return !events.empty(); }));
  EXPECT_EQ(events, std::vector<std::string>{"net0 down"});
  EXPECT_EQ(ConfigStatus(), 0U);
  SendPacket(Packet(kOther));
  EXPECT_TRUE(rings[1]->TakeUsed());
}

TEST_F(NetTap, QueuesThatAreNotInUseDoNotTakeTheLinkDown) {
  MakeBy("tap=gyretest2,queues=4");
  Open("gyretest2");
  Bring(kNetStatus | kNetMultiQueue | kNetCtrlQueue, 8);
  EXPECT_EQ(mmio.ReadConfig<std::uint16_t>(8), 4U);
  for (const std::uint8_t pairs : std::array<std::uint8_t, 5>{4, 1, 3, 4, 2}) {
    EXPECT_EQ(Control(4, 0, {pairs, 0}, 8), 0);
    for (unsigned pair = 0; pair < 4; ++pair) {
      SendPacket(Packet(kAll), 2 * pair + 1);
      EXPECT_TRUE(Await([&] { return rings[2 * pair + 1]->TakeUsed().has_value(); }));
    }
  }
  EXPECT_TRUE(events.empty());
  EXPECT_EQ(ConfigStatus(), 1U);
}

}  // namespace
}  // namespace gyre::virtio
