// What firmware asks its machine by: the fw_cfg interface and the debug port. Big lock's holder.
// Reference: QEMU's docs/specs/fw_cfg.rst, the traditional interface by ports; no DMA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/devices/device.h"
#include "gyre/memory/region.h"

namespace gyre::devices {

// A selector (16 bits) at port 0x510, and behind it the data of what is selected, a byte a read at 0x511.
// What is written to the data, or lies beyond its end, is nobody's.
class FwCfg final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 2;  // ports
  enum Key : std::uint16_t {
    kSignature = 0x00,
    kId = 0x01,
    kCpus = 0x05,
    kMaxCpus = 0x0f,
    kDirectory = 0x19
  };
  static constexpr std::uint16_t kFirstFile = 0x20;
  static constexpr std::size_t kMostName = 55;  // bytes

  FwCfg();
  // Before the guest runs. A file of that name must not be there.
  void Put(std::uint16_t key, std::span<const std::byte> data);
  void AddFile(std::string_view name, std::span<const std::byte> data);

  std::string_view name() const override { return "fw-cfg"; }
  void Reset() override;
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  std::byte NextByte();

  std::map<std::uint16_t, std::vector<std::byte>> items_;
  std::uint16_t files_ = 0;
  std::uint16_t selected_ = 0;
  std::size_t at_ = 0;  // in what is selected
};

// Port 0x402: what firmware says, for the log at level debug, a line at a time.
class DebugPort final : public Device, public memory::RegionHandler {
 public:
  static constexpr std::uint64_t kSize = 1;
  static constexpr std::uint8_t kPresent = 0xe9;  // what a read gives

  std::string_view name() const override { return "debug-port"; }
  void Reset() override { line_.clear(); }
  SavedState SaveState() const override;
  bool LoadState(const SavedState& saved) override;
  std::uint64_t Read(std::uint64_t offset, unsigned size) override;
  void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

 private:
  std::string line_;
};

}  // namespace gyre::devices
