// What a disk does about errors: the host's, and those of guest memory.
#include <sys/mman.h>

#include "gyre/base/bus_error.h"
#include "tests/unit/devices/virtio/block_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

class BlockErrors : public BlockFixture {};

// A page of guest RAM whose file has been cut short, met by the kernel for a request: it is posted
// as a bus error is, and the guest gets no answer, since the VM is about to stop for it.
TEST_F(BlockErrors, LostGuestPage_IsABusErrorAndNoAnswerOfTheDisks) {
  constexpr std::uint64_t kLost = 0x600000;
  const std::string file = image + "-ram";
  for (const std::uint32_t type : {kRead, kWrite}) {
    const auto errors = BusErrors::Create().value();
    auto block =
        memory::RamBlock::New(
            "lost", {.size = kMiB, .backend = memory::RamBackend::kFile, .share = true, .path = file})
            .value();
    block->Guard(*errors);
    const auto lost = memory::MemoryRegion::NewRam(memory.topology, "lost", block);
    ASSERT_TRUE(memory.root->Add(kLost, lost));
    Make();
    const bool to_guest = type == kRead;
    EXPECT_EQ(Request(type, 8, std::array{Buffer{kLost, 8192, to_guest}}), kOk);
    ASSERT_EQ(::truncate(file.c_str(), 4096), 0);
    EXPECT_EQ(Request(type, 8, std::array{Buffer{kLost, 4096, to_guest}}), kOk) << "what is left";
    Offer(type, 8, std::array{Buffer{kLost, 8192, to_guest}});
    EXPECT_TRUE(Await([&] { return errors->lost(); }));
    Settle();
    const auto taken = errors->Take();
    ASSERT_EQ(taken.size(), 1U);
    EXPECT_EQ(taken[0].memory, block->host());
    EXPECT_EQ(taken[0].offset, 4096U);
    EXPECT_EQ(Answer(), kUnanswered);
    EXPECT_FALSE(rings[0]->TakeUsed());
    // The machine stops and is reset.
    transport->Stop();
    transport->Drain();
    EXPECT_EQ(Answer(), kUnanswered);
    transport->Reset();
    transport->Start();
    Settle();
    EXPECT_EQ(Answer(), kUnanswered);
    Unplug();
    memory.root->Remove(lost);
    ::unlink(file.c_str());
  }
}

}  // namespace
}  // namespace gyre::virtio
