#include "devices/virtio/block_image.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "devices/virtio/block_config.h"
#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "gyre/base/types.h"

namespace gyre::virtio {
namespace {

constexpr std::uint32_t kUnknownAlignment = 4096;  // suits every disk
constexpr std::uint32_t kMostAlignment = 64 * 1024;

Status Lock(const ImageOptions& options, int fd) {
  struct flock lock{};
  lock.l_type = options.readonly ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0) {
    return {};
  }
  if (errno == EAGAIN || errno == EACCES) {
    return Fail(Error::Usage(format("{}: is in use: somebody has locked it", options.path)));
  }
  return Fail(Error::Sys(format("{}: lock", options.path), errno, ErrorKind::kUsage));
}

// What O_DIRECT asks for (statx(2), Linux 6.1).
std::uint32_t DirectAlignment(int fd) {
  struct statx status{};
#ifdef STATX_DIOALIGN
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
      (status.stx_mask & STATX_DIOALIGN) != 0 && status.stx_dio_offset_align != 0) {
    return std::max(status.stx_dio_offset_align, status.stx_dio_mem_align);
  }
#else
  (void)fd;
  (void)status;
#endif
  return kUnknownAlignment;
}

// When an image was last read interests nobody, and costs each read a look at the time. Only its owner may
// say so.
bool SetWithoutAccessTime(int fd, int flags) {
  return ::fcntl(fd, F_SETFL, flags | O_NOATIME) == 0 || ::fcntl(fd, F_SETFL, flags) == 0;
}

// open(2) waits for a FIFO's other end unless told not to, but io_uring wants a file that waits.
Result<UniqueFd> OpenWaiting(const std::string& path, int flags) {
  UniqueFd fd = TRY(OpenFile(path, flags | O_NONBLOCK));
  const int now = ::fcntl(fd.get(), F_GETFL);
  if (now < 0 || !SetWithoutAccessTime(fd.get(), now & ~O_NONBLOCK)) {
    return Fail(Error::Sys(format("{}: fcntl", path), errno));
  }
  return fd;
}

struct Shape {
  std::uint64_t size = 0;          // bytes, whole sectors
  std::uint32_t block_size = 512;  // of the host's device
};

Result<Shape> Measure(int fd, const std::string& path) {
  Shape shape;
  struct stat status{};
  if (::fstat(fd, &status) != 0) {
    return Fail(Error::Sys(path, errno, ErrorKind::kUsage));
  }
  if (S_ISBLK(status.st_mode)) {
    if (::ioctl(fd, BLKGETSIZE64, &shape.size) != 0 || ::ioctl(fd, BLKSSZGET, &shape.block_size) != 0) {
      return Fail(Error::Sys(format("{}: size of the block device", path), errno, ErrorKind::kUsage));
    }
  } else if (S_ISREG(status.st_mode)) {
    shape.size = static_cast<std::uint64_t>(status.st_size);
  } else {
    return Fail(Error::Usage(format("{}: is neither a file nor a block device", path)));
  }
  shape.size = AlignDown(shape.size, kSectorSize);
  if (shape.size == 0) {
    return Fail(Error::Usage(format("{}: has not a single sector of {} bytes", path, kSectorSize)));
  }
  return shape;
}

// What a regular file is on (statfs(2)); 0 of anything else.
std::uint64_t FileSystemOf(int fd) {
  struct stat status{};
  struct statfs system{};
  const bool known = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && ::fstatfs(fd, &system) == 0;
  return known ? static_cast<std::uint64_t>(system.f_type) : 0;
}

// ext2, ext3, ext4 and tmpfs do: io_uring would have a worker of the kernel's do it. Of XFS and Btrfs it
// needs none; a network's may make the thread wait for long; others are not known well enough.
bool TakesSmallWritesWell(std::uint64_t system) {
  return system == EXT4_SUPER_MAGIC || system == TMPFS_MAGIC;
}

// A disk's of the host do. To read tmpfs by its pages would fill its holes.
bool ReadsWellByPages(std::uint64_t system) {
  return system == EXT4_SUPER_MAGIC || system == XFS_SUPER_MAGIC || system == BTRFS_SUPER_MAGIC;
}

// Of an image that was read all over, page tables take a 512th of its size.
constexpr std::uint64_t kMostInView = 4 * kGiB;

}  // namespace

Status BlockImage::Resize(const ImageOptions& options, std::uint64_t bytes) {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0 ||
      (S_ISREG(status.st_mode) && ::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)) {
    return Fail(Error::Sys(format("{}: {} bytes", options.path, bytes), errno));
  }
  // A device has the size that it has; the guest keeps the one that it was told of.
  const Shape now = TRY(Measure(fd.get(), options.path));
  if (now.size != bytes) {
    return Fail(Error::Usage(format("{}: has {} bytes", options.path, now.size)));
  }
  size = bytes;
  DecideWhatIsCarriedHere(options);
  return {};
}

void BlockImage::DecideWhatIsCarriedHere(const ImageOptions& options) {
  const std::uint64_t system = options.carried_here ? FileSystemOf(fd.get()) : 0;
  // One that has to be durable waits for the medium.
  small_writes_here = options.cache != CacheMode::kWritethrough && TakesSmallWritesWell(system);
  const bool shown = !direct && size <= kMostInView && ReadsWellByPages(system);
  view = shown ? ImageView::Map(fd.get(), size) : nullptr;
}

Result<BlockImage> BlockImage::Open(const ImageOptions& options) {
  int flags = options.readonly ? O_RDONLY : O_RDWR;
  if (options.cache == CacheMode::kWritethrough) {
    flags |= O_DSYNC;
  }
  BlockImage image;
  image.fd = TRY(OpenWaiting(options.path, flags));
  const Shape shape = TRY(Measure(image.fd.get(), options.path));
  image.size = shape.size;
  image.block_size = shape.block_size;
  // The same file, whatever stands at its path by now.
  const std::string same = format("/proc/self/fd/{}", image.fd.get());
  image.lock = TRY(OpenFile(same, flags));
  TRY(Lock(options, image.lock.get()));
  if (options.cache == CacheMode::kNone) {
    auto direct = OpenWaiting(same, flags | O_DIRECT);
    if (!direct) {
      return Fail(Error::Usage(format("{}: cache=none: the file system takes no O_DIRECT", options.path)));
    }
    image.direct = std::move(*direct);
    image.alignment = std::bit_ceil(std::clamp(DirectAlignment(image.direct.get()), 512U, kMostAlignment));
    image.block_size = std::max(image.block_size, std::min(image.alignment, kUnknownAlignment));
  }
  image.DecideWhatIsCarriedHere(options);
  return image;
}

}  // namespace gyre::virtio
