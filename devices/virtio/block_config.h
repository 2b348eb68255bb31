// What a block device looks like to its driver (virtio 1.2, 5.2.4), and what it may ask. Private.
#pragma once

#include <cstdint>

#include "gyre/base/endian.h"

namespace gyre::virtio {

inline constexpr std::uint64_t kSectorSize = 512;  // the unit of all numbers but blk_size

// 5.2.3.
inline constexpr std::uint64_t kBlockSegMax = 1ULL << 2;
inline constexpr std::uint64_t kBlockReadonly = 1ULL << 5;
inline constexpr std::uint64_t kBlockSize = 1ULL << 6;
inline constexpr std::uint64_t kBlockFlush = 1ULL << 9;
inline constexpr std::uint64_t kBlockTopology = 1ULL << 10;
inline constexpr std::uint64_t kBlockMultiQueue = 1ULL << 12;
inline constexpr std::uint64_t kBlockDiscard = 1ULL << 13;
inline constexpr std::uint64_t kBlockWriteZeroes = 1ULL << 14;

// 5.2.4.
struct BlockConfig {
  Le64 capacity;  // sectors
  Le32 size_max;
  Le32 seg_max;
  Le16 cylinders;
  std::uint8_t heads = 0;
  std::uint8_t sectors = 0;
  Le32 block_size;
  std::uint8_t physical_block_exponent = 0;
  std::uint8_t alignment_offset = 0;
  Le16 min_io_size;
  Le32 optimal_io_size;
  std::uint8_t writeback = 0;
  std::uint8_t unused0 = 0;
  Le16 queues;
  Le32 max_discard_sectors;
  Le32 max_discard_segments;
  Le32 discard_alignment;
  Le32 max_write_zeroes_sectors;
  Le32 max_write_zeroes_segments;
  std::uint8_t write_zeroes_may_unmap = 0;
  std::uint8_t unused1[3] = {};
};
static_assert(WirePod<BlockConfig> && sizeof(BlockConfig) == 60);

// 5.2.6: a request's header; its status byte is the last that the device may write.
struct BlockHeader {
  Le32 type;
  Le32 reserved;
  Le64 sector;
};
static_assert(WirePod<BlockHeader> && sizeof(BlockHeader) == 16);

enum class BlockRequest : std::uint32_t {
  kRead = 0,
  kWrite = 1,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 11,
  kWriteZeroes = 13,
};
inline constexpr std::size_t kBlockIdSize = 20;

// The data of a discard and of a write zeroes.
struct BlockRange {
  Le64 sector;
  Le32 sectors;
  Le32 flags;
};
static_assert(WirePod<BlockRange> && sizeof(BlockRange) == 16);
inline constexpr std::uint32_t kUnmap = 1;

enum class BlockStatus : std::uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };

}  // namespace gyre::virtio
