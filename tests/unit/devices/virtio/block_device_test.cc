// A disk whose image is a block device of the host: a loop device on a file.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

// Goes with the last that has it open, even if the test does not live to see that.
class LoopDevice {
 public:
  // Why there is none; empty if there is.
  std::string Attach(const std::string& file, std::uint32_t sector_size) {
    const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const UniqueFd backing(::open(file.c_str(), O_RDWR | O_CLOEXEC));
    if (control.get() < 0) {
      return format("/dev/loop-control: {}", std::strerror(errno));
    }
    loop_config config{};
    config.fd = static_cast<std::uint32_t>(backing.get());
    config.block_size = sector_size;
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    std::string why;
    for (int attempt = 0; attempt < 20; ++attempt) {
      const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
      if (number < 0) {
        why = format("/dev/loop-control: {}", std::strerror(errno));
        break;
      }
      path = format("/dev/loop{}", number);
      fd = UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
      if (fd.get() >= 0 && ::ioctl(fd.get(), LOOP_CONFIGURE, &config) == 0) {
        return {};
      }
      why = format("{}: {}", path, std::strerror(errno));
      if (errno != EBUSY) {
        break;
      }
      ::usleep(1000);  // somebody else has taken it
    }
    fd = UniqueFd();
    return why;
  }
  // It learns that its file has another size.
  bool TakeOverSize() { return ::ioctl(fd.get(), LOOP_SET_CAPACITY) == 0; }
  void Detach() {
    if (fd.get() >= 0) {
      (void)::ioctl(fd.get(), LOOP_CLR_FD);
    }
    fd = UniqueFd();
  }

  UniqueFd fd;
  std::string path;
};

// `image` is the file, `path` the device.
class BlockDevice : public BlockFixture, public testing::WithParamInterface<std::uint32_t> {
 protected:
  void SetUp() override {
    const std::string why = device.Attach(image, GetParam());
    if (!why.empty()) {
      GTEST_SKIP() << "no loop device with sectors of " << GetParam() << " bytes: " << why;
    }
    path = device.path;
  }
  ~BlockDevice() override {
    Unplug();
    device.Detach();
  }
  std::uint64_t Capacity() { return mmio.ReadConfig<std::uint64_t>(0); }
  // Of the file, behind the device's own page cache.
  std::string Backing(std::uint64_t offset, std::size_t size) const { return ContentOf(image, offset, size); }
  // What a resize says.
  std::string Resize(std::uint64_t bytes) {
    const auto done = disk().Resize(bytes);
    return done ? "done" : done.error().message();
  }
  std::string OpenAnother() {
    const auto opened = Open("");
    return opened ? "done" : opened.error().message();
  }
  blkcnt_t Allocated() const {
    struct stat status{};
    EXPECT_EQ(::stat(image.c_str(), &status), 0);
    return status.st_blocks;
  }
  bool Discards() const {
    std::ifstream file(format("/sys/block/{}/queue/discard_max_bytes", path.substr(5)));
    std::uint64_t most = 0;
    return file >> most && most != 0;
  }

  LoopDevice device;
};

INSTANTIATE_TEST_SUITE_P(Sectors, BlockDevice, testing::Values(512, 4096),
                         [](const auto& test) { return format("Of{}", test.param); });

TEST_P(BlockDevice, S_5_2_4_ItsSizeAndItsSectorsAreTold) {
  for (const std::string cache : {"writeback", "none"}) {
    Make(",cache=" + cache);
    EXPECT_EQ(Capacity(), kImageSize / kSector);
    EXPECT_EQ(disk().Info().size, kImageSize);
    EXPECT_EQ(mmio.ReadConfig<std::uint32_t>(20), 512U);  // blk_size
    // What the host writes without reading first: so many times as much, as a power of two.
    EXPECT_EQ(mmio.ReadConfig<std::uint8_t>(24), GetParam() == 512 ? 0 : 3);
    EXPECT_EQ(ReadAt(kImageSize / kSector), kIoError) << "beyond its end";
    EXPECT_EQ(ReadAt(kImageSize / kSector - 1), kOk);
  }
}

