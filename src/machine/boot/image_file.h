// A kernel or initrd file: read by bounded pread(2), never through a mapping that
// a truncation could pull away, and shown to the guest by GuestRam::PlaceFile.
// Main thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gyre/base/endian.h"
#include "gyre/base/result.h"
#include "gyre/base/types.h"
#include "gyre/base/unique_fd.h"
#include "gyre/memory/ram.h"

namespace gyre::machine::boot {

class ImageFile {
 public:
  // `role` is "kernel" or "initrd". Only regular files that are not empty.
  static Result<ImageFile> Open(std::string_view role, const std::string& path);
  // The same of a file that is open; `name` is the beginning of messages about it.
  static Result<ImageFile> Adopt(std::string name, UniqueFd fd);

  std::uint64_t size() const { return size_; }
  // "kernel /path", the beginning of each message about it.
  const std::string& name() const { return name_; }
  // The path's last part, for guests.
  std::string_view base_name() const;
  int fd() const { return fd_.get(); }

  // A mistake in this file: "kernel /path: MESSAGE".
  Error Bad(std::string_view message) const;
  // Fills `out` from `offset`; `what` names the bytes where the file ends too early.
  Status Read(std::uint64_t offset, std::span<std::byte> out, std::string_view what) const;
  // As much as there is, at most `out`'s size; returns how much.
  Result<std::size_t> ReadUpTo(std::uint64_t offset, std::span<std::byte> out) const;
  template <WirePod T>
  Result<T> ReadAs(std::uint64_t offset, std::string_view what) const {
    T value{};
    TRY(Read(offset, std::as_writable_bytes(std::span(&value, 1)), what));
    return value;
  }
  // The file's [offset, offset + size) becomes guest RAM's [start, start + size).
  Status PlaceAt(const memory::GuestRam& ram, GuestAddress start, std::uint64_t offset,
                 std::uint64_t size) const;

 private:
  ImageFile(std::string name, UniqueFd fd, std::uint64_t size)
      : name_(std::move(name)), fd_(std::move(fd)), size_(size) {}

  std::string name_;
  UniqueFd fd_;
  std::uint64_t size_;
};

}  // namespace gyre::machine::boot
