// fw_cfg and the debug port, as firmware meets them.
#include "gyre/devices/platform/firmware.h"

#include <gtest/gtest.h>

#include <string>

#include "gyre/base/log.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

class FwCfgTest : public testing::Test {
 protected:
  void Select(unsigned key) { fw_cfg_.Write(0, 2, key); }
  std::string Take(std::size_t size) {
    std::string text;
    for (std::size_t i = 0; i < size; ++i) {
      text += static_cast<char>(fw_cfg_.Read(1, 1));
    }
    return text;
  }
  static std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

  FwCfg fw_cfg_;
};

TEST_F(FwCfgTest, Signature_IsThereAfterReset) {
  EXPECT_EQ(Take(4), "QEMU");
  EXPECT_EQ(Take(2), std::string(2, '\0')) << "beyond the end";
  Select(FwCfg::kId);
  EXPECT_EQ(Take(4), std::string("\1\0\0\0", 4)) << "no DMA";
  fw_cfg_.Reset();
  EXPECT_EQ(Take(4), "QEMU");
}

TEST_F(FwCfgTest, Selecting_BeginsAnew) {
  Select(FwCfg::kSignature);
  EXPECT_EQ(Take(2), "QE");
  Select(FwCfg::kSignature);
  EXPECT_EQ(Take(4), "QEMU");
}

TEST_F(FwCfgTest, Directory_NamesTheFiles) {
  Select(FwCfg::kDirectory);
  EXPECT_EQ(Take(4), std::string(4, '\0'));
  fw_cfg_.AddFile("etc/one", Bytes("first"));
  fw_cfg_.AddFile("etc/two", Bytes(std::string(0x102, 'x')));
  Select(FwCfg::kDirectory);
  EXPECT_EQ(Take(4), std::string("\0\0\0\2", 4));
  EXPECT_EQ(Take(8), std::string("\0\0\0\5\0\x20\0\0", 8));
  EXPECT_EQ(Take(56), "etc/one" + std::string(49, '\0'));
  EXPECT_EQ(Take(8), std::string("\0\0\1\2\0\x21\0\0", 8));
  Select(FwCfg::kFirstFile);
  EXPECT_EQ(Take(6), std::string("first\0", 6));
  Select(FwCfg::kFirstFile + 1);
  EXPECT_EQ(Take(0x102), std::string(0x102, 'x'));
}

TEST_F(FwCfgTest, WhatIsNotThere_IsZeros) {
  for (const unsigned key : {0x02U, 0x19U + 1, 0x20U, 0xffffU}) {
    Select(key);
    EXPECT_EQ(Take(3), std::string(3, '\0')) << key;
  }
  EXPECT_EQ(fw_cfg_.Read(0, 1), 0U);
}

TEST_F(FwCfgTest, Data_CannotBeWritten) {
  Select(FwCfg::kSignature);
  fw_cfg_.Write(1, 1, 'x');
  fw_cfg_.Write(0, 1, 1);  // half a selector
  EXPECT_EQ(Take(4), "QEMU");
}

TEST_F(FwCfgTest, AnyAccess_IsHarmless) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    FuzzRegisters(fw_cfg_, FwCfg::kSize, seed);
  }
}

TEST(DebugPortTest, LinesGoToTheLog_AndAreBounded) {
  DebugPort port;
  EXPECT_EQ(port.Read(0, 1), DebugPort::kPresent);
  log::SetLevel(log::Level::kDebug);
  testing::internal::CaptureStderr();
  for (const char letter : std::string("hello\x1b[31m\nnext\n") + std::string(5000, 'y')) {
    port.Write(0, 1, static_cast<std::uint8_t>(letter));
  }
  const std::string log = testing::internal::GetCapturedStderr();
  log::SetLevel(log::Level::kInfo);
  EXPECT_NE(log.find("firmware: hello?[31m\n"), std::string::npos) << log;
  EXPECT_NE(log.find("firmware: next\n"), std::string::npos) << log;
  EXPECT_EQ(log.find(std::string(201, 'y')), std::string::npos);
}

}  // namespace
}  // namespace gyre::devices
