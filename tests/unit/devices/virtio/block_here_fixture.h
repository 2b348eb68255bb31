// A disk on an I/O thread that carries transfers out itself, and how many of them the kernel has had.
#pragma once

#include "gyre/base/cycles.h"
#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {

inline std::uint64_t CyclesOf(std::int64_t ns) {
  constexpr std::uint64_t kMany = std::uint64_t{1} << 40;
  return static_cast<std::uint64_t>(static_cast<double>(ns) * static_cast<double>(kMany) /
                                    static_cast<double>(CyclesToNs(kMany)));
}

class BlockHereFixture : public BlockFixture {
 protected:
  static constexpr std::uint32_t kSmall = 4096;
  static constexpr std::uint64_t kFirst = 8;  // sector

  void Start(const std::string& options = "", std::uint64_t features = kFlushFeature) {
    if (io_threads.empty()) {
      StartThreads(1);
    }
    Make(options, features);
    Bring(features, 256);
    EXPECT_EQ(ReadAt(0), kOk);  // the file is registered, the queue is watched
  }
  // By the kernel, of the disk's loop, for that.
  template <typename What>
  std::uint64_t Operations(const What& what) {
    const auto& loop = io_threads.empty() ? static_cast<loop::EventLoop&>(*loop_) : io_threads[0]->loop();
    const auto before = loop.stats().operations;
    what();
    return loop.stats().operations - before;
  }
  // A busy host may have made one slow; then the kernel has them for a while.
  template <typename What>
  bool SoonNone(const What& operations) {
    for (int attempt = 0; attempt < 300; ++attempt) {
      if (operations() == 0) {
        return true;
      }
      ::usleep(50'000);
    }
    return false;
  }
};

}  // namespace gyre::virtio
