// Replays the exec protocol's corpus, and mutations of it; needs no clang.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/fuzz/exec_frames.h"

namespace gyre::exec {
namespace {

// What may be wrong with a frame is a byte or a few, and where the stream ends.
void Mutate(std::string& stream, std::mt19937& random) {
  for (auto i = random() % 5; i < 5; ++i) {
    stream[random() % stream.size()] = static_cast<char>(random());
  }
  stream.resize(1 + random() % stream.size());
}

TEST(ExecFramesFuzzer, CorpusAndMutationsOfIt_AreReadOrRefused) {
  std::mt19937 random(1);
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GYRE_FUZZ_CORPUS "/exec_frames")) {
    SCOPED_TRACE(entry.path());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string stream{std::istreambuf_iterator<char>(file), {}};
    FuzzExecFrames(stream);
    for (int round = 0; round < 2000; ++round) {
      std::string mutated = stream;
      Mutate(mutated, random);
      FuzzExecFrames(mutated);
    }
    ++files;
  }
  EXPECT_GE(files, 4U) << "a corpus is part of the sources";
}

}  // namespace
}  // namespace gyre::exec
