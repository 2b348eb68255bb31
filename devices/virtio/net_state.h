// What a network device's queues share, each on its own thread. Private. Any thread,
// but for what says otherwise.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/virtio/net_backend.h"
#include "devices/virtio/token_bucket.h"
#include "gyre/base/mutex.h"
#include "gyre/devices/virtio/net.h"

namespace gyre::virtio {

// Bytes and packets a second, of all queues of one direction together.
class NetLimit {
 public:
  struct Rates {
    std::uint64_t bytes = 0;  // 0: no limit
    std::uint64_t packets = 0;
  };
  explicit NetLimit(Rates rates)
      : limited_(rates.bytes != 0 || rates.packets != 0),
        bytes_(rates.bytes, std::max<std::uint64_t>(rates.bytes / 10, 1)),
        packets_(rates.packets, std::max<std::uint64_t>(rates.packets / 10, 1)) {}

  bool limited() const { return limited_; }
  // True if the next packet has to wait: then the timer, of kRealtime, is set for it.
  bool Delays(const loop::EventLoop& loop, loop::Timer& timer) {
    if (!limited_) {
      return false;
    }
    const std::int64_t now = loop.Now(loop::ClockType::kRealtime);
    const MutexLock lock(mutex_);
    const std::int64_t wait = std::max(bytes_.Wait(now), packets_.Wait(now));
    if (wait != 0) {
      timer.Set(now + wait);
    }
    return wait != 0;
  }
  void Take(std::uint64_t bytes) {
    if (limited_) {
      const MutexLock lock(mutex_);
      bytes_.Take(bytes);
      packets_.Take(1);
    }
  }

 private:
  const bool limited_;
  Mutex mutex_;
  TokenBucket bytes_ GUARDED_BY(mutex_);
  TokenBucket packets_ GUARDED_BY(mutex_);
};

// What a turn has carried.
struct NetTally {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  void Add(std::uint64_t size) {
    ++packets;
    bytes += size;
  }
};

// What one direction has carried. Not told of each packet: a locked instruction waits for all that was
// written before it, such as lines of the ring that the driver's processor has.
struct alignas(64) NetMeter {
  std::atomic<std::uint64_t> packets{0};
  std::atomic<std::uint64_t> bytes{0};
  std::atomic<std::uint64_t> dropped{0};

  void Passed(const NetTally& tally) {
    if (tally.packets != 0) {
      packets.fetch_add(tally.packets, std::memory_order_relaxed);
      bytes.fetch_add(tally.bytes, std::memory_order_relaxed);
    }
  }
  void Dropped(std::uint64_t count = 1) { dropped.fetch_add(count, std::memory_order_relaxed); }
  NetCounters::Way Read() const {
    return {.packets = packets.load(std::memory_order_relaxed),
            .bytes = bytes.load(std::memory_order_relaxed),
            .dropped = dropped.load(std::memory_order_relaxed)};
  }
};

// A queue's own copy of the filter, looked at anew when it has changed.
struct NetFilterCopy {
  NetFilter filter;
  std::uint64_t generation = 0;
};

class NetState {
 public:
  NetState(std::unique_ptr<NetBackend> back_end, const Mac& mac, NetLimit::Rates to_guest_rates,
           NetLimit::Rates from_guest_rates)
      : backend(std::move(back_end)),
        to_guest_limit(to_guest_rates),
        from_guest_limit(from_guest_rates),
        own_mac(mac) {
    Reset(0);
  }

  // As after the driver has negotiated these features: the filter lets all through, one pair.
  void Reset(std::uint64_t driver_features);
  NetFilter filter() const;
  void SetFilter(const NetFilter& filter);
  void Refresh(NetFilterCopy& copy) const;
  // What of kNetGuestOffloads the driver takes now.
  void SetOffloads(std::uint64_t wanted);
  void SetPairs(unsigned count);

  NetMeter to_guest;
  NetMeter from_guest;
  const std::unique_ptr<NetBackend> backend;
  NetLimit to_guest_limit;
  NetLimit from_guest_limit;
  std::atomic<std::uint64_t> features{0};        // the driver's
  std::atomic<std::uint64_t> guest_offloads{0};  // of them those that are in use
  std::atomic<unsigned> pairs{1};                // in use
  std::atomic<bool> carrier{false};              // packets go through; else they are dropped
  std::atomic<bool> announce{false};             // asked for, and not acknowledged
  const Mac own_mac;                             // until the driver says another

 private:
  mutable Mutex mutex_;
  NetFilter filter_ GUARDED_BY(mutex_);
  std::atomic<std::uint64_t> generation_{1};
};

// Whether a frame is for the guest. `start`: its first 18 bytes, or all it has.
bool Accepts(const NetFilter& filter, std::span<const std::uint8_t> start);

// Carries out one command of the control queue (5.1.6.5): true if the driver's wish was
// granted. The control queue's loop.
bool RunNetControl(NetState& state, const Chain& chain);

// A queue's turn is over.
enum class NetServed : std::uint8_t {
  kNeedsChains,  // the driver has to offer more
  kWaits,        // for the back end or for time; the queue is served again when it should be
  kMore,         // others' turn; there is more to do
};

}  // namespace gyre::virtio
