// The console device (virtio 1.2, 5.3).
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "gyre/base/endian.h"
#include "gyre/devices/chardevs.h"
#include "gyre/devices/virtio/registry.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

const Module& ConsoleOption() {
  return **std::ranges::find(Modules(), "console", [](const Module* module) { return module->option; });
}

constexpr std::uint64_t kMultiport = 2;
constexpr std::uint64_t kControl = 0xe0000;  // what the driver says on the control queue
constexpr unsigned kReceive = 0, kTransmit = 1, kControlReceive = 2, kControlTransmit = 3;
constexpr unsigned kPortReceive = 4, kPortTransmit = 5;
enum Event : std::uint16_t { kReady, kAdd, kRemove, kPortReady, kConsolePort, kResize, kOpen, kName };

struct Message {
  Le32 id;
  Le16 event;
  Le16 value;
};
struct Told {
  std::uint32_t id = 0;
  std::uint16_t event = 0;
  std::uint16_t value = 0;
  std::string tail{};
  bool operator==(const Told&) const = default;
};
void PrintTo(const Told& told, std::ostream* out) {
  *out << "{" << told.id << ", " << told.event << ", " << told.value << ", '" << told.tail << "'}";
}

// By default port 0 goes to memory, and a port "agent" to a socket.
class Console : public DeviceTest {
 protected:
  Console() : DeviceTest(&loop::KernelTime()) {
    std::string name = testing::TempDir() + "gyre-console-XXXXXX";
    dir_ = ::mkdtemp(name.data());
  }
  ~Console() override {
    Unplug();
    std::filesystem::remove_all(dir_);
  }

  std::string Socket() const { return dir_ + "/socket"; }
  std::unique_ptr<VirtioDevice> Make(const std::string& options) {
    DeviceContext here = context();
    here.chardevs = &chardevs_;
    return ConsoleOption()
        .create(here, Properties::Parse(options, ConsoleOption().properties).value())
        .value();
  }
  void PlugOne(const std::string& to) { Plug(Make("packed=on,to=" + to)); }
  void PlugPorts() { Plug(Make("packed=on,to=ringbuf,port=agent:unix:" + Socket())); }
  devices::Chardev& chardev(std::string_view label) const { return *chardevs_.Find(label); }
  std::string Output(std::string_view label = "console0") const {
    return chardev(label).ring_buffer()->Take(SIZE_MAX);
  }
  UniqueFd Connect() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(&address.sun_path[0], Socket().data(), Socket().size());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    Settle();
    return fd;
  }

  void Put(std::uint64_t address, const void* data, std::size_t size) {
    std::memcpy(memory.host() + address, data, size);
  }
  void Send(unsigned queue, const std::string& text) {
    Put(kData, text.data(), text.size());
    rings[queue]->Offer(std::array{Buffer{kData, static_cast<std::uint32_t>(text.size())}});
    Kick(queue);
  }
  // A buffer for what comes; the text in it once it is used.
  void GiveRoom(unsigned queue, std::uint32_t size = 64) {
    rings[queue]->Offer(std::array{Buffer{kTable, size, true}});
    Kick(queue);
  }
  std::optional<std::string> Received(unsigned queue) {
    Settle();
    const auto used = rings[queue]->TakeUsed();
    return used ? std::optional(
                      std::string(reinterpret_cast<const char*>(memory.host() + kTable), used->written))
                : std::nullopt;
  }
  void Say(std::uint32_t id, std::uint16_t event, std::uint16_t value) {
    const Message message{.id = id, .event = event, .value = value};
    Put(kControl, &message, sizeof(message));
    rings[kControlTransmit]->Offer(std::array{Buffer{kControl, sizeof(message)}});
    Kick(kControlTransmit);
    EXPECT_TRUE(rings[kControlTransmit]->TakeUsed());
  }
  // The next thing that the device tells; a buffer is given for it.
  std::optional<Told> Hear() {
    if (!std::exchange(buffer_given_, true)) {
      rings[kControlReceive]->Offer(std::array{Buffer{kTable + 0x1000, 80, true}});
    }
    Kick(kControlReceive);
    const auto used = rings[kControlReceive]->TakeUsed();
    if (!used) {
      return std::nullopt;
    }
    buffer_given_ = false;
    Message head;
    std::memcpy(&head, memory.host() + kTable + 0x1000, sizeof(head));
    return Told{
        .id = head.id,
        .event = head.event,
        .value = head.value,
        .tail = std::string(reinterpret_cast<const char*>(memory.host() + kTable + 0x1000 + sizeof(head)),
                            used->written - sizeof(head))};
  }
  // As Linux does, up to ports that are ready and the agent's opened.
  void BringPorts(std::uint64_t features = 0) {
    Bring(features | kMultiport);
    buffer_given_ = false;
    Say(0, kReady, 1);
    EXPECT_EQ(Hear(), (Told{0, kAdd, 1}));
    EXPECT_EQ(Hear(), (Told{1, kAdd, 1}));
    Say(0, kPortReady, 1);
    EXPECT_EQ(Hear(), (Told{0, kConsolePort, 1}));
    EXPECT_EQ(Hear(), (Told{0, kOpen, 1}));
    Say(1, kPortReady, 1);
    EXPECT_EQ(Hear(), (Told{1, kName, 1, "agent"}));
    Say(1, kOpen, 1);
  }

  std::string dir_;
  devices::Chardevs chardevs_{*loop_};
  bool buffer_given_ = false;
};

