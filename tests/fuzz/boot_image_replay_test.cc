// Replays the boot image fuzzer's corpus; needs no clang.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "tests/fuzz/boot_image.h"

namespace gyre::machine {
namespace {

TEST(BootImageFuzzer, EachFileOfTheCorpus_IsRefusedOrPlacedSoundly) {
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GYRE_FUZZ_CORPUS "/boot_image")) {
    SCOPED_TRACE(entry.path());
    std::ifstream stream(entry.path(), std::ios::binary);
    const std::vector<char> content{std::istreambuf_iterator<char>(stream), {}};
    FuzzBootImage(std::as_bytes(std::span(content)));
    ++files;
  }
  EXPECT_GE(files, 6u) << "a corpus is part of the sources";
}

}  // namespace
}  // namespace gyre::machine
