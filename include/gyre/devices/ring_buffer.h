// The last output of a serial port or console, in memory, for clients to take out.
// Big lock's holder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "gyre/base/types.h"
#include "gyre/devices/char_backend.h"

namespace gyre::devices {

class RingBuffer final : public CharBackend {
 public:
  static constexpr std::size_t kUsualSize = 64 * kKiB;  // bytes
  static constexpr std::size_t kMostSize = 16 * kMiB;

  explicit RingBuffer(std::size_t size) : size_(size) {}

  // The oldest bytes, at most so many, which are gone then.
  std::string Take(std::size_t most);

  std::size_t Write(std::span<const std::uint8_t> bytes) override;
  void SetFrontend(CharFrontend* /*frontend*/) override {}
  void ResumeInput() override {}
  std::string filename() const override { return "ringbuf"; }

 private:
  const std::size_t size_;
  std::string bytes_;
};

}  // namespace gyre::devices
