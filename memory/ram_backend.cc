// Guest RAM as the user asks for it: where its bytes come from, and how firmly they
// are there.
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "gyre/base/format.h"
#include "gyre/memory/ram.h"
#include "memory/ram_pages.h"

namespace gyre::memory {
namespace {

struct HugeSize {
  std::uint64_t bytes = kPageSize;
  unsigned flag = 0;  // of mmap and memfd_create alike: the size's logarithm from bit 26 on
};

HugeSize SizeOf(HugePages pages) {
  constexpr unsigned kShift = 26;
  switch (pages) {
    case HugePages::k2M:
      return {.bytes = 2 * kMiB, .flag = 21U << kShift};
    case HugePages::k1G:
      return {.bytes = kGiB, .flag = 30U << kShift};
    default:
      return {};
  }
}

bool IsHugetlb(const RamOptions& options) { return SizeOf(options.huge_pages).flag != 0; }

std::string ReadWord(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word.empty() ? "?" : word;
}

// What the kernel's ENOMEM does not say.
Error NoHugePages(const std::string& name, const RamOptions& options, int error) {
  const HugeSize huge = SizeOf(options.huge_pages);
  const std::string pool = format("/sys/kernel/mm/hugepages/hugepages-{}kB", huge.bytes / kKiB);
  return {ErrorKind::kUsage,
          format("memory {}: {} MiB in huge pages of {} MiB: {}: {} are free; {}/nr_hugepages sets how many "
                 "there are",
                 name, options.size / kMiB, huge.bytes / kMiB, std::strerror(error),
                 ReadWord(pool + "/free_hugepages"), pool),
          error};
}

Error Refused(const std::string& name, const std::string& what, int error) {
  return Error::Sys(format("memory {}: {}", name, what), error, ErrorKind::kUsage);
}

Error NotWholePages(const std::string& name, std::uint64_t size, std::uint64_t unit) {
  return Error::Usage(format("memory {}: {} bytes are not whole pages of {} bytes", name, size, unit));
}

Result<UniqueFd> OpenMemfd(const std::string& name, const RamOptions& options) {
  unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  if (IsHugetlb(options)) {
    flags |= MFD_HUGETLB | SizeOf(options.huge_pages).flag;
  }
  UniqueFd fd(::memfd_create(name.c_str(), flags));
  if (!fd) {
    return Fail(IsHugetlb(options) ? NoHugePages(name, options, errno)
                                   : Refused(name, "memfd_create", errno));
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(options.size)) != 0) {
    return Fail(Refused(name, format("a memfd of {} bytes", options.size), errno));
  }
  // Whoever gets the fd can take nothing away under the guest.
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return Fail(Refused(name, "sealing its memfd", errno));
  }
  return fd;
}

Result<UniqueFd> OpenFile(const std::string& name, const RamOptions& options) {
  struct stat status{};
  const bool directory = ::stat(options.path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  const int flags = O_RDWR | O_CLOEXEC | (directory ? O_TMPFILE : O_CREAT);
  UniqueFd fd(::open(options.path.c_str(), flags, 0600));
  if (!fd || ::fstat(fd.get(), &status) != 0) {
    return Fail(Refused(name, options.path, errno));
  }
  if (!S_ISREG(status.st_mode)) {
    return Fail(Error::Usage(format("memory {}: {}: is neither a file nor a directory", name, options.path)));
  }
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size != 0 && size < options.size) {
    return Fail(Error::Usage(format("memory {}: {}: holds {} bytes, fewer than the {} of guest RAM", name,
                                    options.path, size, options.size)));
  }
  if (size == 0 && ::ftruncate(fd.get(), static_cast<off_t>(options.size)) != 0) {
    return Fail(Refused(name, format("{}: {} bytes", options.path, options.size), errno));
  }
  return fd;
}

Result<Mapping> MapIt(const std::string& name, const RamOptions& options, const UniqueFd& fd) {
  const bool shared = options.share || options.backend == RamBackend::kMemfd;
  auto mapping =
      fd ? Mapping::File(fd.get(), 0, options.size, PROT_READ | PROT_WRITE, shared ? MAP_SHARED : MAP_PRIVATE)
         : Mapping::Anonymous(
               options.size,
               IsHugetlb(options) ? MAP_HUGETLB | static_cast<int>(SizeOf(options.huge_pages).flag) : 0);
  if (mapping || !IsHugetlb(options)) {
    return mapping ? std::move(mapping) : Fail(std::move(mapping).error().Within(format("memory {}", name)));
  }
  return Fail(NoHugePages(name, options, mapping.error().sys_errno()));
}

