// What of a disk is safe once the guest is told so, in each cache mode (virtio 1.2, 5.2.6.2).
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;
using Steps = std::vector<std::string>;

class BlockDurability : public BlockFixture {
 protected:
  // What the host was asked for by a request that goes well.
  Steps StepsOf(const std::function<int()>& request) {
    Steps steps;
    disk().SetFault([&](std::string_view step, std::uint64_t /*offset*/, std::int32_t result) {
      steps.emplace_back(step);
      // Whatever this file system has.
      return step == "allocate" ? (refuses_ranges ? -EOPNOTSUPP : 0) : result;
    });
    EXPECT_EQ(request(), kOk);
    disk().SetFault({});
    return steps;
  }
  int Write(std::uint64_t sector = 0) { return Request(kWrite, sector, std::array{Buffer{kData, 4096}}); }
  int Flush() { return Request(kFlush, 0, {}); }
  // How this process has the file open, once for each time.
  static std::vector<int> FlagsOf(const std::string& file) {
    std::vector<int> flags;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;  // the directory's own
      if (std::filesystem::read_symlink(entry.path(), gone) == file) {
        flags.push_back(::fcntl(std::stoi(entry.path().filename()), F_GETFL));
      }
    }
    return flags;
  }
  static bool AnyHas(const std::vector<int>& all, int flag) {
    return std::ranges::any_of(all, [flag](int flags) { return (flags & flag) != 0; });
  }
  static bool AllHave(const std::vector<int>& all, int flag) {
    return !all.empty() && std::ranges::all_of(all, [flag](int flags) { return (flags & flag) != 0; });
  }
  // Whether the file system has a place on its disk for the block at that offset; while what was written is
  // only in memory, it has not decided on one. Nothing where it does not say so.
  std::optional<bool> HasPlace(std::uint64_t offset) const {
    // A fiemap and one extent behind it.
    std::array<std::uint64_t, (sizeof(fiemap) + sizeof(fiemap_extent)) / 8> room{};
    auto* const map = reinterpret_cast<fiemap*>(room.data());
    map->fm_start = offset;
    map->fm_length = 4096;
    map->fm_extent_count = 1;
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (::ioctl(file.get(), FS_IOC_FIEMAP, map) != 0) {
      return std::nullopt;
    }
    fiemap_extent extent{};
    std::memcpy(&extent, room.data() + sizeof(fiemap) / 8, sizeof(extent));
    constexpr std::uint32_t kNoPlace = FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN;
    return map->fm_mapped_extents == 1 && (extent.fe_flags & kNoPlace) == 0;
  }
  // A new file: of one that was cut to nothing some file systems write all when it is closed.
  void MakeHole() const {
    ::unlink(image.c_str());
    std::ofstream(image).flush();
    std::filesystem::resize_file(image, kImageSize);
  }
  void DropCache() const {
    const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    EXPECT_EQ(::fsync(file.get()), 0);
    EXPECT_EQ(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  }
  // Whether the host's page cache has any of the file's first 64 KiB.
  bool IsCached() const {
    constexpr std::size_t kBytes = 64 * kKiB;
    const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    void* const bytes = ::mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, file.get(), 0);
    EXPECT_NE(bytes, MAP_FAILED);
    std::array<unsigned char, kBytes / 4096> pages{};
    EXPECT_EQ(::mincore(bytes, kBytes, pages.data()), 0);
    ::munmap(bytes, kBytes);
    return std::ranges::any_of(pages, [](unsigned char page) { return (page & 1) != 0; });
  }

  bool refuses_ranges = false;
};

TEST_F(BlockDurability, S_5_2_6_2_EachRequestIsSyncedAsItsCacheModePromises) {
  struct Case {
    const char* cache;
    bool driver_flushes;
    bool flush_syncs;
    bool each_is_durable;
  };
  constexpr std::array<Case, 7> kCases = {{{"none", true, true, false},
                                           {"none", false, true, true},
                                           {"writeback", true, true, false},
                                           {"writeback", false, true, true},
                                           {"writethrough", false, false, true},
                                           {"unsafe", true, false, false},
                                           {"unsafe", false, false, false}}};
  for (const auto& [cache, driver_flushes, flush_syncs, each_is_durable] : kCases) {
    if (std::string_view(cache) == "none" && !DirectWorks()) {
      continue;
    }
    SCOPED_TRACE(format("{}, {}", cache, driver_flushes ? "with FLUSH" : "without FLUSH"));
    Make(format(",cache={}", cache), driver_flushes ? kFlushFeature : 0);
    // With writethrough the file itself is one that syncs what is written.
    const bool asks = each_is_durable && std::string_view(cache) != "writethrough";
    EXPECT_EQ(StepsOf([&] { return Write(); }), Steps{asks ? "durable write" : "write"});
    EXPECT_EQ(AnyHas(FlagsOf(image), O_DSYNC), each_is_durable && !asks);
    EXPECT_EQ(StepsOf([&] { return Flush(); }), flush_syncs ? Steps{"sync"} : Steps{});
    for (const std::uint32_t type : {kDiscard, kWriteZeroes}) {
      Steps once{"allocate", "allocate"};
      Steps by_zeros{"allocate", "write", "write"};  // having learnt that the file system cannot
      if (each_is_durable) {
        once.emplace_back("sync");
        by_zeros.emplace_back("sync");
      }
      const std::vector<Range> two = {Range{8, 0, 8, 0}, Range{64, 0, 8, 0}};
      EXPECT_EQ(StepsOf([&] { return Ranges(type, two); }), once) << type;
      refuses_ranges = true;
      EXPECT_EQ(StepsOf([&] { return Ranges(type, two); }), type == kDiscard ? once : by_zeros) << type;
      refuses_ranges = false;
    }
    EXPECT_EQ(StepsOf([&] { return Request(kRead, 0, std::array{Buffer{kData, 512, true}}); }),
              Steps{"read"});
  }
}

