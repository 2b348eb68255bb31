// Counts the allocations of the test's process, by all threads.
#pragma once

#include <cstdint>

namespace gyre::test {

bool CountsAllocations();  // not under ThreadSanitizer, whose operators new and delete cannot be replaced
std::uint64_t Allocations();

}  // namespace gyre::test
