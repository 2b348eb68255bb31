// The frames of `tools/bench net`, as the guest net_bench makes and knows them: TCP segments
// over IPv4 whose checksum is left to whoever puts them on a wire. Addresses are nobody's, so
// that the host's own stack drops them at once.
#pragma once

#include <netinet/in.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gyre::bench {

inline constexpr std::size_t kFrameHeaders = 14 + 20 + 20;  // Ethernet, IPv4, TCP
inline constexpr std::size_t kMarkAt = 14 + 20 + 4;         // TCP's sequence number
inline constexpr std::uint32_t kMark = 0x67797265;          // "gyre", as it stands there
inline constexpr std::size_t kCountAt = kFrameHeaders;      // of the frame, in the sender's byte order
inline constexpr std::size_t kLeastFrame = kCountAt + 8;
inline constexpr std::size_t kMostPlainFrame = 1514;  // those beyond are for the receiver to segment
inline constexpr std::uint16_t kSegment = 1448;       // so much of TCP in each
inline constexpr std::size_t kMostFrame = 65536;
inline constexpr std::uint64_t kLastFrame = ~std::uint64_t{0};  // a count: the guest ends

// In front of each frame (virtio 1.2, 5.1.6), as taps and packet sockets have it. The kernel's own header is
// C alone.
struct NetHeader {
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  std::uint16_t hdr_len = 0;
  std::uint16_t gso_size = 0;
  std::uint16_t csum_start = 0;
  std::uint16_t csum_offset = 0;
};
static_assert(sizeof(NetHeader) == 10);

// A large frame's count is of its headers, as a TCP option would be: what follows, which starts a page, is
// what the kernel puts into pages of its own.
inline NetHeader HeaderOf(std::size_t size) {
  constexpr std::uint8_t kNeedsCsum = 1;
  constexpr std::uint8_t kGsoTcp4 = 1;
  const bool large = size > kMostPlainFrame;
  return {.flags = kNeedsCsum,
          .gso_type = large ? kGsoTcp4 : std::uint8_t{0},
          .hdr_len = static_cast<std::uint16_t>(large ? kLeastFrame : kFrameHeaders),
          .gso_size = large ? kSegment : std::uint16_t{0},
          .csum_start = 34,
          .csum_offset = 16};
}

inline void SetCount(std::uint8_t* frame, std::uint64_t count) {
  std::memcpy(frame + kCountAt, &count, sizeof(count));
}
inline std::uint64_t CountOf(const std::uint8_t* frame) {
  std::uint64_t count = 0;
  std::memcpy(&count, frame + kCountAt, sizeof(count));
  return count;
}

// Whether a frame that has come, of at least kLeastFrame bytes, was made here.
inline bool IsOurs(const std::uint8_t* frame) {
  std::uint32_t mark = 0;
  std::memcpy(&mark, frame + kMarkAt, sizeof(mark));
  return mark == htonl(kMark);
}

// The first `here` bytes of a frame of `size`.
inline void MakeFrame(std::uint8_t* frame, std::size_t here, std::size_t size) {
  std::memset(frame, 0, here);
  static constexpr std::uint8_t kEthernet[] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0};
  std::memcpy(frame, kEthernet, sizeof(kEthernet));
  frame[14] = 0x45;
  const std::uint16_t length = htons(static_cast<std::uint16_t>(size - 14));
  std::memcpy(frame + 16, &length, sizeof(length));
  frame[22] = 64;
  frame[23] = IPPROTO_TCP;
  frame[26] = frame[30] = 10;
  frame[29] = 1;
  frame[33] = 2;
  const std::uint32_t mark = htonl(kMark);
  std::memcpy(frame + kMarkAt, &mark, sizeof(mark));
  frame[46] = 0x50;
}
inline void MakeFrame(std::uint8_t* frame, std::size_t size) { MakeFrame(frame, size, size); }

}  // namespace gyre::bench
