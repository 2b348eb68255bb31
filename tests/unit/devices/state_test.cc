// Each device of the board saved in mid-work and loaded into another: both then do the same.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gyre/devices/platform/firmware.h"
#include "gyre/devices/platform/ioapic.h"
#include "gyre/devices/platform/legacy.h"
#include "gyre/devices/platform/pic_pit.h"
#include "gyre/devices/platform/power.h"
#include "gyre/devices/platform/serial.h"
#include "gyre/devices/platform/watchdog.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

constexpr std::int64_t kMs = 1'000'000;

class StateTest : public LoopTest {
 protected:
  // Bytes that are not what was saved are refused, or taken, and nothing aborts or hangs whatever follows.
  template <typename Use>
  static void ExpectHostileStatesAreSafe(Device& device, const Use& use) {
    const SavedState good = device.SaveState();
    std::minstd_rand random(7);
    for (int round = 0; round < 2000; ++round) {
      SavedState bad = good;
      for (auto count = random() % 4 + 1; count != 0 && !bad.bytes.empty(); --count) {
        bad.bytes.at(random() % bad.bytes.size()) =
            static_cast<std::byte>(random() % 4 == 0 ? 0xff : random());
      }
      device.Reset();
      if (device.LoadState(bad)) {
        use(static_cast<unsigned>(random()));
      }
    }
    device.Reset();
    ExpectOthersRefused(device, good);
    EXPECT_TRUE(device.LoadState(good));
    // A clock looks at once what has happened meanwhile.
    EXPECT_TRUE(device.SaveState() == good || device.name() == "rtc");
  }
  static void ExpectOthersRefused(Device& device, const SavedState& good) {
    SavedState bad = good;
    bad.version += 1;
    EXPECT_FALSE(device.LoadState(bad)) << "of a later version";
    bad = good;
    bad.bytes.push_back(std::byte{0});
    EXPECT_FALSE(device.LoadState(bad)) << "too long";
    device.Reset();
  }
  static std::uint8_t In(memory::RegionHandler& device, std::uint64_t port) {
    return static_cast<std::uint8_t>(device.Read(port, 1));
  }
};

// Bytes wait in both directions, in the middle of the guest's reading.
TEST_F(StateTest, Serial) {
  struct Port {
    FakeLine line;
    FakeBackend backend;
    Serial serial{line, backend};
  };
  Port from;
  from.serial.Write(2, 1, 0xc1);  // FIFOs, trigger at 14
  from.serial.Write(1, 1, 0x03);
  from.serial.Write(7, 1, 0x5a);
  from.backend.room = 0;
  for (const char letter : std::string("to host")) {
    from.serial.Write(0, 1, static_cast<std::uint8_t>(letter));
  }
  from.backend.input = "to guest";
  from.backend.Deliver();
  EXPECT_EQ(In(from.serial, 0), 't');
  const SavedState saved = from.serial.SaveState();
  Port to;
  to.backend.room = 2;
  ASSERT_TRUE(to.serial.LoadState(saved));
  EXPECT_EQ(to.backend.output, "to") << "what waited for the host goes on by itself";
  to.backend.MakeRoom(100);
  EXPECT_EQ(to.backend.output, "to host");
  EXPECT_TRUE(to.line.high);
  EXPECT_EQ(to.serial.ReceiveRoom(), 0U) << "the guest is reading still";
  EXPECT_EQ(In(to.serial, 7), 0x5a);
  std::string rest;
  while ((In(to.serial, 5) & 1) != 0) {
    rest += static_cast<char>(In(to.serial, 0));
  }
  EXPECT_EQ(rest, "o guest");
  ExpectHostileStatesAreSafe(from.serial, [&](unsigned seed) {
    for (unsigned i = 0; i < 32; ++i) {
      (void)from.serial.Read((seed + i) % 8, 1);
      from.serial.Write((seed + 3 * i) % 8, 1, seed >> i % 8);
    }
  });
}