TEST_F(Console, S_5_3_2_OnePortHasTwoQueues_MoreHaveControlQueuesToo) {
  PlugOne("null");
  EXPECT_EQ(mmio.Read(test::MmioDriver::kDeviceId), 3U);
  EXPECT_EQ(transport->device().traits().queues, 2U);
  EXPECT_EQ(mmio.Features() & kMultiport, 0U);
  Unplug();
  PlugPorts();
  EXPECT_EQ(transport->device().traits().queues, 6U);
  EXPECT_EQ(mmio.Features() & kMultiport, kMultiport);
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(4), 2U) << "max_nr_ports";
}

TEST_F(Console, S_5_3_6_BothWaysOnBothRings) {
  for (const std::uint64_t features :
       {std::uint64_t{0}, kFeaturePacked | kFeatureIndirect | kFeatureInOrder}) {
    Unplug();
    PlugOne("pty");
    Bring(features);
    const std::string path = chardevs_.all().back()->filename().substr(4);
    const UniqueFd terminal(::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    Send(kTransmit, "from the guest");
    std::array<char, 64> bytes{};
    EXPECT_EQ(::read(terminal.get(), bytes.data(), bytes.size()), 14);
    EXPECT_STREQ(bytes.data(), "from the guest");
    GiveRoom(kReceive);
    EXPECT_EQ(::write(terminal.get(), "typed", 5), 5);
    EXPECT_EQ(AwaitUsed(kReceive).written, 5U);  // a terminal's bytes take their time
    EXPECT_EQ(std::memcmp(memory.host() + kTable, "typed", 5), 0);
  }
}

TEST_F(Console, S_5_3_4_TellsTheSizeAndItsChange) {
  PlugOne("null");
  EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(0), 0U) << "nobody knows";
  Bring(1);
  chardev("console0").Resize({.columns = 132, .rows = 43});
  EXPECT_EQ(mmio.ReadConfig<std::uint16_t>(0), 132U);
  EXPECT_EQ(mmio.ReadConfig<std::uint16_t>(2), 43U);
  EXPECT_EQ(mmio.Read(test::MmioDriver::kInterruptStatus), 2U) << "the configuration has changed";
}

TEST_F(Console, S_5_3_4_EmergencyWriteNeedsNoDriver) {
  PlugOne("ringbuf");
  mmio.Write(test::MmioDriver::kConfig + 8, 'x');
  EXPECT_EQ(Output(), "x");
  mmio.Write(test::MmioDriver::kConfig + 4, 'y');
  EXPECT_EQ(Output(), "") << "another field";
}