struct Advice {
  bool asked;
  int advice;
  const char* what;
};

Status Advise(const std::string& name, const RamOptions& options, const Mapping& mapping) {
  const Advice all[] = {
      {options.huge_pages == HugePages::kTransparent, MADV_HUGEPAGE, "transparent huge pages"},
      {!options.dump, MADV_DONTDUMP, "dump=off"},
      {options.merge, MADV_MERGEABLE, "merge=on"}};
  for (const Advice& each : all) {
    if (each.asked && ::madvise(mapping.data(), mapping.size(), each.advice) != 0) {
      return Fail(Refused(name, each.what, errno));
    }
  }
  return {};
}

// A file's is its file system's.
std::uint64_t PageSizeOf(const RamOptions& options, const UniqueFd& fd) {
  struct statfs info{};
  const bool huge_file = fd && ::fstatfs(fd.get(), &info) == 0 && info.f_type == HUGETLBFS_MAGIC;
  return huge_file ? static_cast<std::uint64_t>(info.f_bsize) : SizeOf(options.huge_pages).bytes;
}

// A page that cannot be had is an error here, and would be a SIGBUS later.
Status Populate(const std::string& name, const RamOptions& options, const Mapping& mapping,
                const UniqueFd& fd) {
  const int error = PopulatePages(name, mapping.bytes(), PageSizeOf(options, fd), options.prealloc_threads,
                                  options.progress);
  if (error == 0) {
    return {};
  }
  if (IsHugetlb(options)) {
    return Fail(NoHugePages(name, options, error));
  }
  const std::string what = format("allocating {} bytes", mapping.size());
  if (error != EFAULT || !fd) {
    return Fail(Refused(name, what, error));
  }
  // The kernel's word for a page that its file system would not give.
  return Fail(Error::Usage(format("memory {}: {}: {}", name, what, DescribeNoSpace(fd.get()))));
}

Status CheckOptions(const std::string& name, const RamOptions& options) {
  const std::uint64_t unit = SizeOf(options.huge_pages).bytes;
  if (options.size == 0 || options.size % unit != 0) {
    return Fail(NotWholePages(name, options.size, unit));
  }
  if ((options.backend == RamBackend::kFile) == options.path.empty()) {
    return Fail(Error::Usage(format("memory {}: a path belongs to backend=file, and to nothing else", name)));
  }
  if (options.backend == RamBackend::kFile && IsHugetlb(options)) {
    return Fail(Error::Usage(
        format("memory {}: a file's pages are its file system's: give a path on hugetlbfs, without hugepages",
               name)));
  }
  TRY(CheckNuma(name, options));
  if (options.share && options.backend == RamBackend::kAnonymous) {
    return Fail(
        Error::Usage(format("memory {}: nobody could share anonymous memory: backend=memfd can", name)));
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<RamBlock>> RamBlock::New(std::string name, const RamOptions& options) {
  TRY(CheckOptions(name, options));
  UniqueFd fd;
  if (options.backend == RamBackend::kMemfd) {
    fd = TRY(OpenMemfd(name, options));
  } else if (options.backend == RamBackend::kFile) {
    fd = TRY(OpenFile(name, options));
  }
  const std::uint64_t unit = PageSizeOf(options, fd);
  if (options.size % unit != 0) {
    return Fail(NotWholePages(name, options.size, unit));
  }
  Mapping mapping = TRY(MapIt(name, options, fd));
  TRY(Advise(name, options, mapping));
  TRY(SetNumaPolicy(name, options, mapping.bytes()));
  if (options.prealloc) {
    TRY(Populate(name, options, mapping, fd));
  }
  if (options.locked && ::mlock(mapping.data(), mapping.size()) != 0) {
    return Fail(Refused(name, format("locking {} bytes (RLIMIT_MEMLOCK)", mapping.size()), errno));
  }
  auto block = std::make_shared<RamBlock>(std::move(name), std::move(mapping));
  const bool stays = options.prealloc || options.locked;
  block->unit_ = unit;
  block->anonymous_ = options.backend == RamBackend::kAnonymous && !stays && !IsHugetlb(options);
  if (!stays && options.backend == RamBackend::kAnonymous) {
    block->return_ = Return::kAdvice;
  } else if (!stays && (options.share || options.backend == RamBackend::kMemfd)) {
    // Not through a private mapping of a file: its old bytes would show again.
    block->return_ = Return::kHole;
  }
  block->fd_ = std::move(fd);
  return block;
}

}  // namespace gyre::memory
