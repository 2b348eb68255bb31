// A disk on a real file, by the driver's side of its rings.
#pragma once

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <fstream>
#include <string>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/devices/virtio/disk.h"
#include "gyre/devices/virtio/registry.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

// Where an I/O thread carries nothing out itself: NoReadsHere(), NoWritesHere().
#define SKIP_IF_NONE_HERE(reason)                \
  if (const auto why = (reason); !why.empty()) { \
    GTEST_SKIP() << why;                         \
  }

namespace gyre::virtio {

inline const Module& DiskModule() {
  return **std::ranges::find(Modules(), "disk", [](const Module* module) { return module->option; });
}

// The process makes no file longer than that: as good as a full disk (EFBIG), without a disk to fill.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before_), 0);
    (void)std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

// The clocks stand, but files and io_uring are the host's own.
class BlockFixture : public DeviceTest {
 protected:
  static constexpr std::uint32_t kRead = 0, kWrite = 1, kFlush = 4, kGetId = 8, kDiscard = 11,
                                 kWriteZeroes = 13;
  static constexpr int kOk = 0, kIoError = 1, kUnsupported = 2, kUnanswered = 0xee;
  static constexpr std::uint64_t kFlushFeature = 1U << 9;  // without it each write is synced
  static constexpr std::uint64_t kImageSize = 1 << 20;
  static constexpr std::uint64_t kSector = 512;

  BlockFixture() { std::ofstream(image) << std::string(kImageSize, 'a'); }
  ~BlockFixture() override {
    Unplug();
    ::unlink(image.c_str());
  }

  Result<std::unique_ptr<VirtioDevice>> Open(const std::string& options) {
    auto properties = Properties::Parse(format("path={}{}", path, options), DiskModule().properties);
    if (!properties) {
      return std::unexpected(properties.error());
    }
    auto where = context();
    where.disks = &disks;
    where.id = TRY(DeviceId(DiskModule(), *properties, static_cast<unsigned>(disks.all().size())));
    return DiskModule().create(where, *properties);
  }
  void Make(const std::string& options = "", std::uint64_t features = 0) {
    Unplug();
    auto device = Open(options);
    ASSERT_TRUE(device) << device.error().message();
    Plug(std::move(*device));
    Bring(features);
  }
  bool DirectWorks() const {
    return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC)).get() >= 0;
  }
  // Why an I/O thread carries out no write itself; empty if it does.
  std::string NoWritesHere() const {
    const std::uint64_t system = FileSystem();
    const bool suits = system == EXT4_SUPER_MAGIC || system == TMPFS_MAGIC;
    return suits ? "" : format("the file system ({:#x}) is not one whose writes need a worker", system);
  }
  // The same of reads.
  std::string NoReadsHere() const {
    const std::uint64_t system = FileSystem();
    const bool suits = system == EXT4_SUPER_MAGIC || system == XFS_SUPER_MAGIC || system == BTRFS_SUPER_MAGIC;
    return suits ? "" : format("the file system ({:#x}) is not one of a local disk", system);
  }
  std::uint64_t FileSystem() const {
    struct statfs system{};
    EXPECT_EQ(::statfs(path.c_str(), &system), 0);
    return static_cast<std::uint64_t>(system.f_type);
  }
  DiskControl& disk() { return *disks.all().front().disk; }
  void PutHeader(std::uint32_t type, std::uint64_t sector) {
    std::memset(memory.host() + kHeader, 0, 16);
    std::memcpy(memory.host() + kHeader, &type, 4);
    std::memcpy(memory.host() + kHeader + 8, &sector, 8);
    memory.host()[kStatus] = std::byte{kUnanswered};
  }
  // Offers header, the buffers and a status byte; the answer, with what was written in `written`.
  int Request(std::uint32_t type, std::uint64_t sector, std::span<const test::Buffer> data,
              unsigned queue = 0) {
    Offer(type, sector, data, queue);
    written = AwaitUsed(queue).written;
    return Answer();
  }
  void Offer(std::uint32_t type, std::uint64_t sector, std::span<const test::Buffer> data,
             unsigned queue = 0) {
    PutHeader(type, sector);
    std::vector<test::Buffer> buffers{{kHeader, 16, false}};
    buffers.insert(buffers.end(), data.begin(), data.end());
    buffers.push_back({kStatus, 1, true});
    rings[queue]->Offer(buffers);
    mmio.Kick(queue);
  }
  int Answer() const { return std::to_integer<int>(memory.host()[kStatus]); }
  using Range = std::array<std::uint32_t, 4>;  // sector, its high half, sectors, flags
  int Ranges(std::uint32_t type, const std::vector<Range>& ranges) {
    std::memcpy(memory.host() + kData, ranges.data(), 16 * ranges.size());
    return Request(type, 0, std::array{test::Buffer{kData, static_cast<std::uint32_t>(16 * ranges.size())}});
  }
  int ReadAt(std::uint64_t sector, std::uint32_t size = 512) {
    return Request(kRead, sector, std::array{test::Buffer{kData, size, true}});
  }
  int WriteAt(std::uint64_t sector, std::uint32_t size, char fill, std::uint64_t at = kData) {
    std::memset(memory.host() + at, fill, size);
    return Request(kWrite, sector, std::array{test::Buffer{at, size}});
  }
  // What the last ReadAt has brought.
  std::string Data(std::size_t size) const {
    return {reinterpret_cast<const char*>(memory.host() + kData), size};
  }
  std::string Content(std::uint64_t offset, std::size_t size) const { return ContentOf(path, offset, size); }
  static std::string ContentOf(const std::string& name, std::uint64_t offset, std::size_t size) {
    std::ifstream file(name);
    std::string text(size, '\0');
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(text.data(), static_cast<std::streamsize>(size));
    return text;
  }
  // Runs the loop until `done`, for a few seconds at most.
  template <typename Done>
  bool Await(const Done& done) {
    for (int i = 0; i < 5000; ++i) {
      if (done()) {
        return true;
      }
      RunPending();
      if (i > 100) {
        ::usleep(1000);
      }
    }
    return false;
  }

  static constexpr std::uint64_t kHeader = 0xb0000;
  static constexpr std::uint64_t kStatus = 0xb0100;
  // Removed at the end: not whatever `path` is by then.
  const std::string image = testing::TempDir() + format("gyre-block-{}", ::getpid());
  std::string path = image;
  std::uint32_t written = 0;
  std::vector<DiskError> told;
  Disks disks{*loop_, [this](const DiskError& error) { told.push_back(error); }};
};

}  // namespace gyre::virtio
