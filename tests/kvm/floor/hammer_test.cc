// vCPUs hammer everything that a map can hold while it changes under them, thousands
// of times: what they read was legal at some moment, no write and no kick is lost.
// SEED= repeats a run, ROUNDS= sets its length.
#include <cstdio>
#include <random>

#include "ring3.h"

// Sets bit `bit` of this vCPU's errors unless the word at `address` is one of the values.
#define READ_ONE_OF(address, first, second, third, bit) \
  "movl " address                                       \
  ", %eax\n"                                            \
  "cmpl $" first                                        \
  ", %eax\n je 9f\n"                                    \
  "cmpl $" second                                       \
  ", %eax\n je 9f\n"                                    \
  "cmpl $" third                                        \
  ", %eax\n je 9f\n"                                    \
  "orq $" bit                                           \
  ", 8(%r8)\n"                                          \
  "movl %eax, 32(%r8)\n"                                \
  "9:\n"

// R8: this vCPU's mailbox: rounds done, errors, -, whether it has ended, the last bad
// value. R9: its own word on the heap.
GUEST_CODE(hammer, 64,
           R"(
  movl %edi, %r8d
  shll $6, %r8d
  addl $0x5000, %r8d
  movl %edi, %r9d
  shll $12, %r9d
  addl $0x10000010, %r9d
  xorl %ebx, %ebx
1: incq %rbx
  movq %rbx, (%r9)
  cmpq %rbx, (%r9)
  je 2f
  orq $1, 8(%r8)
2:
)" READ_ONE_OF("0x11000000", "0x4d4d4d4d", "-1", "-1", "2")
               READ_ONE_OF("0x11100000", "0x4d4d4d4d", "-1", "-1", "4")
                   READ_ONE_OF("0x12000000", "0x42424242", "0x4f4f4f4f", "0x52525252", "8")
                       READ_ONE_OF("0x13000000", "0x44444444", "0x48484848", "0x48484848", "16")
                           R"(
  movl %ebx, 0x13000004
  movl %ebx, 0x14000000
  movl $1, 0x15000000
  movl %ebx, 0x16000000
)" READ_ONE_OF("0x16000000", "0x52525252", "0x52525252", "0x52525252", "32")
                               READ_ONE_OF("0x17000000", "0x58585858", "-1", "-1", "64")
                                   READ_ONE_OF("0x17010000", "0x58585858", "-1", "-1", "128")
                                       R"(
  movq %rbx, (%r8)
  cmpl $0, 0x4ff0
  je 1b
  movl $1, 24(%r8)
3: pause
  jmp 3b
)")

namespace gyre::kvm {
namespace {

constexpr unsigned kVcpus = 3;
constexpr std::uint64_t kHeap = 0x1000'0000;

std::shared_ptr<memory::RamBlock> Filled(std::uint64_t pages, int byte) {
  auto block = memory::RamBlock::NewAnonymous("block", pages * kPageSize).value();
  std::memset(block->host(), byte, block->size());
  return block;
}

// Reads as one byte again and again, counts writes.
class Counter final : public memory::RegionHandler {
 public:
  explicit Counter(std::uint64_t byte) : value_(byte * 0x0101'0101) {}
  std::uint64_t Read(std::uint64_t, unsigned) override { return value_; }
  void Write(std::uint64_t, unsigned, std::uint64_t) override { writes.fetch_add(1); }
  std::atomic<std::uint64_t> writes{0};

 private:
  std::uint64_t value_;
};

class HammerTest : public RingThreeTest {
 protected:
  using Region = memory::MemoryRegion;
  using RegionPtr = memory::RegionPtr;

