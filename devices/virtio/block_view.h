// What the host's page cache has of an image, as memory of ours: to be copied from without a system call. For
// what it does not have, the copying thread waits. Private.
//
// A page that cannot be had (the file has become shorter, the disk has an error) is exchanged for one of
// zeros as it is touched (gyre/base/bus_error.h), and the view is of no use from then on. Of the page in
// which a file that has become shorter now ends, the rest reads as zeros.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>

#include "gyre/base/bus_error.h"
#include "gyre/base/mapping.h"

namespace gyre::virtio {

class ImageView {
 public:
  enum class Outcome : std::uint8_t {
    kCopied,
    kNotThere,    // a page of the image cannot be had; the kernel's read says why
    kMemoryLost,  // nor one of the guest's; its own guard has told of it
  };

  // Of the file's first `size` bytes. Null where none is to be had.
  static std::unique_ptr<const ImageView> Map(int fd, std::uint64_t size);

  // [offset, offset + bytes) is in it, and none of the view has turned out not to be there. Any thread.
  bool Has(std::uint64_t offset, std::uint64_t bytes) const;
  // Asks for the cache lines of [offset, offset + bytes), or of the first of them: who copies something else
  // first finds them at hand then. Any offset.
  void Prefetch(std::uint64_t offset, std::uint64_t bytes) const;
  // Copies from `offset` on to guest memory; Has knows of it. Any thread.
  Outcome Read(std::uint64_t offset, std::span<const iovec> into) const;

 private:
  ImageView(Mapping mapping, std::unique_ptr<BusErrors> errors);

  Mapping mapping_;
  std::unique_ptr<BusErrors> errors_;
  BusErrorGuard guard_;
};

}  // namespace gyre::virtio
