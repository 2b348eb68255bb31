#include <gtest/gtest.h>

#include "gyre/devices/platform/legacy.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

class I8042Test : public testing::Test {
 protected:
  std::uint8_t Status() { return static_cast<std::uint8_t>(i8042_.Read(4, 1)); }
  std::uint8_t Data() { return static_cast<std::uint8_t>(i8042_.Read(0, 1)); }
  void Command(unsigned value) { i8042_.Write(4, 1, value); }
  void Send(unsigned value) { i8042_.Write(0, 1, value); }
  // A command with an answer, which must be there at once.
  std::uint8_t Ask(unsigned command) {
    Command(command);
    EXPECT_EQ(Status() & 0x01, 0x01);
    return Data();
  }

  int resets_ = 0;
  FakeLine line_;
  I8042 i8042_{[this] { ++resets_; }, &line_};
};

TEST_F(I8042Test, PowerOn_IsIdleAndUnlocked) { EXPECT_EQ(Status(), 0x10); }

TEST_F(I8042Test, SelfTests_AnswerAtOnce) {
  EXPECT_EQ(Ask(0xaa), 0x55);
  EXPECT_EQ(Status() & 0x05, 0x04);  // system flag, nothing more to read
  EXPECT_EQ(Ask(0xab), 0x00);
}

TEST_F(I8042Test, ControlByte_KeepsWhatIsWritten) {
  Command(0x60);
  Send(0x41);
  EXPECT_EQ(Ask(0x20), 0x61);  // the absent AUX port stays disabled
  Command(0xad);
  EXPECT_EQ(Ask(0x20) & 0x10, 0x10);
  Command(0xae);
  EXPECT_EQ(Ask(0x20) & 0x10, 0x00);
  Command(0xa8);
  EXPECT_EQ(Ask(0x20) & 0x20, 0x20);
}

TEST_F(I8042Test, InternalRam_Remembers) {
  Command(0x7f);
  Send(0x99);
  EXPECT_EQ(Ask(0x3f), 0x99);
}

// Linux's AUX probe: the loop command's answer does not come from an AUX port,
// and the AUX test fails; both at once, so that no time-out is waited for.
TEST_F(I8042Test, AuxProbe_FailsAtOnce) {
  Command(0xd3);
  Send(0x5a);
  EXPECT_EQ(Status() & 0x21, 0x01);
  EXPECT_EQ(Ask(0xa9), 0x01);
  EXPECT_EQ(Status() & 0x01, 0x00);
}

// Without a keyboard, a byte for it is refused at once and by interrupt.
TEST_F(I8042Test, KeyboardCommand_IsRefusedByInterrupt) {
  Command(0x60);
  Send(0x41);
  Send(0xf2);
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(Status() & 0x61, 0x41);
  EXPECT_EQ(Data(), 0xfe);
  EXPECT_FALSE(line_.high);
}

TEST_F(I8042Test, KeyboardBufferCommand_ComesBackAsAKey) {
  Command(0x60);
  Send(0x01);
  Command(0xd2);
  Send(0x1e);
  EXPECT_EQ(line_.edges, 1);
  EXPECT_EQ(Data(), 0x1e);
}

TEST_F(I8042Test, Pulse_ResetsByBitZero) {
  Command(0xff);
  EXPECT_EQ(resets_, 0);
  Command(0xfe);
  EXPECT_EQ(resets_, 1);
}

TEST_F(I8042Test, OutputPort_ResetsByBitZero) {
  EXPECT_EQ(Ask(0xd0), 0x03);
  Command(0xd1);
  Send(0x03);
  EXPECT_EQ(resets_, 0);
  Command(0xdd);
  EXPECT_EQ(Ask(0xd0), 0x01);
  Command(0xd1);
  Send(0x02);
  EXPECT_EQ(resets_, 1);
}

TEST_F(I8042Test, RandomAccesses_DoNoHarm) {
  for (unsigned seed = 0; seed < 8; ++seed) {
    FuzzRegisters(i8042_, 5, seed);
  }
  i8042_.Reset();
  EXPECT_EQ(Status(), 0x10);
  EXPECT_FALSE(line_.high);
}

TEST(ExitPort, Write_EndsWithOddStatus) {
  std::vector<int> statuses;
  ExitPort port([&](int status) { statuses.push_back(status); });
  port.Write(0, 1, 0x10);
  port.Write(0, 4, 0xffffffff);
  EXPECT_EQ(statuses, (std::vector{0x21, 0x7fffffff}));
  EXPECT_EQ(port.Read(0, 1), 0U);
}

TEST(BootMarkPort, Writes_AreKeptWithTheirTimes) {
  BootMarkPort port;
  port.Write(0, 1, 0x41);
  port.Write(0, 1, 0x42);
  ASSERT_EQ(port.marks().size(), 2U);
  EXPECT_EQ(port.marks()[0].code, 0x41);
  EXPECT_LE(port.marks()[0].monotonic_ns, port.marks()[1].monotonic_ns);
  for (int i = 0; i < 1000; ++i) {
    port.Write(0, 1, 0);
  }
  EXPECT_EQ(port.marks().size(), 256U);
}

}  // namespace
}  // namespace gyre::devices