// An alarm and a periodic interrupt are set; memory has been written.
TEST_F(StateTest, Rtc) {
  FakeLine line;
  FakeLine other_line;
  const auto set = [](Rtc& rtc, std::uint8_t place, std::uint8_t value) {
    rtc.Write(0, 1, place);
    rtc.Write(1, 1, value);
  };
  const auto get = [](Rtc& rtc, std::uint8_t place) {
    rtc.Write(0, 1, place);
    return In(rtc, 1);
  };
  Rtc from(*loop_, line, 1 << 20, 0);
  set(from, 0x40, 0x77);
  set(from, 0x0a, 0x2e);  // 4 Hz
  set(from, 9, 0x33);     // another year
  set(from, 0x0b, 0x72);  // all interrupts
  from.Write(0, 1, 0x40);
  const SavedState saved = from.SaveState();
  Rtc to(*loop_, other_line, 1 << 20, 0);
  ASSERT_TRUE(to.LoadState(saved));
  EXPECT_EQ(In(to, 1), 0x77) << "the index goes along";
  for (int round = 0; round < 8; ++round) {
    Advance(300 * kMs);
    EXPECT_EQ(line.high, other_line.high) << round;
    for (const auto place : std::initializer_list<std::uint8_t>{0, 2, 4, 7, 8, 9, 0x32, 0x0b, 0x0c}) {
      EXPECT_EQ(get(from, place), get(to, place)) << int{place};
    }
  }
  EXPECT_EQ(get(to, 9), 0x33);
  EXPECT_GT(other_line.edges, 2);
  ExpectHostileStatesAreSafe(from, [&](unsigned seed) {
    Advance(kMs * (seed % 3000));
    (void)get(from, static_cast<std::uint8_t>(seed % 16));
    set(from, 0x0a, static_cast<std::uint8_t>(seed));
  });
}

// A command waits for its data, and a byte for the guest.
TEST_F(StateTest, KeyboardController) {
  FakeLine line;
  FakeLine other_line;
  int resets = 0;
  I8042 from([] { ADD_FAILURE() << "the old one's"; }, &line);
  from.Write(4, 1, 0x60);
  from.Write(0, 1, 0x45);
  from.Write(0, 1, 0xf4);  // to the keyboard, which is not there
  from.Write(4, 1, 0xd1);
  const SavedState saved = from.SaveState();
  EXPECT_TRUE(line.high);
  I8042 to([&] { ++resets; }, &other_line);
  ASSERT_TRUE(to.LoadState(saved));
  EXPECT_TRUE(other_line.high);
  EXPECT_EQ(In(to, 4), In(from, 4));
  EXPECT_EQ(In(to, 0), 0xfe);
  EXPECT_FALSE(other_line.high);
  to.Write(0, 1, 0x02);
  EXPECT_EQ(resets, 1) << "the data was that command's";
  I8042 plain([] {});
  ExpectHostileStatesAreSafe(plain, [&](unsigned seed) {
    (void)plain.Read(seed % 5, 1);
    plain.Write(seed % 5, 1, seed >> 8);
  });
}

// The slave is in the middle of its initialization, the master has an interrupt in service.
TEST_F(StateTest, InterruptControllers) {
  int changes = 0;
  const auto initialize = [](memory::RegionHandler& chip, std::uint8_t base) {
    chip.Write(0, 1, 0x11);
    chip.Write(1, 1, base);
    chip.Write(1, 1, 0x04);
    chip.Write(1, 1, 0x01);
  };
  DualPic from({});
  initialize(from.master(), 0x20);
  initialize(from.slave(), 0x28);
  from.elcr().Write(0, 1, 0x20);
  from.line(3).Raise();
  EXPECT_EQ(from.Acknowledge(), 0x23);
  from.line(1).Raise();
  from.line(4).Raise();
  from.slave().Write(0, 1, 0x11);
  from.slave().Write(1, 1, 0x70);
  const SavedState saved = from.SaveState();
  DualPic to([&] { ++changes; });
  ASSERT_TRUE(to.LoadState(saved));
  EXPECT_EQ(changes, 1);
  EXPECT_EQ(to.SaveState(), saved);
  EXPECT_EQ(to.elcr().Read(0, 1), 0x20U);
  EXPECT_EQ(to.Acknowledge(), 0x21);
  to.master().Write(0, 1, 0x20);
  to.master().Write(0, 1, 0x20);
  EXPECT_EQ(to.Acknowledge(), 0x24) << "what waited behind the one in service";
  to.slave().Write(1, 1, 0x02);
  to.slave().Write(1, 1, 0x01);
  to.line(8).Raise();
  to.master().Write(0, 1, 0x20);
  EXPECT_EQ(to.Acknowledge(), 0x70) << "the slave's base came before the save, the rest after it";
  ExpectHostileStatesAreSafe(from, [&](unsigned seed) {
    from.line(seed % 16).Set((seed & 16) != 0);
    (void)from.Acknowledge();
    from.master().Write(seed >> 5 & 1, 1, seed >> 8);
    (void)from.slave().Read(seed >> 6 & 1, 1);
  });
}

