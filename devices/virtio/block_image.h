// A disk's image: a regular file or a block device, opened, locked and measured. Private.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "devices/virtio/block_view.h"
#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "gyre/loop/async_op.h"

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
  bool carried_here = false;  // I/O threads have it, and may carry transfers out themselves
};

struct BlockImage {
  // Has the lock and does nothing else: what a ring holds is closed a while after its process has ended, and
  // whoever starts that anew at once would find it locked.
  UniqueFd lock;
  UniqueFd fd;                     // through the page cache
  UniqueFd direct;                 // past it (O_DIRECT); nothing but with CacheMode::kNone
  std::uint64_t size = 0;          // bytes, whole sectors
  std::uint32_t alignment = 1;     // of memory, offsets and sizes that `direct` takes
  std::uint32_t block_size = 512;  // what the host writes without reading first
  // A thread may carry small writes through `fd` out itself (WritesHere), as far as file and options go.
  bool small_writes_here = false;
  // What the page cache has of it, where a thread may carry reads out itself (ReadsHere); else null.
  std::unique_ptr<const ImageView> view;

  // Errors are of kind kUsage. The lock is an open file description's (fcntl(2),
  // F_OFD_SETLK), on all of the file, and goes with `lock`: for writing it
  // excludes everybody, for reading those who write.
  static Result<BlockImage> Open(const ImageOptions& options);
  // A file is made longer or shorter; a block device has to have that size already. An error changes nothing
  // here.
  Status Resize(const ImageOptions& options, std::uint64_t bytes);

 private:
  void DecideWhatIsCarriedHere(const ImageOptions& options);
};

// An image's files as operations on one loop name them: registered with its ring, which looks
// each up once. Gone before the image's own, or before that changes. That loop's thread.
struct ImageFiles {
  ImageFiles(loop::EventLoop& loop, const BlockImage& image) : cached(loop, image.fd.get()) {
    if (image.direct) {
      direct.emplace(loop, image.direct.get());
    }
  }
  loop::RegisteredFile cached;
  std::optional<loop::RegisteredFile> direct;
};

}  // namespace gyre::virtio
