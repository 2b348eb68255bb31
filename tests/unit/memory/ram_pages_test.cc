// Where guest RAM's pages come from, and what is said when one cannot be had.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "gyre/base/bus_error.h"
#include "gyre/memory/ram.h"

namespace gyre::memory {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kSize = 4 * kMiB;

std::string Mistake(const RamOptions& options) {
  const auto block = RamBlock::New("ram", options);
  EXPECT_FALSE(block);
  if (block) {
    return {};
  }
  EXPECT_EQ(block.error().kind(), ErrorKind::kUsage);
  return block.error().message();
}

// The policy of the page there, and its first 64 nodes.
std::pair<int, unsigned long> PolicyAt(const std::byte* page) {
  int mode = -1;
  std::array<unsigned long, 16> nodes{};
  EXPECT_EQ(::syscall(SYS_get_mempolicy, &mode, nodes.data(), nodes.size() * 64, page, MPOL_F_ADDR), 0);
  return {mode, nodes[0]};
}

class Numa : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string nodes;
        !(std::ifstream("/sys/devices/system/node/has_memory") >> nodes) || nodes[0] != '0') {
      GTEST_SKIP() << "this host has no NUMA node 0";
    }
  }
};

TEST_F(Numa, EachPolicy_IsThatOfThePages) {
  const std::vector<std::pair<NumaPolicy, int>> policies{{NumaPolicy::kPreferred, MPOL_PREFERRED},
                                                         {NumaPolicy::kBind, MPOL_BIND},
                                                         {NumaPolicy::kInterleave, MPOL_INTERLEAVE}};
  for (const auto backend : {RamBackend::kAnonymous, RamBackend::kMemfd}) {
    for (const auto& [policy, mode] : policies) {
      const auto block = RamBlock::New(
          "ram",
          {.size = kSize, .backend = backend, .prealloc = true, .numa_policy = policy, .numa_nodes = {0}});
      ASSERT_TRUE(block) << block.error().message();
      EXPECT_EQ(PolicyAt((*block)->host()), std::pair(mode, 1UL));
      EXPECT_EQ(PolicyAt((*block)->host() + kSize - kPageSize), std::pair(mode, 1UL));
    }
  }
  const auto plain = RamBlock::New("ram", {.size = kSize}).value();
  EXPECT_EQ(PolicyAt(plain->host()).first, MPOL_DEFAULT);
}

TEST_F(Numa, ANodeThatTheHostHasNot_IsNamed) {
  for (const unsigned node : {999U, 5000U}) {
    const auto text = Mistake({.size = kSize, .numa_policy = NumaPolicy::kBind, .numa_nodes = {0, node}});
    EXPECT_THAT(text, HasSubstr("no memory on NUMA node " + std::to_string(node)));
  }
}

TEST_F(Numa, PolicyAndNodesThatDoNotGoTogether_AreRefused) {
  EXPECT_THAT(Mistake({.size = kSize, .numa_nodes = {0}}), HasSubstr("need a policy"));
  EXPECT_THAT(Mistake({.size = kSize, .numa_policy = NumaPolicy::kBind}), HasSubstr("needs nodes"));
  EXPECT_THAT(Mistake({.size = kSize, .numa_policy = NumaPolicy::kPreferred, .numa_nodes = {0, 0}}),
              HasSubstr("only one"));
}

TEST(Preallocation, TellsItsEnd) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> told;
  const auto block = RamBlock::New(
      "ram", {.size = 200 * kMiB,
              .prealloc = true,
              .prealloc_threads = 3,
              .progress = [&](std::uint64_t done, std::uint64_t total) { told.emplace_back(done, total); }});
  ASSERT_TRUE(block);
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.back(), std::pair(200 * kMiB, 200 * kMiB));
  for (std::size_t i = 1; i < told.size(); ++i) {
    EXPECT_LE(told[i - 1].first, told[i].first);
  }
}

// A file system of the test's own.
class OwnFileSystem : public testing::Test {
 protected:
  void Mount(const char* type, const char* options) {
    ASSERT_NE(::mkdtemp(path_.data()), nullptr);
    if (::mount("none", path_.c_str(), type, 0, options) != 0) {
      GTEST_SKIP() << "mounting a " << type << ": " << std::strerror(errno);
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) {
      ::umount2(path_.c_str(), MNT_DETACH);
    }
    ::rmdir(path_.c_str());
  }
  std::string path_ = testing::TempDir() + "gyre-full-XXXXXX";

 private:
  bool mounted_ = false;
};

// Of 1 MiB, for RAM that is larger.
class FullFileSystem : public OwnFileSystem {
 protected:
  void SetUp() override { Mount("tmpfs", "size=1m"); }
};

// The kernel rounds such a mapping up, which nobody here would know.
TEST_F(OwnFileSystem, PartsOfAHugePageOfAFile_AreRefused) {
  ASSERT_NO_FATAL_FAILURE(Mount("hugetlbfs", "pagesize=2M"));
  if (IsSkipped()) {
    return;
  }
  const std::string path = path_ + "/file";
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kSize)), 0);
  EXPECT_THAT(Mistake({.size = 3 * kMiB, .backend = RamBackend::kFile, .share = true, .path = path}),
              HasSubstr("3145728 bytes are not whole pages of 2097152 bytes"));
  ::unlink(path.c_str());
}

