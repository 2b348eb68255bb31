#include "src/machine/boot/image_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"

namespace gyre::machine::boot {

Result<ImageFile> ImageFile::Open(std::string_view role, const std::string& path) {
  std::string name = format("{} {}", role, path);
  // Non-blocking, so that a FIFO is refused below instead of waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    return Fail(Error::Sys(name, errno, ErrorKind::kUsage));
  }
  return Adopt(std::move(name), UniqueFd(fd));
}

Result<ImageFile> ImageFile::Adopt(std::string name, UniqueFd fd) {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) {
    return Fail(Error::Sys(name, errno));
  }
  if (!S_ISREG(status.st_mode)) {
    return Fail(Error::Usage(format("{}: is not a regular file", name)));
  }
  if (status.st_size <= 0) {
    return Fail(Error::Usage(format("{}: is empty", name)));
  }
  return ImageFile(std::move(name), std::move(fd), static_cast<std::uint64_t>(status.st_size));
}

std::string_view ImageFile::base_name() const {
  const std::string_view path = std::string_view(name_).substr(name_.find(' ') + 1);
  const auto slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

Error ImageFile::Bad(std::string_view message) const {
  return Error::Usage(format("{}: {}", name_, message));
}

Result<std::size_t> ImageFile::ReadUpTo(std::uint64_t offset, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const auto at = CheckedAdd<std::uint64_t>(offset, done);
    if (!at || *at > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) {
      break;
    }
    const ssize_t got = ::pread(fd_.get(), out.data() + done, out.size() - done, static_cast<off_t>(*at));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return Fail(Error::Sys(format("{}: read at {:#x}", name_, *at), errno));
    }
    if (got == 0) {
      break;
    }
    done += static_cast<std::size_t>(got);
  }
  return done;
}

Status ImageFile::Read(std::uint64_t offset, std::span<std::byte> out, std::string_view what) const {
  if (TRY(ReadUpTo(offset, out)) != out.size()) {
    return Fail(Bad(format("truncated: {} ({} bytes at offset {:#x}) reaches beyond the file's {} bytes",
                           what, out.size(), offset, size_)));
  }
  return {};
}

Status ImageFile::PlaceAt(const memory::GuestRam& ram, GuestAddress start, std::uint64_t offset,
                          std::uint64_t size) const {
  // A reset may come long after the file was checked; a mapping beyond its end would be a SIGBUS.
  struct stat status{};
  if (::fstat(fd_.get(), &status) != 0) {
    return Fail(Error::Sys(name_, errno));
  }
  if (!FitsWithin(offset, size, static_cast<std::uint64_t>(std::max<off_t>(status.st_size, 0)))) {
    return Fail(Bad(format("has shrunk to {} bytes, it had {}", status.st_size, size_)));
  }
  auto placed = ram.PlaceFile(start, fd_.get(), offset, size);
  if (!placed) {
    return Fail(std::move(placed).error().Within(name_));
  }
  return {};
}

}  // namespace gyre::machine::boot
