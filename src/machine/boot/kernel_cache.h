// Unpacked kernels of bzImages, kept between starts. A directory of its owner's alone holds
//
//   SHA256            the ELF file that a payload with this sum unpacks to, and a trailer (kernel_cache.cc)
//   by-file.IDENTITY  a symbolic link whose text says which of them a bzImage has, and when that one was last
//                     written: so that neither is read whole at each start
//
// An entry whose time is not the noted one, or which nothing notes, is read whole and checked. Several
// processes share a directory: entries appear whole, whoever unpacks holds the directory's lock, and one that
// is removed stays with those who have it open. Main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gyre/base/result.h"
#include "gyre/base/sha256.h"
#include "gyre/base/unique_fd.h"
#include "src/machine/boot/image_file.h"
#include "src/machine/boot/payload.h"

namespace gyre::machine::boot {

class KernelCache {
 public:
  // Makes the directory, and those above it, where they are missing. An error where others than its owner,
  // or another than us, may write there. `limit`: what the entries may take, in bytes.
  static Result<KernelCache> Open(const std::string& path, std::uint64_t limit);

  // The kernel that `image` is known to have. Nothing where it must be looked at.
  std::optional<ImageFile> FindKnown(const ImageFile& image) const;
  // The kernel in `image`'s payload: checked if it is there, else unpacked. A damaged entry is replaced, and
  // told by a warning. An error where the payload is broken, or the directory cannot take it.
  Result<ImageFile> Get(const ImageFile& image, const Payload& payload) const;

 private:
  class Lock;

  KernelCache(std::string path, UniqueFd fd, std::uint64_t limit)
      : path_(std::move(path)), fd_(std::move(fd)), limit_(limit) {}

  Error Failed(std::string_view what) const;
  // The entry if it is there and whole; a warning if it is there and not.
  std::optional<ImageFile> FindChecked(const ImageFile& image, const Sha256Digest& sum) const;
  Status Store(const Sha256Digest& sum, std::span<const std::byte> elf) const;
  void Note(const ImageFile& image, const Sha256Digest& sum, const ImageFile& entry) const;
  // Removes what a crash left, links that are too many, and the entries longest unused beyond the limit
  // less `coming` bytes.
  void Tidy(std::uint64_t coming) const;

  std::string path_;
  UniqueFd fd_;
  std::uint64_t limit_;
};

}  // namespace gyre::machine::boot