TEST_F(Console, S_5_3_5_PortsAreAddedNamedAndOpened) {
  PlugPorts();
  BringPorts();
  EXPECT_FALSE(Hear()) << "nobody is at the agent's socket";
  auto client = Connect();
  EXPECT_EQ(Hear(), (Told{1, kOpen, 1}));
  Send(kPortTransmit, "answer");
  std::array<char, 64> bytes{};
  EXPECT_EQ(::recv(client.get(), bytes.data(), bytes.size(), MSG_DONTWAIT), 6);
  EXPECT_STREQ(bytes.data(), "answer");
  ASSERT_EQ(::send(client.get(), "question", 8, 0), 8);
  GiveRoom(kPortReceive);
  EXPECT_EQ(Received(kPortReceive), "question");
  EXPECT_EQ(Output(), "") << "of the console";
  client.Reset();
  Settle();
  EXPECT_EQ(Hear(), (Told{1, kOpen, 0}));
  EXPECT_FALSE(Hear());
}

TEST_F(Console, S_5_3_6_2_AClientThatIsFollowedByAnotherIsSeenToGo) {
  PlugPorts();
  BringPorts();
  auto client = Connect();
  EXPECT_EQ(Hear(), (Told{1, kOpen, 1}));
  client.Reset();
  Settle();
  client = Connect();
  EXPECT_EQ(Hear(), (Told{1, kOpen, 0}));
  EXPECT_EQ(Hear(), (Told{1, kOpen, 1}));
  EXPECT_FALSE(Hear());
}

TEST_F(Console, S_5_3_6_2_ResizeGoesByTheControlQueue) {
  PlugPorts();
  BringPorts();
  chardev("console0").Resize({.columns = 0x102, .rows = 0x304});
  EXPECT_EQ(Hear(), (Told{0, kResize, 1, "\x02\x01\x04\x03"}));
  chardev("console0.agent").Resize({.columns = 1, .rows = 1});
  EXPECT_FALSE(Hear()) << "a port that is no console has no size";
}

TEST_F(Console, S_5_3_6_1_APortThatNobodyHasOpenedGetsNothing) {
  PlugPorts();
  BringPorts();
  const auto client = Connect();
  Say(1, kOpen, 0);
  ASSERT_EQ(::send(client.get(), "late", 4, 0), 4);
  GiveRoom(kPortReceive);
  EXPECT_FALSE(Received(kPortReceive));
  Say(1, kOpen, 1);
  EXPECT_EQ(Received(kPortReceive), "late");
}

