// Maps a page of its own at a linear address far from the physical one, and stays.
#include "runtime/guest.h"

using namespace guest;

extern "C" std::uint64_t page_map[512];

namespace {

constexpr std::uint64_t kPresentWritableUser = 7;
constexpr std::size_t kRootIndex = 100;
constexpr std::uint64_t kLinear = kRootIndex
                                  << 39;  // not in the upper half, which not every KVM lets ring 3 use

struct alignas(4096) Table {
  std::uint64_t entries[512];
};
Table levels[3];
Table page;

std::uint64_t EntryOf(const void* table) {
  return reinterpret_cast<std::uint64_t>(table) | kPresentWritableUser;
}

}  // namespace

// What a debugger looks for.
extern "C" {
std::uint64_t kept = 0x1234'5678'9abc'def0;
}

void GuestMain(const BootInfo& /*boot*/) {
  page.entries[0] = 0x0fed'cba9'8765'4321;
  levels[2].entries[5] = EntryOf(&page);
  levels[1].entries[0] = EntryOf(&levels[2]);
  levels[0].entries[0] = EntryOf(&levels[1]);
  page_map[kRootIndex] = EntryOf(&levels[0]);
  const bool mapped = Read<std::uint64_t>(kLinear + 0x5000) == page.entries[0] && kept != 0;
  Print(mapped ? "mapped\n" : "not mapped\n");
  while (true) {
    Pause();
  }
}
