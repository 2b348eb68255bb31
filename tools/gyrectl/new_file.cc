#include "tools/gyrectl/new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <random>
#include <system_error>

#include "gyre/base/format.h"

namespace gyre::ctl {
namespace {

std::unexpected<Failure> HostFailure(const std::string& what) {
  return Fail(Exit::kRefused, format("{}: {}", what, std::generic_category().message(errno)));
}

// Nobody is to know it beforehand.
std::string PartName(const std::string& path) {
  std::random_device random;
  return format("{}.part-{:08x}{:08x}", path, random(), random());
}

}  // namespace

NewFile::NewFile(std::string path, bool replace)
    : path_(std::move(path)), part_(PartName(path_)), replace_(replace) {}

Outcome<NewFile> NewFile::Create(const std::string& path, bool replace, Meanwhile meanwhile) {
  struct stat there = {};
  const bool is_there = ::stat(path.c_str(), &there) == 0;
  if (is_there && !S_ISREG(there.st_mode)) {
    return Fail(Exit::kUsage, format("{} is there, and is not a file that could be replaced", path));
  }
  if (is_there && !replace) {
    return Fail(Exit::kUsage, format("{} is there already (--force replaces it)", path));
  }
  NewFile file(path, replace);
  const std::string directory = std::filesystem::path(path).parent_path();
  bool named = meanwhile == Meanwhile::kNamed;
  if (!named) {
    file.fd_ =
        UniqueFd(::open(directory.empty() ? "." : directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    named = !file.fd_ && (errno == EOPNOTSUPP || errno == EISDIR);
  }
  if (named) {
    file.fd_ = UniqueFd(::open(file.part_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    file.has_name_ = static_cast<bool>(file.fd_);
  }
  if (!file.fd_) {
    return HostFailure(path);
  }
  return file;
}

NewFile::~NewFile() {
  if (fd_ && has_name_) {
    ::unlink(part_.c_str());
  }
}

std::uint64_t NewFile::size() const {
  struct stat status = {};
  return ::fstat(fd_.get(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

// From the part's name to the right one.
bool NewFile::Rename() const {
  if (replace_) {
    return ::rename(part_.c_str(), path_.c_str()) == 0;
  }
  if (::renameat2(AT_FDCWD, part_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) == 0) {
    return true;
  }
  // Not every file system can do that; none replaces anything by a link.
  if ((errno != EINVAL && errno != ENOSYS) ||
      ::linkat(AT_FDCWD, part_.c_str(), AT_FDCWD, path_.c_str(), 0) != 0) {
    return false;
  }
  ::unlink(part_.c_str());
  return true;
}

Outcome<void> NewFile::Publish() {
  if (!has_name_) {
    const std::string own = format("/proc/self/fd/{}", fd_.get());
    const std::string& name = replace_ ? part_ : path_;
    if (::linkat(AT_FDCWD, own.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      return HostFailure(name);
    }
    has_name_ = replace_;
  }
  if (has_name_ && !Rename()) {
    return HostFailure(path_);
  }
  has_name_ = false;
  return {};
}

}  // namespace gyre::ctl
