// A bzImage's payload: the compressed vmlinux that the kernel's own decompressor would unpack in the guest
// (Documentation/arch/x86/boot.rst, payload_offset and payload_length). It is hostile: what it unpacks to is
// bounded by what the header says the kernel needs, and by us. Main thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "gyre/base/mapping.h"
#include "gyre/base/result.h"
#include "src/machine/boot/image_file.h"
#include "src/machine/boot/linux_params.h"

namespace gyre::machine::boot {

// Far above any kernel's, in bytes: Debian's unpack to 55 MiB.
inline constexpr std::uint64_t kMaxUnpacked = 512 * kMiB;

class Payload {
 public:
  // Reads the payload of an image whose protected-mode part is [start, start + size) of the file. Nothing
  // where the header names none, or its format is none that we unpack; an error where the header is wrong.
  static Result<std::optional<Payload>> Read(const ImageFile& file, const SetupHeader& header,
                                             std::uint64_t start, std::uint64_t size);

  std::span<const std::byte> packed() const { return packed_.bytes().first(size_); }
  // "zstd", for messages.
  std::string_view format_name() const;
  // What the image says that it unpacks to, in bytes.
  std::uint64_t unpacked_size() const { return unpacked_size_; }

  // Exactly unpacked_size() bytes; an error where the payload has less, more, or something broken.
  // The memory that it takes is that, and at most 192 MiB for the time of the call.
  Result<Mapping> Unpack() const;

 private:
  struct Format;
  static const Format* Recognise(std::span<const std::byte> packed);

  Mapping packed_;
  std::uint64_t size_ = 0;
  const Format* format_ = nullptr;
  std::uint64_t unpacked_size_ = 0;
};

}  // namespace gyre::machine::boot