  HammerTest() {
    const memory::Transaction build(topology);
    Place(0x1000'0000, heap);
    Place(0x1100'0000, moving_ram);
    Place(0x1200'0000, base);
    Place(0x1200'0000, io_overlay, 1);
    Place(0x1200'0000, rom_overlay, 2);
    Place(0x1300'0000, rom_device);
    Place(0x1400'0000, locked);
    Place(0x1500'0000, bell);
    Place(0x1600'0000, rom);
    Place(0x1600'2000, beside_rom, 1);
    Place(0x1700'0000, moving_io);
    Place(kHeap + 0x8000, heap_overlay, 1);
    Place(0x1900'0000, window);
  }
  ~HammerTest() override { Stop(); }

  void Place(std::uint64_t address, const RegionPtr& region, int priority = 0) {
    EXPECT_TRUE(root->Add(address, region, priority));
  }
  RegionPtr Io(Counter& counter, memory::LockPolicy lock) {
    memory::IoTraits traits;
    traits.lock = lock;
    return Region::NewIo(topology, "io", kPageSize, counter, traits);
  }

  void ToggleBell() {
    has_event_fd = !has_event_fd;
    const memory::IoEventFd event_fd{.offset = 0, .size = 4, .match = std::nullopt, .fd = kicks.get()};
    if (has_event_fd) {
      bell->AddIoEventFd(event_fd);
    } else {
      bell->RemoveIoEventFd(event_fd);
    }
  }
  static void Toggle(const RegionPtr& region) { region->SetEnabled(!region->enabled()); }
  static void Move(const RegionPtr& region, std::uint64_t here, std::uint64_t there) {
    EXPECT_TRUE(region->SetOffset(region->offset() == here ? there : here));
  }

  void ChangeSomething(std::mt19937_64& random) {
    switch (random() % 9) {
      case 0:
        return Move(moving_ram, 0x1100'0000, 0x1110'0000);
      case 1:
        return Toggle(io_overlay);
      case 2:
        return Toggle(rom_overlay);
      case 3:
        return rom_device->SetRomDirect(!rom_device->rom_direct());
      case 4:
        return Toggle(heap_overlay);
      case 5:
        return ToggleBell();
      case 6:
        return Move(moving_io, 0x1700'0000, 0x1701'0000);
      case 7:
        return Toggle(beside_rom);
      default:
        EXPECT_TRUE(window->SetAliasOffset((random() % 8) * kPageSize));
        return;
    }
  }

  // Rounds of vCPU i, and its errors.
  std::uint64_t Rounds(unsigned i) const { return Ram<std::uint64_t>(0x5000 + (64 * i)); }
  std::uint64_t Errors(unsigned i) const { return Ram<std::uint64_t>(0x5008 + (64 * i)); }
  bool Ended(unsigned i) const { return Ram<std::uint32_t>(0x5018 + (64 * i)) != 0; }
  std::uint64_t Total() const {
    std::uint64_t total = 0;
    for (unsigned i = 0; i < kVcpus; ++i) {
      total += Rounds(i);
    }
    return total;
  }

  Counter overlay_io{0x4f}, rom_writes{0x48}, locked_io{0x49}, bell_io{0}, moving{0x58}, unused{0};
  UniqueFd kicks = NewEventFd().value();
  bool has_event_fd = false;
  std::shared_ptr<memory::RamBlock> heap_ram = Filled(16, 0);
  RegionPtr heap = Region::NewRam(topology, "heap", heap_ram);
  RegionPtr heap_overlay = Io(unused, memory::LockPolicy::kNone);
  RegionPtr moving_ram = Region::NewRam(topology, "moving", Filled(16, 0x4d));
  RegionPtr base = Region::NewRam(topology, "base", Filled(4, 0x42));
  RegionPtr io_overlay = Io(overlay_io, memory::LockPolicy::kNone);
  RegionPtr rom_overlay = Region::NewRom(topology, "rom overlay", Filled(1, 0x52));
  RegionPtr rom_device = Region::NewRomDevice(topology, "rom device", Filled(1, 0x44), rom_writes,
                                              {.lock = memory::LockPolicy::kNone});
  RegionPtr locked = Io(locked_io, memory::LockPolicy::kBigLock);
  RegionPtr bell = Io(bell_io, memory::LockPolicy::kNone);
  RegionPtr rom = Region::NewRom(topology, "rom", Filled(8, 0x52));
  RegionPtr beside_rom = Io(unused, memory::LockPolicy::kNone);
  RegionPtr moving_io = Io(moving, memory::LockPolicy::kNone);
  RegionPtr window = Region::NewAlias(topology, "window", heap, 0, 4 * kPageSize);
};

TEST_F(HammerTest, ThousandsOfChanges_LoseNoWriteNoKickAndShowNothingElse) {
  const std::uint64_t seed = FromEnvironment("SEED", std::random_device()());
  const std::uint64_t rounds = FromEnvironment("ROUNDS", 3000);
  std::printf("SEED=%llu ROUNDS=%llu\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(rounds));
  std::mt19937_64 random(seed);
  Start(kVcpus);
  RunAll(kVcpus, GuestCode_hammer());
  for (std::uint64_t round = 0; round < rounds; ++round) {
    {
      memory::Transaction change(topology);
      for (std::uint64_t edits = 1 + (random() % 3); edits > 0; --edits) {
        ChangeSomething(random);
      }
      const Status status = change.Commit();
      ASSERT_TRUE(status) << status.error().message();
    }
    GiveTurn();
  }
  // Each has lived through some of it, and goes on when nothing changes any more.
  ASSERT_TRUE(AwaitThat([this] { return Rounds(0) > 20 && Rounds(1) > 20 && Rounds(2) > 20; }));
  SetRam<std::uint32_t>(0x4ff0, 1);
  ASSERT_TRUE(AwaitThat([this] { return Ended(0) && Ended(1) && Ended(2); }));
  vcpus->PauseAll();
  for (unsigned i = 0; i < kVcpus; ++i) {
    EXPECT_EQ(Errors(i), 0U) << "vCPU " << i << " read " << std::hex << Ram<std::uint32_t>(0x5020 + (64 * i));
    std::uint64_t on_heap = 0;
    std::memcpy(&on_heap, heap_ram->host() + (kPageSize * i) + 0x10, sizeof(on_heap));
    EXPECT_EQ(on_heap, Rounds(i)) << "vCPU " << i;
  }
  std::uint64_t kicked = 0;
  if (::read(kicks.get(), &kicked, sizeof(kicked)) < 0) {
    kicked = 0;
  }
  std::printf("guest rounds %llu, kicks by eventfd %llu, by exit %llu\n",
              static_cast<unsigned long long>(Total()), static_cast<unsigned long long>(kicked),
              static_cast<unsigned long long>(bell_io.writes));
  EXPECT_EQ(kicked + bell_io.writes, Total());
  EXPECT_EQ(locked_io.writes, Total());
  EXPECT_EQ(rom_writes.writes, Total());
}

}  // namespace
}  // namespace gyre::kvm
