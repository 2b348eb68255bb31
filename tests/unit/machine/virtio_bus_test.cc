#include "src/machine/virtio_bus.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <thread>

#include "src/machine/layout.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::machine {
namespace {

class CountingMsi final : public MsiSink {
 public:
  void Send(const MsiMessage&) override { ++sent; }
  void SetRoute(Gsi, const std::optional<MsiMessage>&) override {}
  int sent = 0;
};

class IrqFdLineTest : public devices::LoopTest {
 protected:
  void Program(std::uint32_t low) {
    ioapic_.Write(0, 4, 0x10 + 2 * 24);
    ioapic_.Write(0x10, 4, low);
  }
  CountingMsi msi_;
  devices::IoApic ioapic_{msi_, 25};
};

TEST_F(IrqFdLineTest, AnEdgeIsAWriteToTheIrqFd) {
  int asked = 0;
  int fd = -1;
  IrqFdLine line(
      ioapic_, 24,
      [&](Gsi gsi) {
        EXPECT_EQ(gsi, Gsi(24));
        ++asked;
        auto made = NewEventFd();
        fd = made->get();
        return made;
      },
      *loop_);
  EXPECT_EQ(asked, 0);
  line.Connect();
  line.Connect();
  EXPECT_EQ(asked, 1);
  Program(0x31);
  line.Trigger();
  EXPECT_TRUE(DrainEventFd(fd));
  EXPECT_EQ(msi_.sent, 0) << "KVM delivers it";
}

TEST_F(IrqFdLineTest, WithoutAnIrqFdAnEdgeGoesThroughTheIoApic) {
  IrqFdLine line(ioapic_, 24, [](Gsi) -> Result<UniqueFd> { return Fail(Error::Host("none")); }, *loop_);
  line.Connect();
  Program(0x31);
  line.Trigger();
  EXPECT_EQ(msi_.sent, 1);
  std::thread([&] { line.Trigger(); }).join();  // without the lock
  EXPECT_EQ(msi_.sent, 1);
  RunPending();
  EXPECT_EQ(msi_.sent, 2);
  int resends = 0;
  line.SetResend([&] {
    ++resends;
    line.Trigger();
  });
  Program(0x31 | 0x10000);
  line.Trigger();
  EXPECT_EQ(msi_.sent, 2);
  Program(0x31);
  EXPECT_EQ(resends, 1);
  EXPECT_EQ(msi_.sent, 3);
}

TEST(VirtioSlots, HavePlacesAndInterruptsOfTheirOwn) {
  for (const bool acpi : {false, true}) {
    std::set<std::uint64_t> addresses;
    std::set<unsigned> gsis = {layout::kSerialGsi, layout::kRtcGsi, layout::kPitGsi};
    if (acpi) {
      gsis.insert(layout::kAcpiEventGsi);
    }
    const std::size_t others = gsis.size();
    for (unsigned i = 0; i < VirtioSlots(acpi); ++i) {
      const VirtioSlot slot = VirtioSlotAt(i, acpi);
      addresses.insert(slot.address);
      gsis.insert(slot.gsi);
      EXPECT_LT(slot.gsi, IoApicPins(i + 1, acpi));
    }
    EXPECT_EQ(addresses.size(), VirtioSlots(acpi));
    EXPECT_EQ(gsis.size(), VirtioSlots(acpi) + others);
  }
  EXPECT_EQ(VirtioSlots(true), 24U);
  EXPECT_EQ(IoApicPins(0, true), 24U);
}

TEST(VirtioSlots, AreNamedOnTheCommandLineWithoutAcpi) {
  EXPECT_EQ(VirtioParameters(0), "");
  EXPECT_EQ(VirtioParameters(2), "virtio_mmio.device=512@0xfeb00000:5 virtio_mmio.device=512@0xfeb00200:6");
}

TEST(VirtioSlots, TheirParametersComeBeforeInitsWords) {
  const std::string one = VirtioParameters(1);
  const auto added = [](std::string cmdline) {
    AddVirtioParameters(cmdline, 1);
    return cmdline;
  };
  EXPECT_EQ(added(""), one);
  EXPECT_EQ(added("quiet"), "quiet " + one);
  EXPECT_EQ(added("quiet "), "quiet " + one);
  EXPECT_EQ(added("quiet -- single"), "quiet " + one + " -- single");
  EXPECT_EQ(added("quiet\n--\tsingle"), "quiet\n " + one + " --\tsingle");
  EXPECT_EQ(added("-- single -- x"), one + " -- single -- x");
  EXPECT_EQ(added("a=\"b -- c\" d--e --"), "a=\"b -- c\" d--e " + one + " --");
  EXPECT_EQ(added("a=\"b -- c"), "a=\"b -- c " + one);
  std::string none = "-- single";
  AddVirtioParameters(none, 0);
  EXPECT_EQ(none, "-- single");
}

}  // namespace
}  // namespace gyre::machine
