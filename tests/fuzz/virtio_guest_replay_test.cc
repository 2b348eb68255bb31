// Replays the virtio fuzzer's corpus, and random scripts; needs no clang.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "tests/fuzz/virtio_guest.h"

namespace gyre::virtio {
namespace {

TEST(VirtioGuestFuzzer, EachFileOfTheCorpus_LeavesAWorkingDevice) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GYRE_FUZZ_CORPUS "/virtio_guest")) {
    SCOPED_TRACE(entry.path());
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::vector<char> content{std::istreambuf_iterator<char>(stream), {}};
    FuzzVirtioGuest(std::as_bytes(std::span(content)));
    ++files;
  }
  EXPECT_GE(files, 4U) << "a corpus is part of the sources";
}

TEST(VirtioGuestFuzzer, RandomScripts_LeaveAWorkingDevice) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::byte> script(1500);
    std::ranges::generate(script, [&] { return static_cast<std::byte>(random()); });
    FuzzVirtioGuest(script);
  }
}

}  // namespace
}  // namespace gyre::virtio