// Until it is flushed, what is written is in the device's page cache and not in the file.
TEST_P(BlockDevice, S_5_2_6_WritesReachWhatIsBehindIt_AsTheCacheModeSays) {
  for (const std::string cache : {"writeback", "none", "writethrough"}) {
    for (const bool flush : {true, false}) {
      if (flush && cache == "writethrough") {
        continue;  // not offered
      }
      SCOPED_TRACE(format("{} {}", cache, flush));
      Make(",cache=" + cache, flush ? kFlushFeature : 0);
      const char fill = flush ? 'f' : 'd';
      EXPECT_EQ(WriteAt(16, 8192, fill), kOk);
      EXPECT_EQ(WriteAt(1, 512, fill), kOk) << "less than a sector of the device's, maybe";
      EXPECT_EQ(WriteAt(64, 1024, fill, kData + 0x2003), kOk) << "not aligned in memory";
      if (flush) {
        EXPECT_EQ(Request(kFlush, 0, {}), kOk);
      }
      EXPECT_EQ(Backing(0, 512), std::string(512, 'a'));
      EXPECT_EQ(Backing(512, 512), std::string(512, fill));
      EXPECT_EQ(Backing(1024, 512), std::string(512, 'a'));
      EXPECT_EQ(Backing(16 * kSector, 8192), std::string(8192, fill));
      EXPECT_EQ(Backing(64 * kSector, 1024), std::string(1024, fill));
      std::memset(memory.host() + kData, 0, 8192);
      EXPECT_EQ(ReadAt(16, 8192), kOk);
      EXPECT_EQ(Data(8192), std::string(8192, fill));
      EXPECT_EQ(ReadAt(1), kOk);
      EXPECT_EQ(Data(512), std::string(512, fill));
    }
  }
}

TEST_P(BlockDevice, S_5_2_6_ADiscardFreesWhatIsBehindIt) {
  for (const std::string cache : {"writeback", "none"}) {
    Make(",cache=" + cache);
    const auto before = Allocated();
    EXPECT_EQ(Ranges(kDiscard, {Range{64, 0, 512, 0}, Range{1024, 0, 512, 0}}), kOk);
    if (Discards()) {
      EXPECT_LE(Allocated(), before - 1024) << "in units of 512 bytes";
      EXPECT_EQ(ReadAt(64, 4096), kOk);
      EXPECT_EQ(Data(4096), std::string(4096, '\0'));
    }
    // A hint: where it is less than a sector of the device's, nothing is freed.
    EXPECT_EQ(Ranges(kDiscard, {Range{1, 0, 1, 0}}), kOk);
    EXPECT_EQ(Content(0, 512) + Content(1024, 512), std::string(1024, 'a')) << "beside it";
    // Anew, for the next.
    EXPECT_EQ(WriteAt(64, 256 * kKiB, 'a'), kOk);
    EXPECT_EQ(WriteAt(1024, 256 * kKiB, 'a'), kOk);
  }
}

TEST_P(BlockDevice, S_5_2_6_WriteZeroesZeroes_WhateverItsSectorsAre) {
  for (const std::string cache : {"writeback", "none", "writethrough"}) {
    for (const std::uint32_t unmap : {0U, 1U}) {
      SCOPED_TRACE(format("{} {}", cache, unmap));
      Make(",cache=" + cache);
      EXPECT_EQ(WriteAt(0, 64 * kKiB, 'b'), kOk);
      EXPECT_EQ(
          Ranges(kWriteZeroes, {Range{1, 0, 2, unmap}, Range{15, 0, 18, unmap}, Range{64, 0, 8, unmap}}),
          kOk);
      std::string expected(64 * kKiB, 'b');
      expected.replace(1 * kSector, 2 * kSector, 2 * kSector, '\0');
      expected.replace(15 * kSector, 18 * kSector, 18 * kSector, '\0');
      expected.replace(64 * kSector, 8 * kSector, 8 * kSector, '\0');
      EXPECT_TRUE(Content(0, 64 * kKiB) == expected);
      EXPECT_TRUE(Backing(0, 64 * kKiB) == expected) << "without FLUSH all is stable at once";
    }
  }
}