TEST_F(BlockDurability, WritethroughMayNotBeTakenForACacheThatIsFlushed) {
  Make(",cache=writethrough");
  EXPECT_EQ(mmio.Features() & kFlushFeature, 0U);
  EXPECT_FALSE(mmio.Negotiate(kFlushFeature | kFeatureVersion1));
}

TEST_F(BlockDurability, TheImageIsOpenAsItsCacheModeSays_AndSoIsTheNext) {
  const std::string other = image + "-other";
  std::ofstream(other) << std::string(kImageSize, 'o');
  for (const std::string cache : {"none", "writeback", "writethrough", "unsafe"}) {
    if (cache == "none" && !DirectWorks()) {
      continue;
    }
    SCOPED_TRACE(cache);
    Make(",cache=" + cache);
    for (const std::string& now : {other, image}) {
      ASSERT_TRUE(disk().ChangeImage(now));
      const auto flags = FlagsOf(now);
      EXPECT_EQ(AllHave(flags, O_DSYNC), cache == "writethrough");
      EXPECT_EQ(AnyHas(flags, O_DSYNC), cache == "writethrough");
      EXPECT_EQ(AnyHas(flags, O_DIRECT), cache == "none");
      EXPECT_TRUE(FlagsOf(now == image ? other : image).empty());
    }
  }
  ::unlink(other.c_str());
}

// By what the file system has done, not by what it was asked for.
TEST_F(BlockDurability, S_5_2_6_2_WhatIsStableHasItsPlaceOnTheHostsDisk) {
  struct Case {
    const char* cache;
    bool driver_flushes;
  };
  constexpr std::array<Case, 5> kCases = {
      {{"writethrough", false}, {"writeback", false}, {"none", false}, {"writeback", true}, {"none", true}}};
  MakeHole();
  {
    std::fstream file(image);
    file.seekp(16 * kSector);
    file << std::string(4096, 'p');
  }
  if (HasPlace(16 * kSector).value_or(true)) {
    GTEST_SKIP() << "the file system of " << image << " does not say what it has only in memory";
  }
  for (const auto& [cache, driver_flushes] : kCases) {
    if (std::string_view(cache) == "none" && !DirectWorks()) {
      continue;
    }
    SCOPED_TRACE(format("{}, {}", cache, driver_flushes));
    Unplug();
    MakeHole();
    Make(format(",cache={}", cache), driver_flushes ? kFlushFeature : 0);
    EXPECT_EQ(Write(16), kOk);
    // Neither memory nor size suits O_DIRECT.
    EXPECT_EQ(Request(kWrite, 32, std::array{Buffer{kData + 3, 512}}), kOk);
    EXPECT_EQ(Flush(), kOk);
    EXPECT_EQ(HasPlace(16 * kSector), true);
    EXPECT_EQ(HasPlace(32 * kSector), true);
    EXPECT_EQ(HasPlace(1024 * kSector), false) << "not written yet";
    if (!driver_flushes) {
      EXPECT_EQ(Write(1024), kOk);
      EXPECT_EQ(HasPlace(1024 * kSector), true) << "without a flush";
    }
  }
}

TEST_F(BlockDurability, CacheNoneLeavesTheHostsPageCacheAlone) {
  // Some file systems have O_DIRECT in name only.
  DropCache();
  const UniqueFd direct(::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC));
  if (::pwrite(direct.get(), memory.host() + kData, 4096, 0) != 4096 || IsCached()) {
    GTEST_SKIP() << "the file system of " << path << " does not pass the page cache";
  }
  for (const std::string cache : {"none", "writeback"}) {
    DropCache();
    ASSERT_FALSE(IsCached());
    Make(",cache=" + cache, kFlushFeature);
    EXPECT_EQ(Write(), kOk);
    EXPECT_EQ(Request(kRead, 8, std::array{Buffer{kData, 8192, true}}), kOk);
    EXPECT_EQ(IsCached(), cache == "writeback") << cache;
  }
}

}  // namespace
}  // namespace gyre::virtio
