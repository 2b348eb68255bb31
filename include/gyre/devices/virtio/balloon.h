// A balloon as the machine and its clients see it. Big lock held.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace gyre::virtio {

// What a guest tells of its memory (virtio 1.2, 5.5.6.4), by the tags' numbers.
inline constexpr std::array<std::string_view, 10> kBalloonStatNames = {
    "stat-swap-in",      "stat-swap-out",     "stat-major-faults",     "stat-minor-faults",
    "stat-free-memory",  "stat-total-memory", "stat-available-memory", "stat-disk-caches",
    "stat-htlb-pgalloc", "stat-htlb-pgfail"};
inline constexpr std::uint64_t kBalloonStatUnknown = UINT64_MAX;

struct BalloonStats {
  std::array<std::uint64_t, kBalloonStatNames.size()> values{};
  std::int64_t updated_s = 0;  // seconds since the epoch; 0: never
};

// How a balloon that follows the host's pressure stands.
struct BalloonAuto {
  std::uint64_t limit = 0;     // bytes that it takes at most
  std::uint64_t reserve = 0;   // bytes that the guest is to have available
  std::uint32_t permille = 0;  // of the last interval somebody on the host waited for memory
  std::uint64_t least = 0;     // bytes that an operator asked for, below which it does not go
};

class Balloon {
 public:
  // Bytes that the guest is to give, whole pages; it does so in its own time.
  virtual void SetTarget(std::uint64_t bytes) = 0;
  virtual std::uint64_t target() const = 0;
  // Nothing where it does what it is told alone.
  virtual std::optional<BalloonAuto> automatic() const = 0;
  virtual std::uint64_t size() const = 0;      // bytes that it says it has given
  virtual std::uint64_t returned() const = 0;  // bytes that the host has got back, since the start
  // The guest's driver has it.
  virtual bool in_use() const = 0;
  // Seconds between two times that the guest is asked; 0: it is not.
  virtual void SetStatsInterval(std::uint32_t seconds) = 0;
  virtual std::uint32_t stats_interval() const = 0;
  virtual BalloonStats stats() const = 0;

 protected:
  ~Balloon() = default;
};

}  // namespace gyre::virtio
