// Replays the virtio fuzzers' corpora, and random scripts; needs no clang.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "tests/fuzz/virtio_guest.h"
#include "tests/fuzz/virtio_registers.h"
#include "tests/fuzz/virtio_ring.h"

namespace gyre::virtio {
namespace {

struct Target {
  std::string name;
  void (*fuzz)(std::span<const std::byte> script);
  int random_rounds;
  friend void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }
};

class VirtioFuzzer : public testing::TestWithParam<Target> {};

TEST_P(VirtioFuzzer, EachFileOfTheCorpus_LeavesAWorkingDevice) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GYRE_FUZZ_CORPUS "/" + GetParam().name)) {
    SCOPED_TRACE(entry.path());
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::vector<char> content{std::istreambuf_iterator<char>(stream), {}};
    GetParam().fuzz(std::as_bytes(std::span(content)));
    ++files;
  }
  EXPECT_GE(files, 4U) << "a corpus is part of the sources";
}

TEST_P(VirtioFuzzer, RandomScripts_LeaveAWorkingDevice) {
  std::mt19937 random(1);
  for (int round = 0; round < GetParam().random_rounds; ++round) {
    std::vector<std::byte> script(1500);
    std::ranges::generate(script, [&] { return static_cast<std::byte>(random()); });
    GetParam().fuzz(script);
  }
}

INSTANTIATE_TEST_SUITE_P(All, VirtioFuzzer,
                         testing::Values(Target{"virtio_guest", FuzzVirtioGuest, 300},
                                         Target{"virtio_registers", FuzzVirtioRegisters, 1000},
                                         Target{"virtio_ring", FuzzVirtioRing, 3000}),
                         [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace gyre::virtio
