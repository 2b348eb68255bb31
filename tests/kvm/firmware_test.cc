// Firmware from its reset vector on: SeaBIOS's build for microvm machines boots a disk by drivers of its own.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

constexpr const char* kSeaBios = "/usr/share/seabios/bios-microvm.bin";
// Ring 0 and real mode may be interpreted: 10 s on such a host when it has nothing else to do.
constexpr std::chrono::seconds kFirmwarePatience{240};

class Firmware : public GyredTest {
 protected:
  static Arguments With(const std::string& rom, const Arguments& more) {
    Arguments arguments = {std::getenv("GYRED"), "--firmware", rom};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  static ProcessResult Run(const Arguments& arguments) {
    auto process = Process::Start(arguments);
    EXPECT_TRUE(process);
    return process->Wait(kFirmwarePatience);
  }
};

// Reads the disk's second sector by INT 13h, prints what stands there, and passes by the exit port.
std::string BootDisk(std::string_view text) {
  using namespace std::string_view_literals;
  std::string disk(
      "\x31\xc0\x8e\xd8\x8e\xc0\xfc"  // xor ax, ax; mov ds, ax; mov es, ax; cld
      "\xb8\x01\x02\xbb\x00\x7e"      // mov ax, 0x0201 (read one sector); mov bx, 0x7e00
      "\xb9\x02\x00\xba\x80\x00"      // mov cx, 2 (the second); mov dx, 0x80 (the first disk)
      "\xcd\x13\x72\x12"              // int 0x13; jc end
      "\xbe\x00\x7e"                  // mov si, 0x7e00
      "\xac\x84\xc0\x74\x06"          // print: lodsb; test al, al; jz done
      "\xba\xf8\x03\xee\xeb\xf5"      // mov dx, 0x3f8; out dx, al; jmp print
      "\xb0\x15\xe6\xf4"              // done: mov al, 21; out 0xf4, al
      "\xf4\xeb\xfd"sv);              // end: hlt; jmp end
  disk.resize(510, '\0');
  disk += "\x55\xaa";
  disk += text;
  disk.resize(1 << 20, '\0');
  return disk;
}

// The same, but at its first time it writes to that sector that it was there, and resets the machine by the
// i8042.
std::string ResettingDisk(std::string_view text) {
  using namespace std::string_view_literals;
  std::string disk(
      "\x31\xc0\x8e\xd8\x8e\xc0\xfc"  // xor ax, ax; mov ds, ax; mov es, ax; cld
      "\xb8\x01\x02\xbb\x00\x7e"      // mov ax, 0x0201 (read one sector); mov bx, 0x7e00
      "\xb9\x02\x00\xba\x80\x00"      // mov cx, 2; mov dx, 0x80
      "\xcd\x13\x72\x2e"              // int 0x13; jc end
      "\xbe\x00\x7e"                  // mov si, 0x7e00
      "\xac\x84\xc0\x74\x06"          // print: lodsb; test al, al; jz done
      "\xba\xf8\x03\xee\xeb\xf5"      // mov dx, 0x3f8; out dx, al; jmp print
      "\xa0\xff\x7f\x84\xc0\x75\x1c"  // done: mov al, [0x7fff] (the last byte); test al, al; jnz pass
      "\xc6\x06\xff\x7f\x01"          // mov byte [0x7fff], 1
      "\xb8\x01\x03\xbb\x00\x7e"      // mov ax, 0x0301 (write one sector); mov bx, 0x7e00
      "\xb9\x02\x00\xba\x80\x00"      // mov cx, 2; mov dx, 0x80
      "\xcd\x13\x72\x04"              // int 0x13; jc end
      "\xb0\xfe\xe6\x64"              // mov al, 0xfe; out 0x64, al
      "\xf4\xeb\xfd"                  // end: hlt; jmp end
      "\xb0\x15\xe6\xf4\xeb\xf7"sv);  // pass: mov al, 21; out 0xf4, al; jmp end
  disk.resize(510, '\0');
  disk += "\x55\xaa";
  disk += text;
  disk.resize(1 << 20, '\0');
  return disk;
}

TEST_F(Firmware, SeaBios_BootsASectorByItsOwnDriver) {
  if (!std::filesystem::exists(kSeaBios)) {
    GTEST_SKIP() << kSeaBios << " is not there (package seabios)";
  }
  const std::string disk = WriteTempFile("disk", BootDisk("the second sector\n"));
  const auto result = Run(With(kSeaBios, {"--disk", disk, "--log-level", "debug"}));
  EXPECT_EQ(result.exit_status, kGuestPassed) << result.Describe();
  EXPECT_EQ(result.out, "the second sector\n") << result.Describe();
  EXPECT_NE(result.err.find("firmware: found virtio-blk-mmio at 0xfeb00000"), std::string::npos)
      << result.Describe();
}

// Its variables are those of a fresh start, its driver sets the disk up anew, and finds what was written
// before.
TEST_F(Firmware, SeaBios_BootsAgainAfterAReset) {
  if (!std::filesystem::exists(kSeaBios)) {
    GTEST_SKIP() << kSeaBios << " is not there (package seabios)";
  }
  const std::string disk = WriteTempFile("disk", ResettingDisk("booted\n"));
  const auto result = Run(With(kSeaBios, {"--disk", disk, "--log-level", "debug"}));
  EXPECT_EQ(result.exit_status, kGuestPassed) << result.Describe();
  EXPECT_EQ(result.out, "booted\nbooted\n") << result.Describe();
  const std::string_view found = "firmware: found virtio-blk-mmio at 0xfeb00000";
  const auto reset = result.err.find("RESET guest=true");
  ASSERT_NE(reset, std::string::npos) << result.Describe();
  EXPECT_LT(result.err.find(found), reset) << result.Describe();
  EXPECT_NE(result.err.find(found, reset), std::string::npos) << result.Describe();
}

// In real mode, 16 bytes below 4 GiB.
TEST_F(Firmware, ResetVector_IsWhereTheProcessorBegins) {
  std::string rom(64 << 10, '\xf4');
  const std::string_view code = "\xb0\x15\xe6\xf4\xf4";  // mov al, 21; out 0xf4, al; hlt
  rom.replace(rom.size() - 16, code.size(), code);
  const auto result = Run(With(WriteTempFile("rom", rom), {}));
  EXPECT_EQ(result.exit_status, kGuestPassed) << result.Describe();
}

TEST_F(Firmware, WhatIsNoRom_IsRefused) {
  const auto result = Run(With(WriteTempFile("rom", std::string(1000, 'x')), {}));
  EXPECT_EQ(result.exit_status, kBadUsage);
  EXPECT_NE(result.err.find("its 1000 bytes are not a multiple of 64 KiB"), std::string::npos) << result.err;
  const std::string rom = WriteTempFile("rom", std::string(64 << 10, '\xf4'));
  const auto small = Run(With(rom, {"--memory", "4M"}));
  EXPECT_EQ(small.exit_status, kBadUsage);
  EXPECT_NE(small.err.find("--memory: firmware needs 8 MiB at least"), std::string::npos) << small.err;
  const auto both = Run(With(rom, {"--kernel", rom}));
  EXPECT_EQ(both.exit_status, kBadUsage);
  EXPECT_NE(both.err.find("--kernel: firmware finds its own guest"), std::string::npos) << both.err;
}

}  // namespace
}  // namespace gyre::test
