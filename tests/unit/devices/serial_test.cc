#include "gyre/devices/platform/serial.h"

#include <gtest/gtest.h>

#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

// Section numbers are the PC16550D data sheet's.
class SerialTest : public testing::Test {
 protected:
  std::uint8_t In(unsigned port) { return static_cast<std::uint8_t>(serial_.Read(port, 1)); }
  void Out(unsigned port, unsigned value) { serial_.Write(port, 1, value); }
  void Send(const std::string& text) {
    backend_.input += text;
    backend_.Deliver();
  }

  FakeLine line_;
  FakeBackend backend_;
  Serial serial_{line_, backend_};
};

TEST_F(SerialTest, Reset_GivesTheDataSheetsValues) {
  EXPECT_EQ(In(1), 0x00);
  EXPECT_EQ(In(2), 0x01);
  EXPECT_EQ(In(3), 0x00);
  EXPECT_EQ(In(4), 0x00);
  EXPECT_EQ(In(5), 0x60);
  EXPECT_EQ(In(6), 0xb0);
}

TEST_F(SerialTest, Thr_ReachesTheHostAtOnce) {
  Out(0, 'h');
  EXPECT_EQ(backend_.output, "h");
  EXPECT_EQ(In(5), 0x60);
}

TEST_F(SerialTest, Dlab_SwitchesTheDivisorIn) {
  Out(3, 0x80);
  Out(0, 0x34);
  Out(1, 0x12);
  EXPECT_EQ(In(0), 0x34);
  EXPECT_EQ(In(1), 0x12);
  Out(3, 0x03);
  EXPECT_EQ(In(1), 0x00);
  EXPECT_EQ(backend_.output, "");
}

TEST_F(SerialTest, ScratchAndIer_KeepOnlyTheirBits) {
  Out(7, 0xa5);
  EXPECT_EQ(In(7), 0xa5);
  Out(1, 0xff);
  EXPECT_EQ(In(1), 0x0f);
}

TEST_F(SerialTest, Fcr_FifosShowInIir) {
  Out(2, 0x01);
  EXPECT_EQ(In(2), 0xc1);
  Out(2, 0x00);
  EXPECT_EQ(In(2), 0x01);
}

// Table III: the IIR's read clears the THRE interrupt if it was the one shown.
TEST_F(SerialTest, ThrEmptyInterrupt_IsALatchThatIirClears) {
  Out(1, 0x02);
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(In(2), 0x02);
  EXPECT_FALSE(line_.high);
  EXPECT_EQ(In(2), 0x01);
  Out(0, 'x');
  EXPECT_EQ(line_.edges, 2);
  EXPECT_EQ(In(2), 0x02);
}

// What Linux tries at start-up: the interrupt comes back when it is enabled anew.
TEST_F(SerialTest, ThrEmptyInterrupt_ReturnsWhenEnabledAnew) {
  Out(1, 0x02);
  EXPECT_EQ(In(2), 0x02);
  Out(1, 0x00);
  Out(1, 0x02);
  EXPECT_EQ(In(2), 0x02);
}

// A handler that fills the FIFO sees one edge, not sixteen, and then the next.
TEST_F(SerialTest, BurstFromTheHandler_GivesOneEdge) {
  Out(2, 0x01);
  Out(1, 0x02);
  EXPECT_EQ(In(2), 0xc2);
  for (int i = 0; i < 16; ++i) {
    Out(0, 'a');
  }
  EXPECT_EQ(line_.edges, 2);
  EXPECT_EQ(backend_.output.size(), 16U);
}

// Regression: the line stayed high over the write, and an edge-triggered pin saw nothing new.
TEST_F(SerialTest, DriverThatNeverReadsIir_GetsAnEdgeForEachTurn) {
  Out(1, 0x02);
  EXPECT_EQ(line_.edges, 1);
  Out(0, 'a');  // without FIFOs one character is a turn
  Out(0, 'b');
  EXPECT_EQ(line_.edges, 3);
  Out(2, 0x01);
  for (int turn = 0; turn < 2; ++turn) {
    EXPECT_EQ(In(5) & 0x20, 0x20);
    for (int i = 0; i < 16; ++i) {
      Out(0, 'c');
    }
  }
  EXPECT_EQ(line_.edges, 5);
}