// One counter runs, one has half of its count, one is latched and half read.
TEST_F(StateTest, IntervalTimer) {
  FakeLine line;
  FakeLine other_line;
  Pit from(*loop_, line);
  from.counters().Write(3, 1, 0x34);
  from.counters().Write(0, 1, 0x00);
  from.counters().Write(0, 1, 0x80);
  from.counters().Write(3, 1, 0x70);
  from.counters().Write(1, 1, 0x34);
  from.port61().Write(0, 1, 0x03);
  from.counters().Write(3, 1, 0xb6);
  from.counters().Write(2, 1, 0x50);
  from.counters().Write(2, 1, 0x12);
  Advance(3 * kMs);
  from.counters().Write(3, 1, 0x80);
  (void)from.counters().Read(2, 1);
  const SavedState saved = from.SaveState();
  Pit to(*loop_, other_line);
  ASSERT_TRUE(to.LoadState(saved));
  EXPECT_EQ(to.SaveState(), saved);
  for (Pit* const pit : {&from, &to}) {
    pit->counters().Write(1, 1, 0x12);
  }
  const int before = line.edges;
  const int other_before = other_line.edges;
  for (int round = 0; round < 40; ++round) {
    Advance(7 * kMs);
    for (const std::uint64_t port : {0ULL, 1ULL, 2ULL}) {
      EXPECT_EQ(from.counters().Read(port, 1), to.counters().Read(port, 1)) << round << " " << port;
    }
    EXPECT_EQ(from.port61().Read(0, 1), to.port61().Read(0, 1));
  }
  EXPECT_EQ(line.edges - before, other_line.edges - other_before);
  EXPECT_GT(other_line.edges, 5);
  ExpectHostileStatesAreSafe(from, [&](unsigned seed) {
    Advance(kMs * (seed % 500));
    (void)from.counters().Read(seed % 3, 1);
    from.counters().Write(seed % 4, 1, seed >> 8);
  });
}

// A level is in service, with its line still up; another pin is masked with its route kept; an edge pin is
// open.
TEST_F(StateTest, IoApic) {
  const auto program = [](IoApic& ioapic, unsigned pin, std::uint32_t low) {
    ioapic.Write(0, 4, 0x10 + 2 * pin);
    ioapic.Write(0x10, 4, low);
  };
  FakeMsi msi;
  FakeMsi other_msi;
  IoApic from(msi);
  program(from, 4, 0x34);
  program(from, 9, 0x8039);
  program(from, 11, 0x803b);
  from.line(9).Raise();
  from.line(11).Raise();
  program(from, 11, 0x1803b);
  const SavedState saved = from.SaveState();
  IoApic to(other_msi);
  ASSERT_TRUE(to.LoadState(saved));
  EXPECT_EQ(to.SaveState(), saved);
  EXPECT_EQ(other_msi.routes, msi.routes);
  EXPECT_TRUE(other_msi.sent.empty()) << "what was delivered is not delivered again";
  to.line(9).Set(true);
  EXPECT_TRUE(other_msi.sent.empty());
  to.EndOfInterrupt(0x39);
  ASSERT_EQ(other_msi.sent.size(), 1U) << "the line is up still";
  to.EndOfInterrupt(0x3b);
  EXPECT_EQ(other_msi.routes.at(11), std::nullopt) << "masked meanwhile";
  to.line(4).Pulse();
  EXPECT_EQ(other_msi.sent.size(), 2U);
  EXPECT_EQ(to.Read(0, 4), from.Read(0, 4));
  IoApic fewer(other_msi, 20);
  EXPECT_FALSE(fewer.LoadState(saved));
  ExpectHostileStatesAreSafe(from, [&](unsigned seed) {
    from.line(seed % IoApic::kPins).Set((seed & 0x100) != 0);
    from.EndOfInterrupt(static_cast<std::uint8_t>(seed));
    for (const auto& route : msi.routes) {
      EXPECT_TRUE(!route || route->address >> 20 == 0xfee) << "no message goes into memory";
    }
  });
}

