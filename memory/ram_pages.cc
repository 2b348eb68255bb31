#include "memory/ram_pages.h"

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/mutex.h"
#include "gyre/base/numbers.h"

namespace gyre::memory {
namespace {

constexpr unsigned kMostNodes = 1024;  // the kernel's own limit (NODES_SHIFT)
constexpr const char* kNodes = "/sys/devices/system/node/has_memory";

// "0-1,4": which of `nodes` is not in it.
std::optional<unsigned> FirstMissing(std::string_view list, const std::vector<unsigned>& nodes) {
  std::vector<bool> there(kMostNodes, false);
  while (!list.empty()) {
    const auto comma = list.find(',');
    const std::string_view item = list.substr(0, comma);
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
    constexpr NumberRange kNone = {.first = 1, .last = 0};
    const NumberRange range = ParseRange(item).value_or(kNone);
    for (unsigned node = range.first; node <= range.last && node < kMostNodes; ++node) {
      there[node] = true;
    }
  }
  const auto missing =
      std::ranges::find_if(nodes, [&](unsigned node) { return node >= kMostNodes || !there[node]; });
  return missing == nodes.end() ? std::nullopt : std::optional(*missing);
}

int ModeOf(NumaPolicy policy) {
  switch (policy) {
    case NumaPolicy::kDefault:
      return MPOL_DEFAULT;
    case NumaPolicy::kPreferred:
      return MPOL_PREFERRED;
    case NumaPolicy::kBind:
      return MPOL_BIND;
    case NumaPolicy::kInterleave:
      return MPOL_INTERLEAVE;
  }
  return MPOL_DEFAULT;
}

// What threads that populate parts of a range share.
struct Progress {
  Mutex mutex;
  CondVar changed;
  std::uint64_t done GUARDED_BY(mutex) = 0;
  std::size_t running GUARDED_BY(mutex) = 0;
  int error GUARDED_BY(mutex) = 0;
};

int PopulateChunk(std::span<std::byte> chunk) {
  while (::madvise(chunk.data(), chunk.size(), MADV_POPULATE_WRITE) != 0) {
    if (errno != EINTR && errno != EAGAIN) {
      return errno;
    }
  }
  return 0;
}

void PopulatePart(std::span<std::byte> part, std::uint64_t unit, Progress& progress) {
  constexpr std::uint64_t kChunk = 64 * kMiB;
  const std::uint64_t most = std::max(unit, kChunk);
  int error = 0;
  while (!part.empty() && error == 0) {
    const auto chunk = part.first(std::min<std::uint64_t>(part.size(), most));
    error = PopulateChunk(chunk);
    part = part.subspan(chunk.size());
    const MutexLock lock(progress.mutex);
    progress.done += chunk.size();
    progress.error = progress.error != 0 ? progress.error : error;
    error = progress.error;  // another's as well
  }
  const MutexLock lock(progress.mutex);
  --progress.running;
  progress.changed.NotifyAll();
}

// Until all have ended; tells about once a second how far they are.
int AwaitAll(const std::string& name, std::uint64_t total, Progress& progress,
             const std::function<void(std::uint64_t done, std::uint64_t total)>& tell) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kEvery = std::chrono::seconds(1);
  auto next = Clock::now() + kEvery;
  progress.mutex.Lock();
  while (progress.running != 0) {
    (void)progress.changed.WaitFor(progress.mutex, std::max(next - Clock::now(), Clock::duration::zero()));
    if (Clock::now() < next || progress.running == 0) {
      continue;
    }
    next += kEvery;
    const std::uint64_t done = progress.done;
    progress.mutex.Unlock();
    log::Info("memory {}: {} of {} MiB are allocated", name, done / kMiB, total / kMiB);
    if (tell) {
      tell(done, total);
    }
    progress.mutex.Lock();
  }
  const int error = progress.error;
  progress.mutex.Unlock();
  if (tell && error == 0) {
    tell(total, total);
  }
  return error;
}

}  // namespace

