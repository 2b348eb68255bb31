// Replays the wire fuzzer's corpus, and mutations of it; needs no clang.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/qmp.h"

namespace gyre::control {
namespace {

std::vector<std::string> Corpus() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(GYRE_FUZZ_CORPUS "/qmp")) {
    std::ifstream stream(entry.path(), std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  return files;
}

TEST(QmpFuzzer, EachFileOfTheCorpus_IsServed) {
  const auto files = Corpus();
  EXPECT_GE(files.size(), 4U) << "a corpus is part of the sources";
  for (const auto& file : files) {
    FuzzQmp(file);
    FuzzQmpServer(file);
  }
}

TEST(QmpFuzzer, Mutations_AreServed) {
  std::mt19937 random(1);
  for (const auto& file : Corpus()) {
    for (int round = 0; round < 300; ++round) {
      std::string mutated = file;
      for (int i = 0; i < 1 + round % 5; ++i) {
        mutated[random() % mutated.size()] = static_cast<char>(random());
      }
      FuzzQmp(mutated);
      FuzzQmpServer(mutated);
    }
  }
}

}  // namespace
}  // namespace gyre::control
