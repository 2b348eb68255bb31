// virtio devices on KVM: ioeventfds and irqfds, as a driver meets them.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

class Virtio : public GyredTest {
 protected:
  std::string Image() const { return WriteTempFile("disk", std::string(1 << 20, 'i')); }
};

TEST_F(Virtio, DiskWorksThroughMasksAndResets) {
  const std::string image = Image();
  // Each write takes its time, so that resets find some in flight.
  const auto result = RunGuest("virtio", {"--disk", "path=" + image + ",cache=writethrough"});
  EXPECT_GUEST_PASSES(result, "virtio");
  std::ifstream file(image, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  ASSERT_EQ(content.size(), 1U << 20);
  for (std::uint64_t round = 1; round <= 50; ++round) {
    std::uint64_t word = 0;
    std::memcpy(&word, content.data() + 1024 * round, sizeof(word));
    EXPECT_EQ(word, round << 32);
  }
  EXPECT_EQ(content.substr(0, 1024), std::string(1024, 'i'));
}

TEST_F(Virtio, AGuestThatScribblesHarmsItselfAlone) {
  const auto result = RunGuest("scribble", {"--disk", Image(), "--entropy", "on", "--cmdline", "500"});
  EXPECT_GUEST_PASSES(result, "scribble");
}

TEST_F(Virtio, AnImageInUseIsRefused) {
  const std::string image = Image();
  auto first = StartGuest("echo", {"--disk", image});
  ASSERT_TRUE(first.WaitForOutput("ready\n")) << first.err();
  const auto second = RunGuest("echo", {"--disk", image});
  EXPECT_EQ(second.exit_status, kBadUsage);
  EXPECT_NE(second.err.find("--disk: " + image + ": is in use"), std::string::npos) << second.Describe();
}

}  // namespace
}  // namespace gyre::test