TEST_F(FullFileSystem, Prealloc_IsAnErrorThatSaysSo) {
  for (const std::string& path : {path_, path_ + "/file"}) {
    const auto text =
        Mistake({.size = kSize, .backend = RamBackend::kFile, .share = true, .path = path, .prealloc = true});
    EXPECT_THAT(text, HasSubstr("its file system has 0 bytes free"));
    EXPECT_THAT(text, HasSubstr("memory ram: allocating 4194304 bytes"));
    ::unlink((path_ + "/file").c_str());
  }
}

TEST_F(FullFileSystem, WithoutPrealloc_ThePageThatIsMissingIsTold) {
  const auto errors = BusErrors::Create().value();
  const auto block =
      RamBlock::New("ram", {.size = kSize, .backend = RamBackend::kFile, .share = true, .path = path_})
          .value();
  block->Guard(*errors);
  std::memset(block->host(), 0x5a, kSize);
  const auto taken = errors->Take();
  ASSERT_FALSE(taken.empty());
  EXPECT_GE(taken[0].offset, kMiB - kPageSize);
  EXPECT_LE(taken[0].offset, kMiB);
  EXPECT_THAT(block->DescribeFailure(taken[0].offset, false), HasSubstr("its file system has 0 bytes free"));
  EXPECT_EQ(block->host()[kSize - 1], std::byte{0x5a});  // and whoever wrote has gone on
}

TEST(Failure, OfATruncatedFile_IsToldAsThat) {
  const std::string path = testing::TempDir() + "gyre-cut-" + std::to_string(::getpid());
  const auto errors = BusErrors::Create().value();
  const auto block =
      RamBlock::New("ram", {.size = kSize, .backend = RamBackend::kFile, .share = true, .path = path})
          .value();
  ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(kMiB)), 0);
  ::unlink(path.c_str());
  block->Guard(*errors);
  ASSERT_TRUE(block->Clear());
  std::memset(block->host(), 1, kSize);
  const auto taken = errors->Take();
  ASSERT_FALSE(taken.empty());
  EXPECT_EQ(taken[0].offset, kMiB);
  EXPECT_EQ(block->DescribeFailure(kMiB, false),
            "memory ram: no page at offset 0x100000: its file has been truncated to 1048576 bytes");
  EXPECT_THAT(block->DescribeFailure(std::nullopt, false), HasSubstr("truncated to 1048576"));
  EXPECT_THAT(block->DescribeFailure(0, true), HasSubstr("hardware"));
}

// The page that stands where the file's was is no part of the file, where holes are made.
TEST(Failure, PagesThatWereExchanged_AreClearedAndDiscardedAsTheOthers) {
  for (const bool clear : {true, false}) {
    SCOPED_TRACE(clear);
    const std::string path = testing::TempDir() + "gyre-exchanged-" + std::to_string(::getpid());
    const auto errors = BusErrors::Create().value();
    const auto block =
        RamBlock::New("ram", {.size = kSize, .backend = RamBackend::kFile, .share = true, .path = path})
            .value();
    block->Guard(*errors);
    ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(kMiB)), 0);
    std::memset(block->host(), 0x5a, 2 * kMiB);
    ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(kSize)), 0);
    ::unlink(path.c_str());
    ASSERT_FALSE(errors->Take().empty());
    ASSERT_EQ(block->host()[kMiB], std::byte{0x5a});
    ASSERT_TRUE(clear ? block->Clear() : block->Discard(0, 2 * kMiB));
    EXPECT_EQ(block->host()[0], std::byte{0});
    EXPECT_EQ(block->host()[kMiB], std::byte{0});
    EXPECT_EQ(block->host()[2 * kMiB - 1], std::byte{0});
    EXPECT_TRUE(errors->Take().empty());
  }
}

// An image that PlaceFile has mapped, cut short while the guest lives.
TEST(Failure, OfAnImageThatStandsInRam_IsTold) {
  const auto errors = BusErrors::Create().value();
  const auto block = RamBlock::NewAnonymous("ram", kSize).value();
  block->Guard(*errors);
  GuestRam ram;
  ram.Add({.start = GuestAddress(0), .size = kSize, .block = block, .block_offset = 0});
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kMiB)), 0);
  ASSERT_TRUE(ram.PlaceFile(GuestAddress(kMiB), file.get(), 0, kMiB));
  ASSERT_EQ(block->file_extents(), 1U);
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  std::byte byte{7};
  ASSERT_TRUE(ram.Read(GuestAddress(kMiB + kPageSize), std::span(&byte, 1)));
  EXPECT_EQ(byte, std::byte{0});
  const auto taken = errors->Take();
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken[0].offset, kMiB + kPageSize);
  EXPECT_THAT(block->DescribeFailure(taken[0].offset, false), HasSubstr("image file"));
}

}  // namespace
}  // namespace gyre::memory