TEST_F(Console, InputWaitsForBuffersAndIsNotReadWithoutEnd) {
  PlugPorts();
  BringPorts();
  const auto client = Connect();
  const std::string text(1 << 20, 'i');
  const ssize_t sent = ::send(client.get(), text.data(), text.size(), MSG_DONTWAIT);
  ASSERT_GT(sent, 0);
  Settle();
  EXPECT_LT(::send(client.get(), text.data(), text.size(), MSG_DONTWAIT), 3 * 4096)
      << "the socket is full still";
  GiveRoom(kPortReceive, 60'000);
  EXPECT_EQ(Received(kPortReceive).value_or("").size(), 4096U);
  GiveRoom(kPortReceive, 100);
  EXPECT_EQ(Received(kPortReceive).value_or("").size(), 100U);
}

TEST_F(Console, OutputThatTheHostDoesNotTakeHoldsTheQueueAndNothingElse) {
  PlugPorts();
  BringPorts();
  const auto client = Connect();
  Put(kData, std::string(60'000, 'o').data(), 60'000);
  std::size_t sent = 0;
  int used = 0;
  for (int i = 0; i < 40; ++i) {
    rings[kPortTransmit]->Offer(std::array{Buffer{kData, 60'000}});
    sent += 60'000;
    Kick(kPortTransmit);
    if (!rings[kPortTransmit]->TakeUsed()) {
      break;
    }
    ++used;
  }
  ASSERT_LT(used, 40) << "it was held";
  EXPECT_TRUE(transport->device().Idle())
      << "and yet no chain is kept: a stop of the VM has nothing to wait for";
  Send(kTransmit, "console");
  EXPECT_EQ(Output(), "console");
  std::size_t got = 0;
  std::vector<char> bytes(1 << 20);
  for (int i = 0; i < 1000 && got < sent; ++i) {
    got += static_cast<std::size_t>(
        std::max<ssize_t>(0, ::recv(client.get(), bytes.data(), bytes.size(), MSG_DONTWAIT)));
    Settle();
  }
  EXPECT_EQ(got, sent);
  EXPECT_TRUE(rings[kPortTransmit]->TakeUsed());
}

TEST_F(Console, S_5_3_6_2_MessagesThatMeanNothingAreNobodys) {
  PlugPorts();
  Bring(kMultiport);
  Say(0, kPortReady, 1);  // before DEVICE_READY
  EXPECT_FALSE(Hear());
  Say(0, kReady, 1);
  EXPECT_EQ(Hear(), (Told{0, kAdd, 1}));
  EXPECT_EQ(Hear(), (Told{1, kAdd, 1}));
  for (const std::uint32_t id : {2U, 31U, UINT32_MAX}) {
    for (const std::uint16_t event : {kPortReady, kOpen, kName, kRemove}) {
      Say(id, event, 1);
    }
  }
  Say(0, 0xffff, 1);
  Say(0, kAdd, 1);
  rings[kControlTransmit]->Offer(std::array{Buffer{kControl, 7}});
  rings[kControlTransmit]->Offer(std::array{Buffer{kControl, 8, true}});
  Kick(kControlTransmit);
  EXPECT_TRUE(rings[kControlTransmit]->TakeUsed());
  EXPECT_TRUE(rings[kControlTransmit]->TakeUsed());
  EXPECT_FALSE(Hear());
  EXPECT_EQ(status() & test::MmioDriver::kNeedsReset, 0U);
}

TEST_F(Console, S_5_3_6_2_AMessageWaitsForABufferThatHoldsIt) {
  PlugPorts();
  Bring(kMultiport);
  rings[kControlReceive]->Offer(std::array{Buffer{kTable, 7, true}});
  Say(0, kReady, 1);
  EXPECT_EQ(rings[kControlReceive]->TakeUsed()->written, 0U);
  EXPECT_EQ(Hear(), (Told{0, kAdd, 1}));
}

TEST_F(Console, ADriverThatRepeatsItselfIsToldOnce) {
  PlugPorts();
  Bring(kMultiport);
  for (int i = 0; i < 100; ++i) {
    Say(0, kReady, 1);
  }
  EXPECT_EQ(Hear(), (Told{0, kAdd, 1}));
  EXPECT_EQ(Hear(), (Told{1, kAdd, 1}));
  EXPECT_FALSE(Hear());
}

TEST_F(Console, S_2_4_AfterAResetPortsAreClosedAndNothingIsLeft) {
  PlugPorts();
  BringPorts();
  auto client = Connect();
  EXPECT_EQ(Hear(), (Told{1, kOpen, 1}));
  ASSERT_EQ(::send(client.get(), "old", 3, 0), 3);
  Settle();
  mmio.Write(test::MmioDriver::kStatus, 0);
  client.Reset();
  Settle();
  BringPorts();
  GiveRoom(kPortReceive);
  EXPECT_FALSE(Received(kPortReceive));
  EXPECT_FALSE(Hear());
}

TEST_F(Console, ABackEndIsExchangedUnderTheGuest) {
  PlugPorts();
  BringPorts();
  ASSERT_TRUE(chardevs_.Change(chardev("console0.agent"), "ringbuf"));
  EXPECT_EQ(Hear(), (Told{1, kOpen, 1}));
  Send(kPortTransmit, "now here");
  EXPECT_EQ(Output("console0.agent"), "now here");
}

TEST_F(Console, WithoutMultiportTheOtherPortsAreNotThere) {
  PlugPorts();
  Bring(0);
  Send(kTransmit, "console");
  EXPECT_EQ(Output(), "console");
  rings[kControlReceive]->Offer(std::array{Buffer{kTable, 80, true}});
  const auto client = Connect();
  Kick(kControlReceive);
  EXPECT_FALSE(rings[kControlReceive]->TakeUsed());
}

TEST_F(Console, ASavedConsoleGoesOnWhereItWas) {
  PlugPorts();
  BringPorts();
  auto client = Connect();
  EXPECT_EQ(Hear(), (Told{1, kOpen, 1}));
  ASSERT_EQ(::send(client.get(), "question", 8, 0), 8);
  Settle();
  chardev("console0").Resize({.columns = 80, .rows = 25});  // not told yet
  transport->Stop();
  transport->Drain();
  const MmioState saved = transport->Save();
  client.Reset();
  Settle();
  transport->Reset();
  ASSERT_TRUE(transport->Load(saved));
  transport->Start();
  GiveRoom(kPortReceive);
  EXPECT_EQ(Received(kPortReceive), "question");
  EXPECT_EQ(Hear(), (Told{0, kResize, 1, std::string("\x50\0\x19\0", 4)}));
  EXPECT_EQ(Hear(), (Told{1, kOpen, 0})) << "meanwhile he has gone";
  Send(kTransmit, "still there");
  EXPECT_EQ(Output(), "still there");
}

TEST_F(Console, AStateThatIsNoConsolesIsNotLoaded) {
  PlugPorts();
  BringPorts();
  const MmioState good = transport->Save();
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, good.device.size() - 1, good.device.size() + 1}) {
    MmioState bad = good;
    bad.device.resize(size);
    transport->Reset();
    EXPECT_FALSE(transport->Load(bad)) << size;
  }
  MmioState bad = good;
  bad.device[8 + 6] = std::byte{1};  // more input than there can be
  bad.device.resize(bad.device.size() + (1 << 16));
  transport->Reset();
  EXPECT_FALSE(transport->Load(bad));
  transport->Reset();
  EXPECT_TRUE(transport->Load(good));
}

TEST_F(Console, OptionsMistakesAreToldInOneLine) {
  const auto wrong = [&](const std::string& options) -> std::string {
    auto properties = Properties::Parse(options, ConsoleOption().properties);
    if (!properties) {
      return properties.error().message();
    }
    devices::Chardevs chardevs(*loop_);
    DeviceContext here = context();
    here.chardevs = &chardevs;
    const auto device = ConsoleOption().create(here, *properties);
    return device ? "" : device.error().message();
  };
  EXPECT_EQ(wrong("on"), "");
  EXPECT_EQ(wrong("null"), "");
  EXPECT_EQ(wrong("port=a:null,port=b:null"), "");
  EXPECT_EQ(wrong("to=null,to=null"), "'to' comes twice");
  EXPECT_EQ(wrong("port=a:null,port=a:null"), "port=a: comes twice");
  EXPECT_TRUE(wrong("port=a/b:null").starts_with("port=a/b: a port's name has 1 to 63 of "))
      << wrong("port=a/b:null");
  EXPECT_TRUE(wrong("port=:null").starts_with("port=: a port's name")) << wrong("port=:null");
  EXPECT_TRUE(wrong("port=a").starts_with("port=a: '' is none of stdio")) << wrong("port=a");
  std::string many = "to=null";
  for (int i = 0; i < 30; ++i) {
    many += ",port=p" + std::to_string(i) + ":null";
  }
  EXPECT_EQ(wrong(many), "");
  EXPECT_EQ(wrong(many + ",port=p30:null"), "port=p30: is one more than the 30 that a console has");
}

}  // namespace
}  // namespace gyre::virtio
