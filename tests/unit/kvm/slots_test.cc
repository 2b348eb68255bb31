#include "kvm/slots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "gyre/base/format.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"

namespace gyre::kvm {
namespace {

using testing::ElementsAre;

class FakeLog final : public DirtyLog {
 public:
  explicit FakeLog(std::vector<std::string>& calls) : calls_(calls) {}
  Status Start() override { return {}; }
  void Add(SlotId slot, const LoggedSlot& logged) override {
    calls_.push_back(format("log {} {}+{}", slot.value(), logged.first_page, logged.pages));
  }
  Status Settle(SlotId slot) override { return Note("settle", slot); }
  Status Pull(SlotId slot) override {
    (void)Note("pull", slot);
    return pull_result;
  }
  void Remove(SlotId slot) override { (void)Note("forget", slot); }
  Status Stop() override { return {}; }
  Status Sync() override { return {}; }
  Status Clear(const memory::RamBlock&, std::uint64_t, std::uint64_t) override { return {}; }

  Status pull_result;

 private:
  Status Note(const char* what, SlotId slot) {
    calls_.push_back(format("{} {}", what, slot.value()));
    return {};
  }
  std::vector<std::string>& calls_;
};

class FakeBackend final : public SlotBackend {
 public:
  Status SetSlot(SlotId slot, const SlotSection& section) override {
    calls.push_back(format("{}:{:x}+{:x}{}{}", slot.value(), section.gpa, section.size,
                           section.readonly ? "r" : "", section.logged ? "L" : ""));
    if (fail || (section.logged && fail_to_log == slot)) {
      return Fail(Error::Host("refused"));
    }
    return {};
  }
  void HoldVcpus() override { calls.emplace_back("hold"); }
  void ReleaseVcpus() override { calls.emplace_back("release"); }
  DirtyLog* dirty_log() override { return &log; }
  std::vector<std::string> Take() { return std::exchange(calls, {}); }

  std::vector<std::string> calls;
  bool fail = false;
  std::optional<SlotId> fail_to_log;
  FakeLog log{calls};
};

class SlotsTest : public testing::Test {
 protected:
  SlotsTest() {
    big_lock.Lock();
    ram = memory::MemoryRegion::NewRam(topology, "ram",
                                       memory::RamBlock::NewAnonymous("ram", 64 * kPageSize).value());
    rom = memory::MemoryRegion::NewRom(topology, "rom",
                                       memory::RamBlock::NewAnonymous("rom", 16 * kPageSize).value());
  }
  ~SlotsTest() override {
    ram.reset();
    rom.reset();
    big_lock.Unlock();
  }
  memory::FlatRange Range(std::uint64_t start, std::uint64_t size, std::uint64_t offset = 0) const {
    return {.start = start, .last = start + size - 1, .region = ram, .region_offset = offset};
  }