Status CheckNuma(const std::string& name, const RamOptions& options) {
  const auto refused = [&](std::string_view why) {
    return Fail(Error::Usage(format("memory {}: {}", name, why)));
  };
  if (options.numa_policy == NumaPolicy::kDefault) {
    return options.numa_nodes.empty() ? Status()
                                      : refused("NUMA nodes need a policy: preferred, bind or interleave");
  }
  if (options.numa_nodes.empty()) {
    return refused("this NUMA policy needs nodes");
  }
  if (options.numa_policy == NumaPolicy::kPreferred && options.numa_nodes.size() != 1) {
    return refused("only one NUMA node can be preferred");
  }
  std::ifstream file(kNodes);
  std::string nodes;
  if (!(file >> nodes)) {
    return refused("this host has no NUMA policies");
  }
  if (const auto missing = FirstMissing(nodes, options.numa_nodes)) {
    return refused(format("this host has no memory on NUMA node {}; it has on {}", *missing, nodes));
  }
  return {};
}

Status SetNumaPolicy(const std::string& name, const RamOptions& options, std::span<std::byte> pages) {
  if (options.numa_policy == NumaPolicy::kDefault) {
    return {};
  }
  constexpr unsigned kBits = std::numeric_limits<unsigned long>::digits;
  std::vector<unsigned long> mask(kMostNodes / kBits, 0);
  for (const unsigned node : options.numa_nodes) {
    mask[node / kBits] |= 1UL << (node % kBits);
  }
  // One bit less is looked at than is said.
  if (::syscall(SYS_mbind, pages.data(), pages.size(), ModeOf(options.numa_policy), mask.data(),
                (mask.size() * kBits) + 1, MPOL_MF_MOVE) != 0) {
    return Fail(Error::Sys(format("memory {}: NUMA policy (mbind)", name), errno, ErrorKind::kUsage));
  }
  return {};
}

int PopulatePages(const std::string& name, std::span<std::byte> pages, std::uint64_t unit, unsigned threads,
                  const std::function<void(std::uint64_t done, std::uint64_t total)>& tell) {
  const std::uint64_t count = pages.size() / unit;
  const std::uint64_t workers = std::clamp<std::uint64_t>(threads, 1, count);
  log::Info("memory {}: allocating {} MiB", name, pages.size() / kMiB);
  Progress progress;
  {
    const MutexLock lock(progress.mutex);
    progress.running = workers;
  }
  std::vector<std::jthread> all;
  for (std::uint64_t i = 0; i < workers; ++i) {
    const std::uint64_t begin = count * i / workers * unit;
    const std::uint64_t end = count * (i + 1) / workers * unit;
    all.emplace_back(
        [part = pages.subspan(begin, end - begin), unit, &progress] { PopulatePart(part, unit, progress); });
  }
  return AwaitAll(name, pages.size(), progress, tell);
}

std::string DescribeNoSpace(int fd) {
  struct statvfs info{};
  if (::fstatvfs(fd, &info) != 0) {
    return "its file system gives no more";
  }
  return format("its file system has {} bytes free", std::uint64_t{info.f_bavail} * info.f_frsize);
}

void RamBlock::Guard(BusErrors& errors) { guard_ = BusErrorGuard(mapping_.bytes(), unit_, errors); }

bool RamBlock::truncated() const {
  struct stat status{};
  return fd_ && ::fstat(fd_.get(), &status) == 0 && static_cast<std::uint64_t>(status.st_size) < size();
}

std::string RamBlock::DescribeFailure(std::optional<std::uint64_t> offset, bool hardware) const {
  const std::string where = offset ? format("no page at offset {:#x}", *offset) : "a page is missing";
  const auto because = [&](std::string_view why) { return format("memory {}: {}: {}", name_, where, why); };
  struct stat status{};
  if (hardware) {
    return because("a hardware memory error");
  }
  if (fd_ && ::fstat(fd_.get(), &status) == 0) {
    const auto size = static_cast<std::uint64_t>(status.st_size);
    return because(offset.value_or(this->size() - 1) >= size
                       ? format("its file has been truncated to {} bytes", size)
                       : DescribeNoSpace(fd_.get()));
  }
  const Extent page{.offset = offset.value_or(0), .size = offset ? unit_ : this->size()};
  return because(ShowsFile(page) ? "an image file that stands there may have been truncated" : "bus error");
}

}  // namespace gyre::memory
