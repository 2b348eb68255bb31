// The messages of the vhost-user protocol, by which another process is a device's back end (QEMU's
// docs/interop/vhost-user). All numbers are the host's, which is little-endian. Private.
#pragma once

#include <cstdint>
#include <string_view>

#include "gyre/base/endian.h"

namespace gyre::virtio {

enum class VhostRequest : std::uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kGetConfig = 24,
};
// "GET_FEATURES"; a literal.
std::string_view Name(VhostRequest request);

struct VhostHeader {
  Le32 request;
  Le32 flags;
  Le32 size;  // of what follows
};
static_assert(WirePod<VhostHeader> && sizeof(VhostHeader) == 12);
inline constexpr std::uint32_t kVhostVersionMask = 3;
inline constexpr std::uint32_t kVhostVersion = 1;
inline constexpr std::uint32_t kVhostReply = 1U << 2;
inline constexpr std::uint32_t kVhostNeedReply = 1U << 3;

// Of the features: there are protocol features, and rings begin disabled.
inline constexpr std::uint64_t kVhostProtocolFeatures = 1ULL << 30;
// Protocol features.
inline constexpr std::uint64_t kVhostMultiQueue = 1ULL << 0;
inline constexpr std::uint64_t kVhostReplyAck = 1ULL << 3;
inline constexpr std::uint64_t kVhostConfig = 1ULL << 9;

inline constexpr unsigned kVhostMostRegions = 8;  // of one SET_MEM_TABLE

struct VhostRegion {
  Le64 guest_address;
  Le64 size;
  Le64 user_address;
  Le64 mmap_offset;
};
static_assert(WirePod<VhostRegion> && sizeof(VhostRegion) == 32);

struct VhostVringState {
  Le32 index;
  Le32 number;
};
static_assert(WirePod<VhostVringState> && sizeof(VhostVringState) == 8);

struct VhostVringAddress {
  Le32 index;
  Le32 flags;
  Le64 descriptors;  // user addresses
  Le64 used;
  Le64 available;
  Le64 log;
};
static_assert(WirePod<VhostVringAddress> && sizeof(VhostVringAddress) == 40);

// In front of that part of the configuration space.
struct VhostConfigHeader {
  Le32 offset;
  Le32 size;
  Le32 flags;
};
static_assert(WirePod<VhostConfigHeader> && sizeof(VhostConfigHeader) == 12);
inline constexpr std::uint32_t kVhostMostConfig = 256;

}  // namespace gyre::virtio
