// Pages given back to the host, who hears of it, and who forbids it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/memory/discard.h"

namespace gyre::memory {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kSize = 4 * kMiB;
constexpr std::uint64_t kPart = kMiB;

std::shared_ptr<RamBlock> Make(const RamOptions& options) {
  auto block = RamBlock::New("ram", options);
  EXPECT_TRUE(block) << block.error().message();
  std::memset((*block)->host(), 0x5a, (*block)->size());
  return *block;
}

std::string Mistake(const Status& status) {
  EXPECT_FALSE(status);
  return status ? "" : status.error().message();
}

std::uint64_t ResidentPages(const RamBlock& block) {
  std::vector<unsigned char> pages(block.size() / kPageSize);
  EXPECT_EQ(::mincore(block.host(), block.size(), pages.data()), 0);
  return static_cast<std::uint64_t>(
      std::ranges::count_if(pages, [](unsigned char page) { return (page & 1) != 0; }));
}

std::uint64_t FileBytes(const RamBlock& block) {
  struct stat status{};
  EXPECT_EQ(::fstat(block.fd(), &status), 0);
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

void ExpectZeroWithin(const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
  for (std::uint64_t at = 0; at < block.size(); at += 256) {
    const bool inside = at >= offset && at < offset + size;
    ASSERT_EQ(block.host()[at], inside ? std::byte{0} : std::byte{0x5a}) << at;
  }
}

TEST(Discard, Anonymous_GivesItsPagesBackAndReadsZero) {
  const auto block = Make({.size = kSize});
  EXPECT_EQ(ResidentPages(*block), kSize / kPageSize);
  ASSERT_TRUE(block->Discard(kPart, 2 * kPart));
  EXPECT_EQ(ResidentPages(*block), (kSize - 2 * kPart) / kPageSize);
  ExpectZeroWithin(*block, kPart, 2 * kPart);
  block->host()[kPart] = std::byte{1};  // and may be used again
  EXPECT_EQ(block->host()[kPart], std::byte{1});
}

TEST(Discard, Memfd_PunchesAHole) {
  const auto block = Make({.size = kSize, .backend = RamBackend::kMemfd});
  EXPECT_EQ(FileBytes(*block), kSize);
  ASSERT_TRUE(block->Discard(0, kPart));
  EXPECT_EQ(FileBytes(*block), kSize - kPart);
  ExpectZeroWithin(*block, 0, kPart);
}

TEST(Discard, SharedFile_PunchesAHoleAndKeepsItsSize) {
  const std::string directory = testing::TempDir();
  const auto block = Make({.size = kSize, .backend = RamBackend::kFile, .share = true, .path = directory});
  ASSERT_TRUE(block->Discard(kSize - kPart, kPart));
  EXPECT_EQ(FileBytes(*block), kSize - kPart);
  struct stat status{};
  ASSERT_EQ(::fstat(block->fd(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(kSize));
  ExpectZeroWithin(*block, kSize - kPart, kPart);
}

TEST(Discard, WherePagesAreToStay_IsRefusedAndChangesNothing) {
  const std::string directory = testing::TempDir();
  const RamOptions prealloc{.size = kSize, .prealloc = true};
  const RamOptions private_file{.size = kSize, .backend = RamBackend::kFile, .path = directory};
  for (const RamOptions& options : {prealloc, private_file}) {
    const auto block = Make(options);
    EXPECT_THAT(Mistake(block->Discard(0, kPart)), HasSubstr("its pages are to stay"));
    ExpectZeroWithin(*block, 0, 0);
  }
  const auto foreign = std::make_shared<RamBlock>("mine", Mapping::Anonymous(kSize).value());
  EXPECT_THAT(Mistake(foreign->Discard(0, kPart)), HasSubstr("memory mine"));
}

TEST(Discard, WhereAnImageFileStands_IsRefused) {
  const auto block = RamBlock::NewAnonymous("ram", kSize).value();
  const UniqueFd file(::memfd_create("image", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kPart)), 0);
  ASSERT_TRUE(block->MapFile(kPart, kPart, file.get(), 0));
  EXPECT_THAT(Mistake(block->Discard(2 * kPart - kPageSize, 2 * kPageSize)), HasSubstr("a file's pages"));
  EXPECT_TRUE(block->Discard(2 * kPart, kPart));
}

TEST(Discard, PartsThatAreNotWholePagesWithinTheBlock_AreRefused) {
  const auto block = Make({.size = kSize});
  using Range = std::pair<std::uint64_t, std::uint64_t>;
  for (const auto& [offset, size] :
       {Range{1, kPageSize}, Range{0, 100}, Range{kSize, kPageSize}, Range{0, kSize + kPageSize},
        Range{UINT64_MAX & ~(kPageSize - 1), kPageSize}, Range{kPageSize, UINT64_MAX & ~(kPageSize - 1)}}) {
    EXPECT_THAT(Mistake(block->Discard(offset, size)), HasSubstr("whole pages"));
  }
  EXPECT_TRUE(block->Discard(0, 0));
  ExpectZeroWithin(*block, 0, 0);
}

struct Journal final : DiscardListener {
  void BeforeDiscard(const RamBlock& block, std::uint64_t offset, std::uint64_t size) override {
    Note("before", block, offset, size);
  }
  void AfterDiscard(const RamBlock& block, std::uint64_t offset, std::uint64_t size) override {
    Note("after", block, offset, size);
  }
  void Note(std::string_view when, const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
    notes.push_back(format("{} {:x}+{:x} {}", when, offset, size,
                           block.host()[offset] == std::byte{0} ? "zero" : "there"));
  }
  std::vector<std::string> notes;
};

TEST(Discard, Listeners_AreToldBeforeAndAfter) {
  const auto block = Make({.size = kSize});
  Journal journal;
  block->AddDiscardListener(journal);
  ASSERT_TRUE(block->Discard(kPart, kPart));
  EXPECT_THAT(journal.notes, ElementsAre("before 100000+100000 there", "after 100000+100000 zero"));
  journal.notes.clear();
  EXPECT_FALSE(block->Discard(0, 1));
  EXPECT_THAT(journal.notes, IsEmpty());
  ASSERT_TRUE(block->Clear());  // gives pages back as well
  EXPECT_THAT(journal.notes, ElementsAre("before 0+400000 there", "after 0+400000 zero"));
  block->RemoveDiscardListener(journal);
  ASSERT_TRUE(block->Discard(0, kPart));
  EXPECT_EQ(journal.notes.size(), 2U);
}

TEST(Discard, Banned_IsRefusedAndClearOverwrites) {
  const auto block = Make({.size = kSize});
  Journal journal;
  block->AddDiscardListener(journal);
  {
    auto first = DiscardBan::Of(block).value();
    const auto second = std::move(first);
    EXPECT_THAT(Mistake(block->Discard(0, kPart)), HasSubstr("pinned"));
    EXPECT_FALSE(block->anonymous());
    ASSERT_TRUE(block->Clear());
    EXPECT_EQ(ResidentPages(*block), kSize / kPageSize);
    ExpectZeroWithin(*block, 0, kSize);
    EXPECT_THAT(journal.notes, IsEmpty());
    EXPECT_FALSE(DiscardManager::Create(block, kPart));
  }
  EXPECT_TRUE(block->Discard(0, kPart));
}

struct Follower final : PopulationListener {
  explicit Follower(std::vector<std::string>& all, std::string own) : notes(all), name(std::move(own)) {}
  Status Populate(std::uint64_t offset, std::uint64_t size) override {
    notes.push_back(format("{}+{}-{}", name, offset / kPart, (offset + size) / kPart));
    return offset / kPart == refused ? Fail(Error::Host("no")) : Status();
  }
  void Depopulate(std::uint64_t offset, std::uint64_t size) override {
    notes.push_back(format("{}-{}-{}", name, offset / kPart, (offset + size) / kPart));
  }
  std::vector<std::string>& notes;
  std::string name;
  std::uint64_t refused = UINT64_MAX;
};

class DiscardManagerTest : public testing::Test {
 protected:
  std::string Populated() const {
    std::string text;
    EXPECT_TRUE(manager->ForEachPopulated(0, block->size(), [&](std::uint64_t offset, std::uint64_t size) {
      text += format("{}-{} ", offset / kPart, (offset + size) / kPart);
      return Status();
    }));
    return text;
  }
  Status Populate(std::uint64_t first, std::uint64_t end) const {
    return manager->Populate(first * kPart, (end - first) * kPart);
  }
  Status Depopulate(std::uint64_t first, std::uint64_t end) const {
    return manager->Depopulate(first * kPart, (end - first) * kPart);
  }

  std::shared_ptr<RamBlock> block = Make({.size = 16 * kPart});
  std::unique_ptr<DiscardManager> manager = DiscardManager::Create(block, kPart).value();
  std::vector<std::string> notes;
};

TEST_F(DiscardManagerTest, KeepsWhatIsPopulated) {
  EXPECT_EQ(Populated(), "");
  ASSERT_TRUE(Populate(2, 4));
  ASSERT_TRUE(Populate(6, 8));
  EXPECT_EQ(Populated(), "2-4 6-8 ");
  ASSERT_TRUE(Populate(4, 6));
  EXPECT_EQ(Populated(), "2-8 ");
  EXPECT_TRUE(manager->IsPopulated(2 * kPart, 6 * kPart));
  EXPECT_FALSE(manager->IsPopulated(2 * kPart, 7 * kPart));
  ASSERT_TRUE(Depopulate(3, 5));
  EXPECT_EQ(Populated(), "2-3 5-8 ");
  ASSERT_TRUE(Depopulate(0, 16));
  EXPECT_EQ(Populated(), "");
}

TEST_F(DiscardManagerTest, Depopulate_GivesThePagesBack) {
  ASSERT_TRUE(Populate(0, 16));
  ASSERT_TRUE(Depopulate(4, 12));
  EXPECT_EQ(ResidentPages(*block), 8 * kPart / kPageSize);
  ExpectZeroWithin(*block, 4 * kPart, 8 * kPart);
}

TEST_F(DiscardManagerTest, Listeners_AreToldOnlyWhatChanges) {
  Follower first(notes, "a");
  Follower second(notes, "b");
  ASSERT_TRUE(Populate(2, 4));
  ASSERT_TRUE(manager->AddListener(first));
  EXPECT_THAT(notes, ElementsAre("a+2-4"));
  ASSERT_TRUE(manager->AddListener(second));
  notes.clear();
  ASSERT_TRUE(Populate(1, 6));
  EXPECT_THAT(notes, ElementsAre("a+1-2", "a+4-6", "b+1-2", "b+4-6"));
  notes.clear();
  ASSERT_TRUE(Depopulate(5, 9));
  EXPECT_THAT(notes, ElementsAre("b-5-6", "a-5-6"));
  notes.clear();
  manager->RemoveListener(second);
  EXPECT_THAT(notes, ElementsAre("b-1-5"));
}

TEST_F(DiscardManagerTest, AListenerThatFails_LeavesAllAsItWas) {
  Follower first(notes, "a");
  Follower second(notes, "b");
  ASSERT_TRUE(Populate(3, 4));
  ASSERT_TRUE(manager->AddListener(first));
  ASSERT_TRUE(manager->AddListener(second));
  notes.clear();
  second.refused = 4;
  EXPECT_FALSE(Populate(2, 6));
  EXPECT_EQ(Populated(), "3-4 ");
  EXPECT_THAT(notes, ElementsAre("a+2-3", "a+4-6", "b+2-3", "b+4-6", "b-2-3", "a-2-3", "a-4-6"));
  notes.clear();
  Follower late(notes, "c");
  late.refused = 3;
  EXPECT_FALSE(manager->AddListener(late));
  ASSERT_TRUE(Populate(8, 9));
  EXPECT_THAT(notes, ElementsAre("c+3-4", "a+8-9", "b+8-9"));
}

TEST_F(DiscardManagerTest, RulesOutWhoPinsPages) {
  EXPECT_FALSE(DiscardBan::Of(block));
  manager.reset();
  EXPECT_TRUE(DiscardBan::Of(block));
}

TEST_F(DiscardManagerTest, PartsThatAreNotWholeGranules_AreRefused) {
  EXPECT_FALSE(manager->Populate(kPageSize, kPart));
  EXPECT_FALSE(manager->Populate(0, kPageSize));
  EXPECT_FALSE(manager->Depopulate(16 * kPart, kPart));
  EXPECT_FALSE(DiscardManager::Create(block, 100));
  EXPECT_FALSE(manager->IsPopulated(0, UINT64_MAX));
}

}  // namespace
}  // namespace gyre::memory
