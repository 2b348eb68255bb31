// What a network device looks like to its driver (virtio 1.2, 5.1), and what the two
// tell each other. Private.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "gyre/base/endian.h"
#include "gyre/base/types.h"
#include "gyre/devices/virtio/net.h"

namespace gyre::virtio {

// 5.1.3; USO is 1.3's.
inline constexpr std::uint64_t kNetCsum = 1ULL << 0;
inline constexpr std::uint64_t kNetGuestCsum = 1ULL << 1;
inline constexpr std::uint64_t kNetCtrlGuestOffloads = 1ULL << 2;
inline constexpr std::uint64_t kNetMtu = 1ULL << 3;
inline constexpr std::uint64_t kNetMac = 1ULL << 5;
inline constexpr std::uint64_t kNetGuestTso4 = 1ULL << 7;
inline constexpr std::uint64_t kNetGuestTso6 = 1ULL << 8;
inline constexpr std::uint64_t kNetGuestEcn = 1ULL << 9;
inline constexpr std::uint64_t kNetHostTso4 = 1ULL << 11;
inline constexpr std::uint64_t kNetHostTso6 = 1ULL << 12;
inline constexpr std::uint64_t kNetHostEcn = 1ULL << 13;
inline constexpr std::uint64_t kNetMergeable = 1ULL << 15;
inline constexpr std::uint64_t kNetStatus = 1ULL << 16;
inline constexpr std::uint64_t kNetCtrlQueue = 1ULL << 17;
inline constexpr std::uint64_t kNetCtrlRx = 1ULL << 18;
inline constexpr std::uint64_t kNetCtrlVlan = 1ULL << 19;
inline constexpr std::uint64_t kNetCtrlRxExtra = 1ULL << 20;
inline constexpr std::uint64_t kNetGuestAnnounce = 1ULL << 21;
inline constexpr std::uint64_t kNetMultiQueue = 1ULL << 22;
inline constexpr std::uint64_t kNetCtrlMac = 1ULL << 23;
inline constexpr std::uint64_t kNetGuestUso4 = 1ULL << 54;
inline constexpr std::uint64_t kNetGuestUso6 = 1ULL << 55;
inline constexpr std::uint64_t kNetHostUso = 1ULL << 56;

// What a back end may leave to the guest, and what the guest may leave to a back end.
inline constexpr std::uint64_t kNetGuestOffloads =
    kNetGuestCsum | kNetGuestTso4 | kNetGuestTso6 | kNetGuestEcn | kNetGuestUso4 | kNetGuestUso6;
inline constexpr std::uint64_t kNetHostOffloads =
    kNetCsum | kNetHostTso4 | kNetHostTso6 | kNetHostEcn | kNetHostUso;

using Mac = MacAddress;

// 5.1.4.
struct NetConfig {
  Mac mac{};
  Le16 status;
  Le16 max_pairs;
  Le16 mtu;
};
static_assert(WirePod<NetConfig> && sizeof(NetConfig) == 12);
inline constexpr std::uint16_t kStatusLinkUp = 1;
inline constexpr std::uint16_t kStatusAnnounce = 2;

// 5.1.6: in front of each frame.
struct NetHeader {
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  Le16 header_size;
  Le16 gso_size;
  Le16 csum_start;
  Le16 csum_offset;
  Le16 buffers;
};
static_assert(WirePod<NetHeader> && sizeof(NetHeader) == 12);
inline constexpr std::size_t kNetHeaderSize = sizeof(NetHeader);
inline constexpr std::size_t kNetBuffersAt = 10;  // `buffers` within it

inline constexpr std::size_t kEthernetHeader = 14;
// 64 KiB by IP's own length field, and in front of it Ethernet's header with two tags.
inline constexpr std::size_t kMaxFrame = 65535 + kEthernetHeader + 8;
inline constexpr std::size_t kMaxPacket = kNetHeaderSize + kMaxFrame;

// 5.1.6.5: a control command's class and number, and the answer.
struct NetControlHeader {
  std::uint8_t type = 0;
  std::uint8_t command = 0;
};
inline constexpr std::uint8_t kControlOk = 0;
inline constexpr std::uint8_t kControlError = 1;
enum class NetControl : std::uint8_t { kRx = 0, kMac = 1, kVlan = 2, kAnnounce = 3, kMq = 4, kOffloads = 5 };

}  // namespace gyre::virtio
