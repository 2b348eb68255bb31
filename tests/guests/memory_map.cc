// Prints the memory map that it was given, and proves that each RAM range has
// RAM of its own at its first and last 8 bytes.
#include "runtime/guest.h"

using namespace guest;

namespace {

constexpr std::uint32_t kRam = 1;
constexpr std::uint64_t kMapped = std::uint64_t{8} << 30;

std::uint64_t Mark(std::uint64_t address) { return address * 0x9e3779b97f4a7c15 + 1; }

// What the range's ends were, so that nothing of ours is lost.
struct Ends {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
};
Ends saved[64];

}  // namespace

void GuestMain(const BootInfo& boot) {
  const char* mistake = nullptr;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < boot.ranges; ++i) {
    const MemoryRange& range = boot.range[i];
    Print("map ", Hex{range.start}, ' ', Hex{range.size}, ' ', range.type, '\n');
    if (range.type != kRam) {
      continue;
    }
    if (range.size < 16 || range.start + range.size > kMapped) {
      Fail("memory_map", "a range is empty or beyond what this guest maps");
    }
    total += range.size;
    const std::uint64_t last = range.start + range.size - 8;
    saved[i] = {Read<std::uint64_t>(range.start), Read<std::uint64_t>(last)};
    Write(range.start, Mark(range.start));
    Write(last, Mark(last));
  }
  // Only when all are written can one be seen to stand for another.
  for (std::size_t i = 0; i < boot.ranges; ++i) {
    const MemoryRange& range = boot.range[i];
    if (range.type != kRam) {
      continue;
    }
    const std::uint64_t last = range.start + range.size - 8;
    if (Read<std::uint64_t>(range.start) != Mark(range.start) || Read<std::uint64_t>(last) != Mark(last)) {
      mistake = "a range does not keep what is written to its ends";
    }
    Write(range.start, saved[i].first);
    Write(last, saved[i].last);
  }
  Print("ram ", total, '\n');
  if (total == 0) {
    mistake = "no RAM in the map";
  }
  if (mistake != nullptr) {
    Fail("memory_map", mistake);
  }
  Pass("memory_map");
}
