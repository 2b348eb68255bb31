// --memory's kinds of guest RAM.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "gyre/memory/ram.h"

namespace gyre::memory {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kSize = 4 * kMiB;

std::shared_ptr<RamBlock> Make(const RamOptions& options) {
  auto block = RamBlock::New("ram", options);
  EXPECT_TRUE(block) << block.error().message();
  return block ? *block : nullptr;
}

std::string Mistake(const RamOptions& options) {
  const auto block = RamBlock::New("ram", options);
  EXPECT_FALSE(block);
  EXPECT_EQ(block.error().kind(), ErrorKind::kUsage);
  return block.error().message();
}

// Written, then back to zero, whatever the kind.
void ExpectClears(RamBlock& block) {
  std::memset(block.host(), 0x5a, block.size());
  ASSERT_TRUE(block.Clear());
  for (std::uint64_t at = 0; at < block.size(); at += 512) {
    ASSERT_EQ(block.host()[at], std::byte{0}) << at;
  }
  std::memset(block.host(), 0x5a, block.size());
  block.Zero(100, block.size() - 200);
  EXPECT_EQ(block.host()[99], std::byte{0x5a});
  EXPECT_EQ(block.host()[100], std::byte{0});
  EXPECT_EQ(block.host()[block.size() - 101], std::byte{0});
  EXPECT_EQ(block.host()[block.size() - 100], std::byte{0x5a});
}

std::uint64_t ResidentPages(const RamBlock& block) {
  std::vector<unsigned char> pages(block.size() / kPageSize);
  EXPECT_EQ(::mincore(block.host(), block.size(), pages.data()), 0);
  std::uint64_t resident = 0;
  for (const unsigned char page : pages) {
    resident += page & 1;
  }
  return resident;
}

TEST(RamBackend, Anonymous_IsZeroAndClears) {
  const auto block = Make({.size = kSize});
  EXPECT_TRUE(block->anonymous());
  EXPECT_EQ(block->fd(), -1);
  ExpectClears(*block);
}

TEST(RamBackend, Memfd_IsSharedSealedAndClears) {
  const auto block = Make({.size = kSize, .backend = RamBackend::kMemfd});
  ASSERT_GE(block->fd(), 0);
  block->host()[5] = std::byte{7};
  std::byte seen{};
  ASSERT_EQ(::pread(block->fd(), &seen, 1, 5), 1);
  EXPECT_EQ(seen, std::byte{7});
  EXPECT_NE(::ftruncate(block->fd(), 0), 0);  // nobody takes it away under the guest
  EXPECT_NE(::ftruncate(block->fd(), 2 * kSize), 0);
  ExpectClears(*block);
  ASSERT_TRUE(block->Clear());
  struct stat status{};
  ASSERT_EQ(::fstat(block->fd(), &status), 0);
  EXPECT_EQ(status.st_blocks, 0);  // given back to the host
}

class RamFile : public testing::Test {
 public:
  RamFile(const RamFile&) = delete;
  RamFile& operator=(const RamFile&) = delete;

 protected:
  RamFile() : path_(testing::TempDir() + "gyre-ram-" + std::to_string(::getpid())) {}
  ~RamFile() override { ::unlink(path_.c_str()); }
  std::string path_;
};

TEST_F(RamFile, Shared_HoldsWhatTheGuestWrites) {
  const auto block = Make({.size = kSize, .backend = RamBackend::kFile, .share = true, .path = path_});
  block->host()[0] = std::byte{'x'};
  std::ifstream file(path_);
  EXPECT_EQ(file.get(), 'x');
  ExpectClears(*block);
}

TEST_F(RamFile, Private_LeavesTheFileAsItWas) {
  std::ofstream(path_) << std::string(kSize, 'f');
  const auto block = Make({.size = kSize, .backend = RamBackend::kFile, .path = path_});
  EXPECT_EQ(block->host()[9], std::byte{'f'});
  ExpectClears(*block);
  std::ifstream file(path_);
  EXPECT_EQ(file.get(), 'f');
}

TEST_F(RamFile, Directory_TakesAFileWithoutAName) {
  ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0);
  {
    const auto block = Make({.size = kSize, .backend = RamBackend::kFile, .share = true, .path = path_});
    ExpectClears(*block);
  }
  EXPECT_EQ(::rmdir(path_.c_str()), 0);  // nothing is left in it
}

TEST_F(RamFile, TooSmall_IsRefusedAndStays) {
  std::ofstream(path_) << "short";
  EXPECT_THAT(Mistake({.size = kSize, .backend = RamBackend::kFile, .path = path_}),
              HasSubstr("holds 5 bytes"));
  struct stat status{};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 5);
}

TEST(RamBackend, Prealloc_EveryPageIsThereAndStays) {
  for (const unsigned threads : {1U, 3U, 5000U}) {
    const auto block = Make({.size = kSize, .prealloc = true, .prealloc_threads = threads});
    EXPECT_EQ(ResidentPages(*block), kSize / kPageSize);
    ExpectClears(*block);
    EXPECT_EQ(ResidentPages(*block), kSize / kPageSize);
    EXPECT_FALSE(block->anonymous());  // a file's pages in its place would not be there
  }
}

TEST(RamBackend, Hints_AreTaken) {
  const auto block = Make({.size = kSize, .huge_pages = HugePages::kTransparent, .dump = false});
  std::ifstream maps("/proc/self/smaps");
  const std::string text{std::istreambuf_iterator<char>(maps), {}};
  EXPECT_THAT(text, HasSubstr(" dd"));  // VM_DONTDUMP
  ExpectClears(*block);
}

TEST(RamBackend, HugePagesThatTheHostHasNot_AreNamedWithTheirSwitch) {
  std::ifstream free("/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages");
  std::uint64_t count = 0;
  if (free >> count && count != 0) {
    GTEST_SKIP() << "this host has 1 GiB pages to spare";
  }
  for (const RamBackend backend : {RamBackend::kAnonymous, RamBackend::kMemfd}) {
    const auto text = Mistake({.size = kGiB, .backend = backend, .huge_pages = HugePages::k1G});
    EXPECT_THAT(text, HasSubstr("huge pages of 1024 MiB"));
    EXPECT_THAT(text, HasSubstr("nr_hugepages"));
  }
}

TEST(RamBackend, OptionsThatDoNotGoTogether_AreRefused) {
  EXPECT_THAT(Mistake({.size = kSize + 1}), HasSubstr("whole pages"));
  EXPECT_THAT(Mistake({.size = kSize, .huge_pages = HugePages::k1G}), HasSubstr("whole pages"));
  EXPECT_THAT(Mistake({.size = kSize, .path = "/tmp"}), HasSubstr("path"));
  EXPECT_THAT(Mistake({.size = kSize, .backend = RamBackend::kFile}), HasSubstr("path"));
  EXPECT_THAT(Mistake({.size = kSize, .share = true}), HasSubstr("memfd"));
  EXPECT_THAT(Mistake({.size = kSize, .backend = RamBackend::kFile, .path = "/nonexistent/x"}),
              HasSubstr("/nonexistent/x"));
  EXPECT_THAT(Mistake({.size = kSize, .backend = RamBackend::kFile, .path = "/dev/null"}),
              HasSubstr("neither a file nor a directory"));
}

}  // namespace
}  // namespace gyre::memory