TEST_P(BlockDevice, ItsNewSizeIsTakenOverByAResize) {
  Make();
  EXPECT_EQ(ReadAt(2048), kIoError);
  for (const std::uint64_t size : {2 * kImageSize, kImageSize / 2}) {
    std::filesystem::resize_file(image, size);
    ASSERT_TRUE(device.TakeOverSize());
    const auto interrupts = transport->counters().config_interrupts;
    ASSERT_EQ(Resize(size), "done");
    EXPECT_EQ(Capacity(), size / kSector);
    EXPECT_EQ(transport->counters().config_interrupts, interrupts + 1);
    EXPECT_EQ(ReadAt(size / kSector - 1), kOk);
    EXPECT_EQ(ReadAt(size / kSector), kIoError);
    EXPECT_EQ(disk().Info().size, size);
  }
}

// A resize that was refused once left the device's own size behind: the guest could use what it had not been
// told of.
TEST_P(BlockDevice, AResizeToWhatItIsNot_IsRefusedAndChangesNothing) {
  Make();
  EXPECT_EQ(Resize(2 * kImageSize), path + ": has 1048576 bytes");
  std::filesystem::resize_file(image, 2 * kImageSize);
  ASSERT_TRUE(device.TakeOverSize());
  const auto interrupts = transport->counters().config_interrupts;
  EXPECT_EQ(Resize(3 * kImageSize), path + ": has 2097152 bytes");
  EXPECT_EQ(Resize(kImageSize), path + ": has 2097152 bytes");
  EXPECT_EQ(std::filesystem::file_size(image), 2 * kImageSize);
  EXPECT_EQ(Capacity(), 2048U);
  EXPECT_EQ(disk().Info().size, kImageSize) << "as the guest sees it";
  EXPECT_EQ(ReadAt(2047), kOk);
  EXPECT_EQ(ReadAt(2048), kIoError) << "the guest has not been told of it";
  EXPECT_EQ(transport->counters().config_interrupts, interrupts);
}

TEST_P(BlockDevice, IsLockedAsLongAsItIsUsed) {
  {
    auto first = Open("");
    ASSERT_TRUE(first) << first.error().message();
    EXPECT_EQ(OpenAnother(), path + ": is in use: somebody has locked it");
    EXPECT_FALSE(Open(",readonly=on"));
    EXPECT_FALSE(Open(",cache=none"));
  }
  auto reader = Open(",readonly=on");
  ASSERT_TRUE(reader) << "nobody has it any more";
  EXPECT_TRUE(Open(",readonly=on"));
  EXPECT_FALSE(Open(""));
}

// As a disk that is taken away: what it had is lost, and the guest is told so.
TEST_P(BlockDevice, WhatIsBehindItGoes_AndTheGuestGetsErrors) {
  Make(",cache=none");
  std::filesystem::resize_file(image, 64 * kKiB);
  EXPECT_EQ(ReadAt(1024, 4096), kIoError);
  EXPECT_EQ(ReadAt(0, 4096), kOk) << "which is there still";
  EXPECT_EQ(told.size(), 1U);
  EXPECT_EQ(Request(kGetId, 0, std::array{Buffer{kData, 20, true}}), kOk);
}

TEST_P(BlockDevice, WithoutASingleSector_IsRefused) {
  std::filesystem::resize_file(image, 0);
  ASSERT_TRUE(device.TakeOverSize());
  EXPECT_EQ(OpenAnother(), path + ": has not a single sector of 512 bytes");
}

}  // namespace
}  // namespace gyre::virtio
