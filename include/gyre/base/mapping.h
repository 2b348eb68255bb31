// An owned memory mapping. Move-only; unmaps at destruction. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "gyre/base/result.h"

namespace gyre {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  // mmap(2) with MAP_PRIVATE | MAP_ANONYMOUS and `more` flags; only huge pages are reserved.
  static Result<Mapping> Anonymous(std::size_t size, int more = 0);
  // mmap(2) of a file's or device's [offset, offset + size); `flags` is MAP_SHARED or MAP_PRIVATE.
  static Result<Mapping> File(int fd, std::uint64_t offset, std::size_t size, int protection, int flags);

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  Mapping(std::byte* data, std::size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace gyre
