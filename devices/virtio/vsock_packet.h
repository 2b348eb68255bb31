// A vsock device's numbers, a packet's header (virtio 1.2, 5.10), and what the parts of the
// device count together. Private.
#pragma once

#include <atomic>
#include <cstdint>

#include "gyre/base/endian.h"
#include "gyre/base/types.h"

namespace gyre::virtio {

inline constexpr std::uint32_t kVsockDeviceId = 19;  // 5
// 5.10.2.
inline constexpr unsigned kVsockReceiveQueue = 0;
inline constexpr unsigned kVsockTransmitQueue = 1;
inline constexpr unsigned kVsockEventQueue = 2;
inline constexpr unsigned kVsockQueues = 3;

struct VsockHeader {
  Le64 src_cid;
  Le64 dst_cid;
  Le32 src_port;
  Le32 dst_port;
  Le32 len;  // of the payload behind it
  Le16 type;
  Le16 op;
  Le32 flags;
  Le32 buf_alloc;  // 5.10.6.3: the sender's buffer for this connection,
  Le32 fwd_cnt;    // and how much of what came into it has gone on
};
static_assert(WirePod<VsockHeader> && sizeof(VsockHeader) == 44);

enum class VsockOp : std::uint16_t {
  kRequest = 1,
  kResponse = 2,
  kReset = 3,
  kShutdown = 4,
  kData = 5,
  kCreditUpdate = 6,
  kCreditRequest = 7,
};
// Types: bytes, or messages (SOCK_SEQPACKET).
inline constexpr std::uint16_t kVsockStream = 1;
inline constexpr std::uint16_t kVsockSequenced = 2;
inline constexpr std::uint64_t kVsockHostCid = 2;
// 5.10.3.
inline constexpr std::uint64_t kVsockFeatureStream = 1;
inline constexpr std::uint64_t kVsockFeatureSequenced = 2;
// 5.10.6.5: flags of kShutdown, which last.
inline constexpr std::uint32_t kVsockNoReceive = 1;
inline constexpr std::uint32_t kVsockNoSend = 2;
inline constexpr std::uint32_t kVsockNothing = kVsockNoReceive | kVsockNoSend;
// 5.10.6.6: flags of kData, where there are messages: the last packet of one, and that of a record.
inline constexpr std::uint32_t kVsockEndOfMessage = 1;
inline constexpr std::uint32_t kVsockEndOfRecord = 2;

// Written on the device's loop, read anywhere.
struct VsockMeter {
  std::atomic<std::uint64_t> connections{0};
  std::atomic<std::uint64_t> opened{0};
  std::atomic<std::uint64_t> refused{0};
  std::atomic<std::uint64_t> violations{0};
  std::atomic<std::uint64_t> to_guest{0};
  std::atomic<std::uint64_t> from_guest{0};
};

}  // namespace gyre::virtio
