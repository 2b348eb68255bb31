#include "src/machine/boot/kernel_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <ctime>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gyre/base/endian.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"

namespace gyre::machine::boot {
namespace {

constexpr std::size_t kNameSize = 2 * std::tuple_size_v<Sha256Digest>;
constexpr std::string_view kLinkPrefix = "by-file.";
constexpr std::string_view kNewPrefix = "new.";  // what is being made
constexpr std::size_t kMaxLinks = 64;
constexpr std::chrono::seconds kLockPatience{20};
constexpr std::int64_t kSecondNs = 1'000'000'000;

// Behind the ELF file, so that this one is at the beginning as it is.
struct Trailer {
  std::array<char, 8> magic;
  Le64 size;  // of the ELF file
  Le32 crc;   // zlib's CRC-32 of it
  Le32 zero;
  Sha256Digest sum;  // of the payload: the entry's name
};
static_assert(WirePod<Trailer> && sizeof(Trailer) == 56);
constexpr std::array<char, 8> kMagic = {'g', 'y', 'r', 'e', 'k', 'r', 'n', '1'};

std::string NameOf(const Sha256Digest& sum) {
  std::string name;
  for (const std::uint8_t byte : sum) {
    name += format("{:02x}", byte);
  }
  return name;
}

std::int64_t Nanoseconds(const timespec& time) { return time.tv_sec * kSecondNs + time.tv_nsec; }

struct stat StatOf(const ImageFile& file) {
  struct stat status{};
  (void)::fstat(file.fd(), &status);  // zeroes, which no file is
  return status;
}

// A file that changes has another: the kernel sets the change time, and nobody else can.
std::string LinkName(const struct stat& status) {
  return format("{}{:x}.{:x}.{:x}.{:x}.{:x}", kLinkPrefix, status.st_dev, status.st_ino, status.st_size,
                Nanoseconds(status.st_mtim), Nanoseconds(status.st_ctim));
}

std::uint32_t Crc(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(
      ::crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

Status WriteAll(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(fd, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done < 0) {
      return Fail(Error::Sys("write", errno));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return {};
}

// Reads all of it: by pread, since somebody may cut it short meanwhile.
Status CheckWhole(const ImageFile& entry, const Sha256Digest& sum) {
  if (entry.size() < sizeof(Trailer)) {
    return Fail(entry.Bad(format("has {} bytes", entry.size())));
  }
  const std::uint64_t size = entry.size() - sizeof(Trailer);
  const auto trailer = TRY(entry.ReadAs<Trailer>(size, "its trailer"));
  if (trailer.magic != kMagic || trailer.size != size || trailer.sum != sum) {
    return Fail(entry.Bad("has no trailer, or another file's"));
  }
  std::vector<std::byte> piece(std::min<std::uint64_t>(size, kMiB));
  uLong crc = 0;
  for (std::uint64_t at = 0; at < size; at += piece.size()) {
    piece.resize(std::min<std::uint64_t>(size - at, piece.size()));
    TRY(entry.Read(at, piece, "its content"));
    crc = ::crc32_z(crc, reinterpret_cast<const unsigned char*>(piece.data()), piece.size());
  }
  if (crc != trailer.crc) {
    return Fail(entry.Bad(format("its bytes have the checksum {:#x}, not {:#x}", crc, trailer.crc.value())));
  }
  return {};
}

// Opens an entry; nothing where it is not there, or not ours.
std::optional<ImageFile> OpenEntry(int directory, const std::string& name, const std::string& shown) {
  UniqueFd fd(::openat(directory, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) {
    return std::nullopt;
  }
  auto entry = ImageFile::Adopt(shown, std::move(fd));
  if (!entry || StatOf(*entry).st_uid != ::geteuid()) {
    return std::nullopt;
  }
  return *std::move(entry);
}

// The access time says who has been unused for longest; one write an hour is enough for that.
void Touch(const ImageFile& entry) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (std::abs(now.tv_sec - StatOf(entry).st_atim.tv_sec) > 3600) {
    const std::array times = {timespec{.tv_sec = 0, .tv_nsec = UTIME_NOW},
                              timespec{.tv_sec = 0, .tv_nsec = UTIME_OMIT}};
    (void)::futimens(entry.fd(), times.data());
  }
}

void MakeDirectories(const std::string& path) {
  for (auto slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
    (void)::mkdir(path.substr(0, slash).c_str(), 0700);
  }
  (void)::mkdir(path.c_str(), 0700);
}

}  // namespace

// The directory's lock; one that is left by a process that dies is free.
class KernelCache::Lock {
 public:
  static Result<Lock> Take(int directory) {
    const auto end = std::chrono::steady_clock::now() + kLockPatience;
    while (::flock(directory, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) {
        return Fail(Error::Sys("its lock", errno));
      }
      if (std::chrono::steady_clock::now() > end) {
        return Fail(Error::Host(format("another process has had it locked for {} s", kLockPatience.count())));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return Lock(directory);
  }
  Lock(Lock&& other) noexcept : directory_(std::exchange(other.directory_, -1)) {}
  Lock& operator=(Lock&&) = delete;
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  ~Lock() {
    if (directory_ >= 0) {
      (void)::flock(directory_, LOCK_UN);
    }
  }

 private:
  explicit Lock(int directory) : directory_(directory) {}

  int directory_;
};

Result<KernelCache> KernelCache::Open(const std::string& path, std::uint64_t limit) {
  const auto open = [&] { return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); };
  UniqueFd fd = open();
  if (!fd && errno == ENOENT) {
    MakeDirectories(path);
    fd = open();
  }
  if (!fd) {
    return Fail(Error::Sys(format("kernel cache {}", path), errno));
  }
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) {
    return Fail(Error::Sys(format("kernel cache {}", path), errno));
  }
  if (status.st_uid != ::geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Fail(Error::Host(format("kernel cache {}: others may write there (owner {}, mode {:o})", path,
                                   status.st_uid, status.st_mode & 07777U)));
  }
  return KernelCache(path, std::move(fd), limit);
}

Error KernelCache::Failed(std::string_view what) const {
  return Error::Sys(format("kernel cache {}: {}", path_, what), errno);
}

std::optional<ImageFile> KernelCache::FindKnown(const ImageFile& image) const {
  std::array<char, kNameSize + 32> text{};
  const std::string link = LinkName(StatOf(image));
  const ssize_t size = ::readlinkat(fd_.get(), link.c_str(), text.data(), text.size());
  if (size <= static_cast<ssize_t>(kNameSize)) {
    return std::nullopt;
  }
  const std::string_view noted(text.data(), static_cast<std::size_t>(size));
  std::int64_t written = 0;
  std::from_chars(text.data() + kNameSize + 1, text.data() + size, written, 16);
  auto entry =
      OpenEntry(fd_.get(), std::string(noted.substr(0, kNameSize)), format("{} (unpacked)", image.name()));
  if (!entry || Nanoseconds(StatOf(*entry).st_mtim) != written) {
    return std::nullopt;
  }
  Touch(*entry);
  return entry;
}

Result<ImageFile> KernelCache::Get(const ImageFile& image, const Payload& payload) const {
  if (payload.unpacked_size() + sizeof(Trailer) > limit_) {
    return Fail(Error::Host(format("kernel cache {}: may hold {} bytes; the kernel has {}", path_, limit_,
                                   payload.unpacked_size())));
  }
  const Sha256Digest sum = Sha256(payload.packed());
  auto lock = Lock::Take(fd_.get());
  if (!lock) {
    return Fail(std::move(lock).error().Within(format("kernel cache {}", path_)));
  }
  // Somebody else may have been at it.
  if (auto entry = FindKnown(image)) {
    return *std::move(entry);
  }
  if (auto entry = FindChecked(image, sum)) {
    return *std::move(entry);
  }
  auto elf = payload.Unpack();
  if (!elf) {
    return Fail(std::move(elf).error().Within(format("{}: payload", image.name())));
  }
  TRY(Store(sum, elf->bytes()));
  auto entry = OpenEntry(fd_.get(), NameOf(sum), format("{} (unpacked)", image.name()));
  if (!entry) {
    return Fail(Failed("what was just made"));
  }
  Note(image, sum, *entry);
  return *std::move(entry);
}

std::optional<ImageFile> KernelCache::FindChecked(const ImageFile& image, const Sha256Digest& sum) const {
  auto entry = OpenEntry(fd_.get(), NameOf(sum), format("{} (unpacked)", image.name()));
  if (!entry) {
    return std::nullopt;
  }
  if (const auto whole = CheckWhole(*entry, sum); !whole) {
    log::Warning("kernel cache {}: {} is damaged and made anew: {}", path_, NameOf(sum),
                 whole.error().message());
    return std::nullopt;
  }
  Touch(*entry);
  Note(image, sum, *entry);
  return entry;
}

Status KernelCache::Store(const Sha256Digest& sum, std::span<const std::byte> elf) const {
  Tidy(elf.size() + sizeof(Trailer));
  const std::string temporary = format("{}{}", kNewPrefix, ::getpid());
  const UniqueFd fd(::openat(fd_.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) {
    return Fail(Failed(temporary));
  }
  const Trailer trailer{.magic = kMagic, .size = elf.size(), .crc = Crc(elf), .zero = 0, .sum = sum};
  auto written = WriteAll(fd.get(), elf);
  if (written) {
    written = WriteAll(fd.get(), std::as_bytes(std::span(&trailer, 1)));
  }
  // A name that outlives a power cut before its bytes would be a damaged entry.
  const bool kept = written && ::fdatasync(fd.get()) == 0 &&
                    ::renameat(fd_.get(), temporary.c_str(), fd_.get(), NameOf(sum).c_str()) == 0;
  if (!kept) {
    auto error =
        written ? Failed(temporary) : std::move(written).error().Within(format("kernel cache {}", path_));
    (void)::unlinkat(fd_.get(), temporary.c_str(), 0);
    return Fail(std::move(error));
  }
  return {};
}

// Only a shortcut: where it cannot be noted, the next start reads image and entry whole.
void KernelCache::Note(const ImageFile& image, const Sha256Digest& sum, const ImageFile& entry) const {
  const struct stat status = StatOf(image);
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  // One that is being written now may change once more within a tick of its times.
  if (Nanoseconds(now) - Nanoseconds(status.st_ctim) < kSecondNs) {
    return;
  }
  const std::string text = format("{}.{:x}", NameOf(sum), Nanoseconds(StatOf(entry).st_mtim));
  const std::string temporary = format("{}link.{}", kNewPrefix, ::getpid());
  (void)::unlinkat(fd_.get(), temporary.c_str(), 0);
  if (::symlinkat(text.c_str(), fd_.get(), temporary.c_str()) == 0) {
    (void)::renameat(fd_.get(), temporary.c_str(), fd_.get(), LinkName(status).c_str());
  }
}

void KernelCache::Tidy(std::uint64_t coming) const {
  struct Entry {
    std::string name;
    std::uint64_t size;
    std::int64_t used;
  };
  std::vector<Entry> entries;
  std::vector<std::string> links;
  const int copy = ::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> list(copy < 0 ? nullptr : ::fdopendir(copy), &::closedir);
  // NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own
  for (const dirent* item = list ? ::readdir(list.get()) : nullptr; item != nullptr;
       item = ::readdir(list.get())) {
    const std::string name = item->d_name;
    struct stat status{};
    if (name.starts_with(kNewPrefix)) {
      (void)::unlinkat(fd_.get(), name.c_str(), 0);
    } else if (name.starts_with(kLinkPrefix)) {
      links.push_back(name);
    } else if (name.size() == kNameSize &&
               ::fstatat(fd_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
      entries.push_back({.name = name,
                         .size = static_cast<std::uint64_t>(status.st_size),
                         .used = Nanoseconds(status.st_atim)});
    }
  }
  if (links.size() >= kMaxLinks) {
    for (const auto& link : links) {
      (void)::unlinkat(fd_.get(), link.c_str(), 0);
    }
  }
  std::ranges::sort(entries, {}, &Entry::used);
  std::uint64_t total = coming;
  for (const auto& entry : entries) {
    total += entry.size;
  }
  for (const auto& entry : entries) {
    if (total <= limit_) {
      break;
    }
    (void)::unlinkat(fd_.get(), entry.name.c_str(), 0);
    total -= entry.size;
  }
}

}  // namespace gyre::machine::boot
