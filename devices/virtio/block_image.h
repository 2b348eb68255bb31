// A disk's image: a regular file or a block device, opened, locked and measured. Private.
#pragma once

#include <cstdint>
#include <string>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::virtio {

enum class CacheMode : std::uint8_t {
  kNone,          // past the host's page cache; a flush is fdatasync(2)
  kWriteback,     // through the page cache; a flush is fdatasync(2)
  kWritethrough,  // through the page cache, each write durable by itself
  kUnsafe,        // through the page cache; a flush does nothing
};

struct ImageOptions {
  std::string path;
  bool readonly = false;
  CacheMode cache = CacheMode::kWriteback;
};

struct BlockImage {
  UniqueFd fd;                     // through the page cache
  UniqueFd direct;                 // past it (O_DIRECT); nothing but with CacheMode::kNone
  std::uint64_t size = 0;          // bytes, whole sectors
  std::uint32_t alignment = 1;     // of memory, offsets and sizes that `direct` takes
  std::uint32_t block_size = 512;  // what the host writes without reading first

  // Errors are of kind kUsage. The lock is an open file description's (fcntl(2),
  // F_OFD_SETLK), on all of the file, and goes with the descriptors: for writing it
  // excludes everybody, for reading those who write.
  static Result<BlockImage> Open(const ImageOptions& options);
  // A file is made longer or shorter; a block device has to have that size already.
  Status Resize(const ImageOptions& options, std::uint64_t bytes);

 private:
  Status Measure(const std::string& path);
};

}  // namespace gyre::virtio
