#include "src/control/output_file.h"

#include <fcntl.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "gyre/base/format.h"

namespace gyre::control {
namespace {

constexpr mode_t kPermissions = 0777;

std::string Resolved(std::string path) {
  char* const real = ::realpath(path.c_str(), nullptr);
  if (real != nullptr) {
    path = real;
    std::free(real);  // NOLINT(cppcoreguidelines-no-malloc): realpath's
  }
  return path;
}

Error CannotOpen(const std::string& path, int error) {
  return Error::Sys(format("Could not open '{}'", path), error, ErrorKind::kUsage);
}

}  // namespace

Result<OutputFile> OutputFile::Create(std::string path) {
  if (path.empty()) {
    return Fail(CannotOpen(path, ENOENT));
  }
  struct stat file = {};
  const bool exists = ::stat(path.c_str(), &file) == 0;
  if (exists && !S_ISREG(file.st_mode)) {
    // A FIFO without a reader is an error, not a wait.
    UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (!fd) {
      return Fail(CannotOpen(path, errno));
    }
    return OutputFile(std::move(fd));
  }
  if (exists) {  // behind a link: what it leads to is replaced, not the link
    path = Resolved(std::move(path));
  }
  std::string temporary = path + ".XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!exists) {  // it stays its user's alone
    return fd ? Result<OutputFile>(OutputFile(std::move(fd), std::move(path), std::move(temporary)))
              : Fail(CannotOpen(path, errno));
  }
  const bool same = fd && ::fchown(fd.get(), file.st_uid, file.st_gid) == 0 &&
                    ::fchmod(fd.get(), file.st_mode & kPermissions) == 0;
  if (!same) {
    // Rather than take it from its owner, or where nothing can be put beside it: in its place.
    if (fd) {
      ::unlink(temporary.c_str());
    }
    fd = UniqueFd(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_TRUNC | O_NOFOLLOW));
    return fd ? Result<OutputFile>(OutputFile(std::move(fd))) : Fail(CannotOpen(path, errno));
  }
  return OutputFile(std::move(fd), std::move(path), std::move(temporary));
}

OutputFile::~OutputFile() {
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

Status OutputFile::Commit() {
  if (temporary_.empty()) {
    return {};
  }
  // Else a power cut may leave the name with nothing behind it.
  if (::fdatasync(fd_.get()) != 0) {
    return Fail(Error::Sys(format("fdatasync '{}'", temporary_), errno));
  }
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return Fail(Error::Sys(format("rename to '{}'", path_), errno));
  }
  temporary_.clear();
  return {};
}

}  // namespace gyre::control
