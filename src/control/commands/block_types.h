// The types of the disks' commands: the shapes of QEMU 7.2's. Private to the family.
#pragma once

#include <array>

#include "src/control/type.h"

namespace gyre::control {

inline constexpr std::array<std::string_view, 3> kIoStatusValues{"ok", "failed", "nospace"};
inline constexpr Type kIoStatus = EnumType("BlockDeviceIoStatus", kIoStatusValues);
inline constexpr std::array<std::string_view, 3> kDetectZeroesValues{"off", "on", "unmap"};
inline constexpr Type kDetectZeroes = EnumType("BlockdevDetectZeroesOptions", kDetectZeroesValues);
inline constexpr std::array<std::string_view, 3> kReadOnlyModeValues{"retain", "read-only", "read-write"};
inline constexpr Type kReadOnlyMode = EnumType("BlockdevChangeReadOnlyMode", kReadOnlyModeValues);
inline constexpr std::array kCacheMembers{Member{"writeback", &kBoolean, "a write may wait for a flush"},
                                          Member{"direct", &kBoolean, "past the page cache"},
                                          Member{"no-flush", &kBoolean, "flushes are ignored"}};
inline constexpr Type kCache = ObjectType("BlockdevCacheInfo", kCacheMembers);
inline constexpr std::array kImageMembers{
    Member{"filename", &kString, ""}, Member{"format", &kString, ""},
    Member{"virtual-size", &kUnsigned, "bytes, as the guest sees it"},
    Member{"actual-size", &kUnsigned, "bytes that it takes on the host", kOptional},
    Member{"dirty-flag", &kBoolean, "always false", kOptional}};
inline constexpr Type kImage = ObjectType("ImageInfo", kImageMembers);
inline constexpr std::array kInsertedMembers{
    Member{"file", &kString, ""},
    Member{"node-name", &kString, "", kOptional},
    Member{"ro", &kBoolean, "read only"},
    Member{"drv", &kString, "always raw"},
    Member{"backing_file_depth", &kUnsigned, ""},
    Member{"encrypted", &kBoolean, ""},
    Member{"detect_zeroes", &kDetectZeroes, ""},
    Member{"write_threshold", &kUnsigned, ""},
    Member{"cache", &kCache, ""},
    Member{"image", &kImage, ""},
    Member{"bps", &kUnsigned, "bytes a second; 0: no limit"},
    Member{"bps_max", &kUnsigned, "how many at once", kOptional},
    Member{"bps_rd", &kUnsigned, "bytes a second, reading; 0: no limit"},
    Member{"bps_rd_max", &kUnsigned, "how many at once", kOptional},
    Member{"bps_wr", &kUnsigned, "bytes a second, writing; 0: no limit"},
    Member{"bps_wr_max", &kUnsigned, "how many at once", kOptional},
    Member{"iops", &kUnsigned, "requests a second; 0: no limit"},
    Member{"iops_max", &kUnsigned, "how many at once", kOptional},
    Member{"iops_rd", &kUnsigned, "requests a second, reading; 0: no limit"},
    Member{"iops_rd_max", &kUnsigned, "how many at once", kOptional},
    Member{"iops_wr", &kUnsigned, "requests a second, writing; 0: no limit"},
    Member{"iops_wr_max", &kUnsigned, "how many at once", kOptional},
    Member{"iops_size", &kUnsigned, "bytes that count as one request", kOptional},
    Member{"group", &kString, "of its limits", kOptional}};
inline constexpr Type kInserted = ObjectType("BlockDeviceInfo", kInsertedMembers);
inline constexpr Type kNodes = ArrayType("array of BlockDeviceInfo", kInserted);
inline constexpr std::array kNodesMembers{
    Member{"flat", &kBoolean, "without backing files, of which there are none", kOptional}};
inline constexpr Type kNodesArguments = ObjectType("query-named-block-nodes arguments", kNodesMembers);
inline constexpr std::array kBlockMembers{
    Member{"device", &kString, "the disk's id"},
    Member{"qdev", &kString, "its name for others", kOptional},
    Member{"type", &kString, ""},
    Member{"removable", &kBoolean, ""},
    Member{"locked", &kBoolean, ""},
    Member{"inserted", &kInserted, "its image", kOptional},
    Member{"io-status", &kIoStatus, "where an error may stop the VM", kOptional}};
inline constexpr Type kBlock = ObjectType("BlockInfo", kBlockMembers);
inline constexpr Type kBlocks = ArrayType("array of BlockInfo", kBlock);

inline constexpr Type kUnsigneds = ArrayType("array of unsigned integer", kUnsigned);
inline constexpr std::array kLatencyMembers{
    Member{"boundaries", &kUnsigneds, "ns"},
    Member{"bins", &kUnsigneds, "requests between them, from 0 and to infinity"}};
inline constexpr Type kLatency = ObjectType("BlockLatencyHistogramInfo", kLatencyMembers);
inline constexpr Type kAnys = ArrayType("array of any", kAny);
inline constexpr std::array kDeviceStatsMembers{
    Member{"rd_operations", &kUnsigned, "reading"},
    Member{"rd_bytes", &kUnsigned, ""},
    Member{"rd_total_time_ns", &kUnsigned, ""},
    Member{"rd_merged", &kUnsigned, "carried out with their neighbours"},
    Member{"failed_rd_operations", &kUnsigned, "by the host"},
    Member{"invalid_rd_operations", &kUnsigned, "not what a driver sends"},
    Member{"rd_latency_histogram", &kLatency, "", kOptional},
    Member{"wr_operations", &kUnsigned, "writing"},
    Member{"wr_bytes", &kUnsigned, ""},
    Member{"wr_total_time_ns", &kUnsigned, ""},
    Member{"wr_merged", &kUnsigned, "carried out with their neighbours"},
    Member{"failed_wr_operations", &kUnsigned, "by the host"},
    Member{"invalid_wr_operations", &kUnsigned, "not what a driver sends"},
    Member{"wr_latency_histogram", &kLatency, "", kOptional},
    Member{"flush_operations", &kUnsigned, "flushes"},
    Member{"flush_total_time_ns", &kUnsigned, ""},
    Member{"failed_flush_operations", &kUnsigned, "by the host"},
    Member{"invalid_flush_operations", &kUnsigned, "not what a driver sends"},
    Member{"flush_latency_histogram", &kLatency, "", kOptional},
    Member{"unmap_operations", &kUnsigned, "discards"},
    Member{"unmap_bytes", &kUnsigned, ""},
    Member{"unmap_total_time_ns", &kUnsigned, ""},
    Member{"unmap_merged", &kUnsigned, "always 0"},
    Member{"failed_unmap_operations", &kUnsigned, "by the host"},
    Member{"invalid_unmap_operations", &kUnsigned, "not what a driver sends"},
    Member{"unmap_latency_histogram", &kLatency, "", kOptional},
    Member{"wr_highest_offset", &kUnsigned, "bytes"},
    Member{"idle_time_ns", &kUnsigned, "since the last answer", kOptional},
    Member{"account_invalid", &kBoolean, ""},
    Member{"account_failed", &kBoolean, ""},
    Member{"timed_stats", &kAnys, "always empty"}};
inline constexpr Type kDeviceStats = ObjectType("BlockDeviceStats", kDeviceStatsMembers);
inline constexpr std::array kBlockStatsMembers{
    Member{"device", &kString, "the disk's id", kOptional}, Member{"qdev", &kString, "", kOptional},
    Member{"node-name", &kString, "", kOptional}, Member{"stats", &kDeviceStats, ""}};
inline constexpr Type kBlockStats = ObjectType("BlockStats", kBlockStatsMembers);
inline constexpr Type kBlockStatsList = ArrayType("array of BlockStats", kBlockStats);

inline constexpr std::array kStatsArgumentsMembers{
    Member{"query-nodes", &kBoolean, "makes no difference", kOptional}};
inline constexpr Type kStatsArguments = ObjectType("query-blockstats arguments", kStatsArgumentsMembers);
inline constexpr std::array kResizeArgumentsMembers{
    Member{"device", &kString, "the disk's id", kOptional},
    Member{"node-name", &kString, "or its image's", kOptional},
    Member{"size", &kInteger, "bytes, whole blocks"}};
inline constexpr Type kResizeArguments = ObjectType("block_resize arguments", kResizeArgumentsMembers);
inline constexpr std::array kChangeArgumentsMembers{
    Member{"device", &kString, "the disk's id", kOptional},
    Member{"id", &kString, "or its path", kOptional},
    Member{"filename", &kString, "the image"},
    Member{"format", &kString, "raw", kOptional},
    Member{"force", &kBoolean, "makes no difference", kOptional},
    Member{"read-only-mode", &kReadOnlyMode, "as the disk is", kOptional}};
inline constexpr Type kChangeArguments =
    ObjectType("blockdev-change-medium arguments", kChangeArgumentsMembers);
inline constexpr std::array kThrottleArgumentsMembers{
    Member{"device", &kString, "the disk's id", kOptional},
    Member{"id", &kString, "or its path", kOptional},
    Member{"bps", &kUnsigned, "bytes a second; 0: no limit"},
    Member{"bps_rd", &kUnsigned, "bytes a second, reading; 0: no limit"},
    Member{"bps_wr", &kUnsigned, "bytes a second, writing; 0: no limit"},
    Member{"iops", &kUnsigned, "requests a second; 0: no limit"},
    Member{"iops_rd", &kUnsigned, "requests a second, reading; 0: no limit"},
    Member{"iops_wr", &kUnsigned, "requests a second, writing; 0: no limit"},
    Member{"bps_max", &kUnsigned, "bytes a second in a burst", kOptional},
    Member{"bps_rd_max", &kUnsigned, "bytes a second in a burst", kOptional},
    Member{"bps_wr_max", &kUnsigned, "bytes a second in a burst", kOptional},
    Member{"iops_max", &kUnsigned, "requests a second in a burst", kOptional},
    Member{"iops_rd_max", &kUnsigned, "requests a second in a burst", kOptional},
    Member{"iops_wr_max", &kUnsigned, "requests a second in a burst", kOptional},
    Member{"bps_max_length", &kUnsigned, "seconds that a burst may last (1)", kOptional},
    Member{"bps_rd_max_length", &kUnsigned, "seconds that a burst may last (1)", kOptional},
    Member{"bps_wr_max_length", &kUnsigned, "seconds that a burst may last (1)", kOptional},
    Member{"iops_max_length", &kUnsigned, "seconds that a burst may last (1)", kOptional},
    Member{"iops_rd_max_length", &kUnsigned, "seconds that a burst may last (1)", kOptional},
    Member{"iops_wr_max_length", &kUnsigned, "seconds that a burst may last (1)", kOptional},
    Member{"iops_size", &kUnsigned, "bytes that count as one request", kOptional},
    Member{"group", &kString, "of disks that share the limits", kOptional}};
inline constexpr Type kThrottleArguments =
    ObjectType("block_set_io_throttle arguments", kThrottleArgumentsMembers);

}  // namespace gyre::control
