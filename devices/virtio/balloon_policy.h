// How much a balloon that follows the host's pressure asks its guest for. Pure, but for the file
// that tells the pressure. Private. Main loop's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace gyre::virtio {

// Bytes.
struct BalloonLimits {
  std::uint64_t limit = 0;    // that are taken by itself, with what an operator asked for, at most
  std::uint64_t reserve = 0;  // that the guest is to have available
};

// A file of the kernel's pressure stall information: /proc/pressure/memory, or a cgroup's memory.pressure.
class HostPressure {
 public:
  explicit HostPressure(std::string path) : path_(std::move(path)) {}
  const std::string& path() const { return path_; }
  // Reads it: of a thousand parts of the time since the last call, in how many somebody waited for memory.
  // Nothing where the file does not tell. At `now_ns` of a clock that goes on.
  std::optional<std::uint32_t> Look(std::int64_t now_ns);
  // What the last Look said.
  std::uint32_t permille() const { return permille_; }

 private:
  std::string path_;
  std::optional<std::uint64_t> total_us_;
  std::int64_t looked_ns_ = 0;
  std::uint32_t permille_ = 0;
};

class BalloonPolicy {
 public:
  static constexpr std::uint32_t kShort = 100;  // permille from which on the guest is asked for more
  static constexpr std::uint32_t kCalm = 10;    // up to which it gets some back, after
  static constexpr unsigned kCalmTurns = 5;     // so many times in a row
  static constexpr std::uint64_t kSteps = 16;   // from nothing to the limit, at least
  static constexpr std::uint64_t kLeastStep = std::uint64_t{16} << 20;

  struct Turn {
    std::uint32_t permille = 0;
    std::uint64_t least = 0;               // what an operator asked for
    std::uint64_t target = 0;              // what the guest is asked for now
    std::uint64_t size = 0;                // what it has given
    std::uint64_t available = UINT64_MAX;  // to it; UINT64_MAX: it has not told
  };

  explicit BalloonPolicy(BalloonLimits limits) : limits_(limits) {}
  const BalloonLimits& limits() const { return limits_; }
  // What to ask for from now on. A guest that does not tell what it has is not asked for more; one that has
  // not given yet what it was asked for is left to it; one that has less than half its reserve gets some back
  // whatever the host's pressure is.
  std::uint64_t Next(const Turn& turn);

 private:
  BalloonLimits limits_;
  unsigned calm_ = 0;  // turns
};

}  // namespace gyre::virtio