  BigLock big_lock;
  memory::Topology topology{big_lock};
  memory::RegionPtr ram;
  memory::RegionPtr rom;
  FakeBackend backend;
  SlotTable table{backend, 3};
};

TEST_F(SlotsTest, Section_StartRoundsUpAndLengthDown) {
  const auto section = SectionOf(Range(0x10'0800, 0x2900, 0x800));
  ASSERT_TRUE(section);
  EXPECT_EQ(section->gpa, 0x10'1000U);
  EXPECT_EQ(section->size, 0x2000U);
  EXPECT_EQ(section->host, ram->ram()->host() + 0x1000);
  EXPECT_FALSE(section->readonly);
}

TEST_F(SlotsTest, Section_NoWholePageLeft_IsNone) {
  EXPECT_FALSE(SectionOf(Range(0x800, 0x1000, 0x800)));
  EXPECT_FALSE(SectionOf(Range(0x1800, 0x100, 0x800)));
  EXPECT_FALSE(SectionOf(Range(UINT64_MAX - 0xfe, 0xff)));
}

TEST_F(SlotsTest, Section_HostAndGuestOutOfStep_IsNone) {
  EXPECT_FALSE(SectionOf(Range(0x10'0000, 0x4000, 0x10)));
}

TEST_F(SlotsTest, Section_RomOrReadonlyRam_IsReadonly) {
  EXPECT_TRUE(SectionOf({.start = 0, .last = 0xfff, .region = rom})->readonly);
  auto range = Range(0, 0x1000);
  range.readonly = true;
  EXPECT_TRUE(SectionOf(range)->readonly);
}

TEST_F(SlotsTest, Commit_DeletesBeforeItAddsAndReusesNumbers) {
  table.QueueAdd(Range(0, 0x4000));
  table.QueueAdd(Range(0x10'0000, 0x4000));
  ASSERT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("0:0+4000", "1:100000+4000"));

  table.QueueAdd(Range(0x20'0000, 0x1000));
  table.QueueDelete(Range(0, 0x4000));
  ASSERT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("0:0+0", "0:200000+1000"));
}

TEST_F(SlotsTest, Commit_ExchangeOfTheSameAddresses_HoldsTheVcpus) {
  table.QueueAdd(Range(0, 0x4000));
  ASSERT_TRUE(table.Commit());
  backend.Take();
  table.QueueDelete(Range(0, 0x4000));
  table.QueueAdd(Range(0, 0x1000));
  table.QueueAdd(Range(0x2000, 0x2000, 0x2000));
  ASSERT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("hold", "0:0+0", "0:0+1000", "1:2000+2000", "release"));
}

TEST_F(SlotsTest, Commit_ChangeBelowAPage_DoesNothing) {
  table.QueueAdd(Range(0, 0x4800));
  ASSERT_TRUE(table.Commit());
  backend.Take();
  table.QueueDelete(Range(0, 0x4800));
  table.QueueAdd(Range(0, 0x4400));
  ASSERT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre());
  // It is still found under what it was replaced by.
  table.QueueDelete(Range(0, 0x4400));
  ASSERT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("0:0+0"));
}

TEST_F(SlotsTest, Commit_NoNumberLeft_FailsAndTheRestStands) {
  for (std::uint64_t i = 0; i < 4; ++i) {
    table.QueueAdd(Range(i * 0x10'0000, 0x1000));
  }
  const Status status = table.Commit();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "no memory slot left of 3 for gpa=0x300000 size=0x1000");
  EXPECT_EQ(backend.Take().size(), 3U);
  // What was never added is not deleted.
  table.QueueDelete(Range(0x30'0000, 0x1000));
  EXPECT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre());
}

TEST_F(SlotsTest, Commit_FailedAddition_LeavesItsNumberFree) {
  backend.fail = true;
  table.QueueAdd(Range(0, 0x1000));
  EXPECT_FALSE(table.Commit());
  backend.fail = false;
  backend.Take();
  table.QueueAdd(Range(0x1000, 0x1000));
  EXPECT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("0:1000+1000"));
}

TEST_F(SlotsTest, Commit_FailedDeletion_KeepsItsNumberUntilItSucceeds) {
  table.QueueAdd(Range(0, kPageSize));
  ASSERT_TRUE(table.Commit());
  backend.Take();
  backend.fail = true;
  table.QueueDelete(Range(0, kPageSize));
  EXPECT_FALSE(table.Commit());
  backend.fail = false;
  backend.Take();
  // KVM still maps it: nothing else may get its number, nor its place.
  table.QueueAdd(Range(4 * kPageSize, kPageSize));
  table.QueueAdd(Range(0, kPageSize, 8 * kPageSize));
  const auto status = table.Commit();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(), testing::HasSubstr("slot 0 is still there"));
  EXPECT_THAT(backend.Take(), ElementsAre("1:4000+1000"));
  table.QueueDelete(Range(0, kPageSize));
  EXPECT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("0:0+0"));
}

TEST_F(SlotsTest, Describe_NamesTheSlotOfARange) {
  table.QueueAdd(Range(0, kPageSize));
  table.QueueAdd(Range(0x10'0800, 0x2900, 0x800));
  ASSERT_TRUE(table.Commit());
  EXPECT_EQ(table.Describe(Range(0x10'0800, 0x2900, 0x800)), "slot 1");
  EXPECT_EQ(table.Describe(Range(0x20'0000, kPageSize)), "");
  EXPECT_EQ(table.Describe(Range(0x20'0800, 0x100, 0x800)), "");  // no whole page
}

TEST_F(SlotsTest, Logging_ChangesTheFlagsInPlaceAndOnlyWhereTheyDiffer) {
  table.QueueAdd(Range(0, 0x4000));
  table.QueueAdd(Range(0x10'0000, 0x2000, 0x5000));
  table.QueueAdd({.start = 0x20'0000, .last = 0x20'0fff, .region = rom});
  ASSERT_TRUE(table.Commit());
  backend.Take();
  ASSERT_TRUE(table.StartLogging());
  EXPECT_THAT(backend.Take(), ElementsAre("log 0 0+4", "0:0+4000L", "log 1 5+2", "1:100000+2000L"));
  ASSERT_TRUE(table.StartLogging());
  EXPECT_THAT(backend.Take(), ElementsAre("log 0 0+4", "log 1 5+2"));
  table.StopLogging();
  EXPECT_THAT(backend.Take(), ElementsAre("0:0+4000", "forget 0", "1:100000+2000", "forget 1"));
  table.StopLogging();
  EXPECT_THAT(backend.Take(), ElementsAre());
}

TEST_F(SlotsTest, Logging_SlotThatCannotBeLogged_TakesTheOthersBack) {
  table.QueueAdd(Range(0, 0x4000));
  table.QueueAdd(Range(0x10'0000, 0x2000, 0x5000));
  ASSERT_TRUE(table.Commit());
  backend.Take();
  backend.fail_to_log = SlotId(1);
  EXPECT_FALSE(table.StartLogging());
  EXPECT_THAT(backend.Take(), ElementsAre("log 0 0+4", "0:0+4000L", "log 1 5+2", "1:100000+2000L", "forget 1",
                                          "0:0+4000", "forget 0"));
  // And nothing that comes is logged.
  table.QueueAdd(Range(0x20'0000, 0x1000));
  ASSERT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("2:200000+1000"));
}

// No write may fall between the last look at a log and the slot's end, nor between a
// slot's beginning and its log's.
TEST_F(SlotsTest, Logging_ChangesHoldTheVcpusAndPullTheLogFirst) {
  table.QueueAdd(Range(0, 0x4000));
  ASSERT_TRUE(table.Commit());
  ASSERT_TRUE(table.StartLogging());
  backend.Take();
  table.QueueAdd(Range(0x10'0000, 0x2000, 0x5000));
  ASSERT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("hold", "log 1 5+2", "1:100000+2000L", "settle 1", "release"));
  table.QueueDelete(Range(0, 0x4000));
  ASSERT_TRUE(table.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre("hold", "pull 0", "0:0+0", "forget 0", "release"));
}

TEST_F(SlotsTest, Logging_SlotWhoseLogCannotBeRead_CountsAsWritten) {
  const auto& dirty = ram->ram()->dirty();
  topology.dirty().NoteRunning(true);
  ASSERT_TRUE(topology.dirty().Start(memory::DirtyClient::kSnapshot));
  ASSERT_TRUE(topology.dirty().TakeAll(memory::DirtyClient::kSnapshot, *ram->ram()));
  table.QueueAdd(Range(0, 0x4000, 0x2000));
  ASSERT_TRUE(table.Commit());
  ASSERT_TRUE(table.StartLogging());
  backend.log.pull_result = Fail(Error::Host("no"));
  table.QueueDelete(Range(0, 0x4000, 0x2000));
  ASSERT_TRUE(table.Commit());
  EXPECT_EQ(dirty.Count(memory::DirtyClient::kSnapshot), 4U);
}

// semantics of the seed's slot array: thousands are no burden.
TEST_F(SlotsTest, ThousandsOfSlots_KeepNumbersAndOrder) {
  constexpr std::uint64_t kSlots = 5000;
  SlotTable large(backend, kSlots);
  for (std::uint64_t i = 0; i < kSlots; ++i) {
    large.QueueAdd(Range(2 * i * kPageSize, kPageSize));
  }
  ASSERT_TRUE(large.Commit());
  ASSERT_EQ(backend.Take().size(), kSlots);
  for (std::uint64_t i = 0; i < kSlots; i += 2) {
    large.QueueDelete(Range(2 * i * kPageSize, kPageSize));
  }
  ASSERT_TRUE(large.Commit());
  EXPECT_EQ(backend.Take().size(), kSlots / 2);
  large.QueueAdd(Range(4 * kSlots * kPageSize, kPageSize));
  ASSERT_TRUE(large.Commit());
  EXPECT_THAT(backend.Take(), ElementsAre(format("0:{:x}+1000", 4 * kSlots * kPageSize)));
}

}  // namespace
}  // namespace gyre::kvm
