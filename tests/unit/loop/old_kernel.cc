// What an older kernel says to liburing, in front of the real one: the linker puts
// these in the place of its functions (-Wl,--wrap). GYRE_TEST_KERNEL is the
// kernel's version as major * 100 + minor, 513 where it is not set.
#include <gtest/gtest.h>
#include <liburing.h>

#include <cerrno>
#include <cstdlib>

#include "loop/ring.h"

namespace {

int Version() {
  const char* text = std::getenv("GYRE_TEST_KERNEL");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return text == nullptr ? 513 : std::atoi(text);      // NOLINT(cert-err34-c)
}

unsigned KnownSetupFlags() {
  unsigned flags = IORING_SETUP_IOPOLL | IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF | IORING_SETUP_CQSIZE |
                   IORING_SETUP_CLAMP | IORING_SETUP_ATTACH_WQ | IORING_SETUP_R_DISABLED;
  if (Version() >= 518) {
    flags |= IORING_SETUP_SUBMIT_ALL;
  }
  if (Version() >= 519) {
    flags |= IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  }
  return flags;
}

// The other tests are worth something only if this holds.
TEST(OldKernel, TheRing_HasWhatThisKernelOffers) {
  const auto ring = gyre::loop::Ring::Create();
  ASSERT_TRUE(ring.has_value()) << ring.error().message();
  EXPECT_FALSE(ring->features().deferred_work);
  EXPECT_EQ(ring->features().work_flag, Version() >= 519);
  EXPECT_EQ(ring->features().registered_fd, Version() >= 518);
}

}  // namespace

extern "C" {
// The names are the linker's.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
int __real_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* params);
int __real_io_uring_register_ring_fd(io_uring* ring);

int __wrap_io_uring_queue_init_params(unsigned entries, io_uring* ring, io_uring_params* params) {
  return (params->flags & ~KnownSetupFlags()) != 0 ? -EINVAL
                                                   : __real_io_uring_queue_init_params(entries, ring, params);
}

int __wrap_io_uring_register_ring_fd(io_uring* ring) {
  return Version() < 518 ? -EINVAL : __real_io_uring_register_ring_fd(ring);
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)
}