TEST_F(SerialTest, HostThatTakesNoMore_HoldsThreAndTemtLow) {
  Out(2, 0x01);
  Out(1, 0x02);
  In(2);
  backend_.room = 1;
  Out(0, 'a');
  EXPECT_EQ(In(5) & 0x60, 0x60);
  In(2);
  Out(0, 'b');
  Out(0, 'c');
  EXPECT_EQ(In(5) & 0x60, 0x00);
  EXPECT_EQ(In(2), 0xc1);
  EXPECT_EQ(backend_.output, "a");
  backend_.MakeRoom(100);
  EXPECT_EQ(backend_.output, "abc");
  EXPECT_EQ(In(5) & 0x60, 0x60);
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(In(2), 0xc2);
}

TEST_F(SerialTest, FullTransmitFifo_LosesWhatFollows) {
  Out(2, 0x01);
  backend_.room = 0;
  for (int i = 0; i < 20; ++i) {
    Out(0, static_cast<unsigned>('a' + i));
  }
  backend_.MakeRoom(100);
  EXPECT_EQ(backend_.output, "abcdefghijklmnop");
}

TEST_F(SerialTest, TransmitFifoReset_ForgetsWhatWaits) {
  Out(2, 0x01);
  backend_.room = 0;
  Out(0, 'a');
  Out(2, 0x05);
  EXPECT_EQ(In(5) & 0x60, 0x60);
  backend_.MakeRoom(10);
  EXPECT_EQ(backend_.output, "");
}

TEST_F(SerialTest, ReceivedByte_InterruptsAndIsRead) {
  Out(1, 0x01);
  Send("k");
  EXPECT_TRUE(line_.high);
  EXPECT_EQ(In(2), 0x04);
  EXPECT_EQ(In(5) & 0x01, 0x01);
  EXPECT_EQ(In(0), 'k');
  EXPECT_FALSE(line_.high);
  EXPECT_EQ(In(5) & 0x01, 0x00);
}

// Section 8.4: received data at the trigger level, a character time-out below it.
TEST_F(SerialTest, TriggerLevel_TellsDataFromTimeOut) {
  Out(2, 0x81);  // 8 bytes
  Out(1, 0x01);
  Send("1234567");
  EXPECT_EQ(In(2), 0xcc);
  Send("8");
  EXPECT_EQ(In(2), 0xc4);
  In(0);
  EXPECT_EQ(In(2), 0xcc);
}

TEST_F(SerialTest, FullFifo_LeavesTheRestInTheHost) {
  Out(2, 0x01);
  Send("0123456789abcdefgh");
  EXPECT_EQ(backend_.input, "gh");
  EXPECT_EQ(In(5) & 0x02, 0x00);
  std::string got;
  while ((In(5) & 0x01) != 0) {
    got += static_cast<char>(In(0));
  }
  EXPECT_EQ(got, "0123456789abcdef");
  EXPECT_GT(backend_.resumes, 0);
  backend_.Deliver();
  EXPECT_EQ(In(0), 'g');
}

// However fast the host sends, the line falls after at most 16 reads: an
// edge-triggered pin would otherwise never see the next interrupt.
TEST_F(SerialTest, EndlessInput_LetsTheLineFall) {
  Out(2, 0x01);
  Out(1, 0x01);
  backend_.input = std::string(1000, 'x');
  backend_.Deliver();
  std::size_t got = 0;
  for (int falls = 0; got < 1000; ++falls) {
    ASSERT_LT(falls, 1000);
    for (int reads = 0; line_.high; ++reads) {
      ASSERT_LT(reads, 16);
      In(0);
      ++got;
      if (line_.high) {
        backend_.Deliver();  // the host is never late
      }
    }
    backend_.Deliver();
  }
  EXPECT_GE(line_.edges, 1000 / 16);
}

TEST_F(SerialTest, WithoutFifos_OneByteAtATime) {
  Send("ab");
  EXPECT_EQ(backend_.input, "b");
  EXPECT_EQ(In(0), 'a');
  backend_.Deliver();
  EXPECT_EQ(In(0), 'b');
}

// Section 8.9 and Linux's probe: RTS and OUT2 come back as CTS and DCD.
TEST_F(SerialTest, LoopbackMode_TurnsModemOutputsRound) {
  Out(4, 0x1a);
  EXPECT_EQ(In(6) & 0xf0, 0x90);
  Out(4, 0x15);
  EXPECT_EQ(In(6) & 0xf0, 0x60);
  Out(4, 0x00);
  EXPECT_EQ(In(6) & 0xf0, 0xb0);
}

