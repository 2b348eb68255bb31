// Guest memory whose file is cut short while vCPUs use it.
#include <sys/mman.h>
#include <unistd.h>

#include "gyre/base/bus_error.h"
#include "ring3.h"

// Counts at 0x5000 until 0x5008 is set, then reads the page that is no more.
GUEST_CODE(read_on_demand, 64, R"(
1: incl 0x5000
  cmpl $0, 0x5008
  je 1b
  movl 0x10000000, %eax
  movl %eax, 0x5010
  movl $1, 0x5014
2: incl 0x5018
  jmp 2b
)")

namespace gyre::kvm {
namespace {

constexpr std::uint64_t kFileAt = 0x1000'0000;

class MemoryFailureTest : public RingThreeTest {
 protected:
  MemoryFailureTest() {
    EXPECT_EQ(::ftruncate(file.get(), kMiB), 0);
    block = std::make_shared<memory::RamBlock>(
        "file", Mapping::File(file.get(), 0, kMiB, PROT_READ | PROT_WRITE, MAP_SHARED).value());
    block->Guard(*errors);
    EXPECT_TRUE(root->Add(kFileAt, memory::MemoryRegion::NewRam(topology, "file", block)));
  }

  ~MemoryFailureTest() override { Stop(); }  // before what the vCPUs' threads look at goes

  std::unique_ptr<BusErrors> errors = BusErrors::Create().value();
  UniqueFd file{::memfd_create("ram", MFD_CLOEXEC)};
  std::shared_ptr<memory::RamBlock> block;
};

TEST_F(MemoryFailureTest, InKvmRun_StopsThatVcpuWithAWord) {
  Start(1, {.bus_errors = errors.get()});
  RunAll(1, GuestCode_read_on_demand());
  ASSERT_TRUE(AwaitChange(0x5000));
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  SetRam<std::uint32_t>(0x5008, 1);
  // KVM says so itself, or has us make the access.
  std::vector<VcpuEvent> events;
  ASSERT_TRUE(AwaitThat([&] {
    events = vcpus->TakeEvents();
    return !events.empty() || errors->lost();
  }));
  if (!events.empty()) {
    EXPECT_EQ(events[0].kind, VcpuEventKind::kMemoryFailure) << events[0].detail;
    EXPECT_FALSE(events[0].hardware);
    if (events[0].address) {
      EXPECT_EQ(events[0].address->value(), kFileAt);
    }
  }
  // Nothing of the guest is executed from there on.
  ASSERT_TRUE(AwaitThat([&] { return vcpus->all_paused(); }));
  EXPECT_EQ(Ram<std::uint32_t>(0x5018), 0U);
}

TEST_F(MemoryFailureTest, InDispatch_GivesZerosAndIsPosted) {
  memory::ViewCache cache;
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  std::uint32_t value = 7;
  EXPECT_EQ(
      memory_space.Read(cache, GuestAddress(kFileAt + 0x2004), std::as_writable_bytes(std::span(&value, 1))),
      memory::AccessResult::kOk);
  EXPECT_EQ(value, 0U);
  const auto taken = errors->Take();
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(taken[0].offset, 0x2000U);
}

TEST_F(MemoryFailureTest, WhileMemoryIsLost_NoVcpuEnters) {
  Start(1, {.bus_errors = errors.get()});
  errors->Post({.memory = block->host(), .offset = 0, .hardware = true, .used = true});
  RunAll(1, GuestCode_read_on_demand());
  ASSERT_TRUE(AwaitThat([&] { return vcpus->all_paused(); }));
  EXPECT_EQ(Ram<std::uint32_t>(0x5000), 0U);
  EXPECT_EQ(errors->Take().size(), 1U);
  EXPECT_TRUE(errors->lost());
  errors->Forget();
  vcpus->ResumeAll();
  EXPECT_TRUE(AwaitChange(0x5000));
}

// Taken out by the kernel before anybody needed it: the guest goes on.
TEST_F(MemoryFailureTest, APageThatIsNotUsed_StopsNobody) {
  Start(1, {.bus_errors = errors.get()});
  errors->Post({.memory = block->host(), .offset = 0, .hardware = true, .used = false});
  RunAll(1, GuestCode_read_on_demand());
  EXPECT_TRUE(AwaitChange(0x5000));
}

}  // namespace
}  // namespace gyre::kvm
