#include "gyre/base/mapping.h"

#include <sys/mman.h>

#include <cerrno>

#include "gyre/base/format.h"

namespace gyre {

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) {
      ::munmap(data_, size_);
    }
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

Result<Mapping> Mapping::Anonymous(std::size_t size, int more) {
  // Huge pages that are not reserved would be missed at their first use, by a SIGBUS.
  const int reserve = (more & MAP_HUGETLB) != 0 ? 0 : MAP_NORESERVE;
  void* data =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | reserve | more, -1, 0);
  if (data == MAP_FAILED) {
    return Fail(Error::Sys(format("mmap of {} bytes", size), errno));
  }
  return Mapping(static_cast<std::byte*>(data), size);
}

Result<Mapping> Mapping::File(int fd, std::uint64_t offset, std::size_t size, int protection, int flags) {
  void* data = ::mmap(nullptr, size, protection, flags, fd, static_cast<off_t>(offset));
  if (data == MAP_FAILED) {
    return Fail(Error::Sys(format("mmap of {} bytes of a file", size), errno));
  }
  return Mapping(static_cast<std::byte*>(data), size);
}

}  // namespace gyre
