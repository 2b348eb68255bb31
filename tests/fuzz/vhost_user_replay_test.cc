// Replays the vhost-user fuzzer's corpus, and random scripts; needs no clang.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "tests/fuzz/vhost_user.h"

namespace gyre::virtio {
namespace {

TEST(VhostUserFuzzer, EachFileOfTheCorpus_LeavesAWorkingDevice) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GYRE_FUZZ_CORPUS "/vhost_user")) {
    SCOPED_TRACE(entry.path());
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::vector<char> content{std::istreambuf_iterator<char>(stream), {}};
    FuzzVhostUser(std::as_bytes(std::span(content)));
    ++files;
  }
  EXPECT_GE(files, 4U) << "a corpus is part of the sources";
}

// Most answers of the first connection are honest, or there would be no other.
TEST(VhostUserFuzzer, RandomScripts_LeaveAWorkingDevice) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> script(400);
    std::ranges::generate(script, [&] { return static_cast<std::byte>(random()); });
    std::fill_n(script.begin(), 12 * (round % 3), std::byte{0});
    FuzzVhostUser(script);
  }
}

}  // namespace
}  // namespace gyre::virtio
