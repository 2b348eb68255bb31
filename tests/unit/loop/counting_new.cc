#include "counting_new.h"

#include <atomic>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_THREAD__)
#define GYRE_HAS_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GYRE_HAS_TSAN
#endif
#endif

namespace {

std::atomic<std::uint64_t> allocations{0};

}  // namespace

#if defined(GYRE_HAS_TSAN)
bool gyre::test::CountsAllocations() { return false; }
#else
bool gyre::test::CountsAllocations() { return true; }

void* operator new(std::size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size)) {
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

std::uint64_t gyre::test::Allocations() { return allocations.load(); }