TEST_F(StateTest, Watchdog) {
  int expired = 0;
  int other_expired = 0;
  Watchdog from(*loop_, [&] { ++expired; });
  from.Write(Watchdog::kCount, 4, 30);
  from.Write(Watchdog::kControl, 4, 1);
  Advance(1000 * kMs);
  const SavedState saved = from.SaveState();
  Watchdog to(*loop_, [&] { ++other_expired; });
  ASSERT_TRUE(to.LoadState(saved));
  EXPECT_EQ(to.Read(Watchdog::kRemaining, 4), 20U);
  from.Write(Watchdog::kControl, 4, 0);
  Advance(1999 * kMs);
  EXPECT_EQ(other_expired, 0);
  Advance(2 * kMs);
  EXPECT_EQ(other_expired, 1);
  EXPECT_EQ(expired, 0);
  ASSERT_TRUE(from.LoadState(to.SaveState()));
  EXPECT_EQ(from.Read(Watchdog::kStatus, 4), Watchdog::kExpired);
  ExpectHostileStatesAreSafe(from, [&](unsigned seed) {
    from.Write(4 * (seed % 4), 4, seed >> 4);
    (void)from.Read(Watchdog::kRemaining, 4);
  });
}

// A button is pressed that the guest has not heard of, and it was woken.
TEST_F(StateTest, AcpiPowerAndEvents) {
  FakeLine line;
  FakeLine other_line;
  AcpiEvents from(line);
  from.PressPowerButton();
  AcpiEvents to(other_line);
  ASSERT_TRUE(to.LoadState(from.SaveState()));
  EXPECT_TRUE(other_line.high);
  EXPECT_EQ(to.Read(0, 4), AcpiEvents::kPowerButton);
  EXPECT_FALSE(other_line.high);
  ExpectHostileStatesAreSafe(from, [&](unsigned) { (void)from.Read(0, 4); });

  AcpiPower slept({});
  slept.WokeUp();
  AcpiPower awake({});
  ASSERT_TRUE(awake.LoadState(slept.SaveState()));
  EXPECT_EQ(awake.Read(AcpiPower::kSleepStatus, 1), AcpiPower::kWakeStatus);
  ExpectHostileStatesAreSafe(slept, [&](unsigned) { (void)slept.Read(AcpiPower::kSleepStatus, 1); });
}

// In the middle of a file, and of a line.
TEST_F(StateTest, FirmwareDevices) {
  FwCfg from;
  from.Write(0, 2, FwCfg::kSignature);
  EXPECT_EQ(from.Read(1, 1), 'Q');
  EXPECT_EQ(from.Read(1, 1), 'E');
  FwCfg to;
  ASSERT_TRUE(to.LoadState(from.SaveState()));
  EXPECT_EQ(to.Read(1, 1), 'M');
  ExpectHostileStatesAreSafe(from, [&](unsigned) { (void)from.Read(1, 1); });

  DebugPort debug;
  for (const char letter : std::string("half a l")) {
    debug.Write(0, 1, static_cast<std::uint8_t>(letter));
  }
  DebugPort other;
  ASSERT_TRUE(other.LoadState(debug.SaveState()));
  EXPECT_EQ(other.SaveState(), debug.SaveState());
  ExpectHostileStatesAreSafe(debug, [&](unsigned seed) { debug.Write(0, 1, seed); });
}

TEST_F(StateTest, DevicesWithoutAnyStateSayThat) {
  ExitPort exit_port([](int) {});
  BootMarkPort marks;
  PvPanic panic([] {}, [] {});
  marks.Write(0, 1, 3);
  for (Device* const device : std::initializer_list<Device*>{&exit_port, &marks, &panic}) {
    EXPECT_EQ(device->SaveState(), SavedState()) << device->name();
    EXPECT_TRUE(device->LoadState({})) << device->name();
    ExpectOthersRefused(*device, {});
  }
}

}  // namespace
}  // namespace gyre::devices
