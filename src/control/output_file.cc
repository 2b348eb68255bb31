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
  if (!fd) {
    return Fail(CannotOpen(path, errno));
  }
  if (exists) {
    (void)::fchmod(fd.get(), file.st_mode & kPermissions);  // else its user's alone
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
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return Fail(Error::Sys(format("rename to '{}'", path_), errno));
  }
  temporary_.clear();
  return {};
}

}  // namespace gyre::control