TEST_F(SerialTest, LoopbackMode_ReturnsWhatIsSent) {
  Out(2, 0x01);
  Out(4, 0x10);
  Send("host");
  Out(0, 'l');
  Out(0, 'o');
  EXPECT_EQ(backend_.output, "");
  EXPECT_EQ(In(0), 'l');
  EXPECT_EQ(In(0), 'o');
  EXPECT_EQ(In(5) & 0x01, 0x00);
  Out(4, 0x00);
  backend_.Deliver();
  EXPECT_EQ(In(0), 'h');
}

// Section 8.4: an overrun keeps the FIFO and loses the newcomer; LSR's read clears it.
TEST_F(SerialTest, LoopbackOverrun_IsReportedOnce) {
  Out(2, 0x01);
  Out(4, 0x10);
  Out(1, 0x04);
  for (int i = 0; i < 17; ++i) {
    Out(0, static_cast<unsigned>('a' + i));
  }
  EXPECT_EQ(In(2), 0xc6);
  EXPECT_EQ(In(5) & 0x02, 0x02);
  EXPECT_EQ(In(5) & 0x02, 0x00);
  EXPECT_EQ(In(2), 0xc1);
  EXPECT_EQ(In(0), 'a');
}

TEST_F(SerialTest, LoopbackBreak_IsOneZeroCharacterWithItsBits) {
  Out(2, 0x01);
  Out(4, 0x10);
  Out(1, 0x05);
  Out(3, 0x43);
  EXPECT_EQ(In(2), 0xc6);
  EXPECT_EQ(In(5) & 0x99, 0x99);
  EXPECT_EQ(In(2), 0xc4);
  EXPECT_EQ(In(5) & 0x99, 0x01);
  EXPECT_EQ(In(0), 0x00);
  EXPECT_EQ(In(5) & 0x01, 0x00);
}

TEST_F(SerialTest, BreakOnTheWire_SendsNothing) {
  Out(3, 0x43);
  Out(0, 'x');
  EXPECT_EQ(backend_.output, "");
  Out(3, 0x03);
  Out(0, 'y');
  EXPECT_EQ(backend_.output, "y");
}

// Section 8.10: deltas interrupt and MSR's read clears them; TERI is RI's fall only.
TEST_F(SerialTest, ModemDeltas_InterruptUntilMsrIsRead) {
  Out(1, 0x08);
  Out(4, 0x14);  // OUT1: RI rises, the connected lines fall
  EXPECT_EQ(In(2), 0x00);
  EXPECT_EQ(In(6), 0x4b);
  EXPECT_EQ(In(2), 0x01);
  Out(4, 0x10);
  EXPECT_EQ(In(6), 0x04);
  EXPECT_FALSE(line_.high);
}

// Table III's order: line status, data, transmitter, modem.
TEST_F(SerialTest, Interrupts_ComeByPriority) {
  Out(2, 0x01);
  Out(4, 0x10);
  In(6);
  Out(3, 0x40);
  Out(1, 0x0f);
  Out(4, 0x12);
  EXPECT_EQ(In(2), 0xc6);
  In(5);
  EXPECT_EQ(In(2), 0xc4);
  In(0);
  EXPECT_EQ(In(2), 0xc2);
  EXPECT_EQ(In(2), 0xc0);
  In(6);
  EXPECT_EQ(In(2), 0xc1);
  EXPECT_FALSE(line_.high);
}

TEST_F(SerialTest, FifoSwitch_ClearsBothFifos) {
  Out(2, 0x01);
  Send("abc");
  Out(2, 0x00);
  EXPECT_EQ(In(5) & 0x01, 0x00);
}

TEST_F(SerialTest, DeviceReset_LowersTheLine) {
  Out(1, 0x03);
  Send("x");
  EXPECT_TRUE(line_.high);
  serial_.Reset();
  EXPECT_FALSE(line_.high);
  EXPECT_EQ(In(5), 0x60);
}

TEST_F(SerialTest, WideAccess_IsOneCycleAByte) {
  EXPECT_EQ(serial_.Read(4, 4), 0x00b06000U);
  serial_.Write(7, 4, 0x11223344);
  EXPECT_EQ(In(7), 0x44);
}

TEST_F(SerialTest, RandomAccesses_DoNoHarm) {
  for (unsigned seed = 0; seed < 8; ++seed) {
    FuzzRegisters(serial_, Serial::kSize, seed, [this](std::uint64_t value) {
      backend_.input = std::string(value % 40, 'z');
      backend_.Deliver();
      backend_.output.clear();
      backend_.MakeRoom(value % 8);
    });
    serial_.Reset();
    EXPECT_FALSE(line_.high);
  }
}

}  // namespace
}  // namespace gyre::devices
