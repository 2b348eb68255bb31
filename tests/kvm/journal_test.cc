// gyred killed at any moment: what the guest saw as flushed is in the image.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <random>

#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

constexpr std::size_t kWords = 512;  // of a record, each its number
constexpr std::uint64_t kMostRecords = 1U << 18;

struct Kind {
  const char* name;
  const char* disk;
  Arguments more;
  friend void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }
};

class Journal : public GyredTest, public testing::WithParamInterface<Kind> {
 protected:
  static constexpr unsigned kKills = 25;

  std::string Image() const { return TempPath("image"); }
  // The last number that it said; less than `first` if it said none. A line that was cut off says nothing.
  static std::uint64_t Flushed(const std::string& out, std::uint64_t first) {
    std::uint64_t last = first - 1;
    for (const std::string& number : LinesAfter(out.substr(0, out.rfind('\n') + 1), "flushed ")) {
      std::from_chars(number.data(), number.data() + number.size(), last);
    }
    return last;
  }
  // How many records from `first` to `last` are not in the image, whole.
  std::uint64_t Missing(std::uint64_t first, std::uint64_t last) const {
    std::ifstream image(Image(), std::ios::binary);
    std::uint64_t missing = 0;
    for (std::uint64_t number = first; number <= last; ++number) {
      std::array<std::uint64_t, kWords> record{};
      image.seekg(static_cast<std::streamoff>(sizeof(record) * number));
      image.read(reinterpret_cast<char*>(record.data()), sizeof(record));
      missing += std::ranges::all_of(record, [&](std::uint64_t word) { return word == number; }) ? 0U : 1U;
    }
    return missing;
  }
};

TEST_P(Journal, WhatWasFlushedIsThereAfterAnyKill) {
  std::filesystem::resize_file(WriteTempFile("image", ""), kMostRecords * 8 * kWords);
  std::minstd_rand random(std::random_device{}());
  std::uint64_t next = 1;
  for (unsigned kill = 0; kill < kKills; ++kill) {
    Arguments arguments = GetParam().more;
    arguments.insert(arguments.end(),
                     {"--disk", "path=" + Image() + GetParam().disk, "--cmdline", std::to_string(next)});
    auto guest = StartGuest("journal", arguments);
    if (!guest.WaitForOutput("flushed ")) {
      if (guest.err().find("takes no O_DIRECT") != std::string::npos) {
        GTEST_SKIP() << guest.err();
      }
      FAIL() << guest.err();
    }
    ASSERT_TRUE(guest.StaysAlive(std::chrono::milliseconds(random() % 40))) << guest.err();
    guest.Signal(SIGKILL);
    const auto result = guest.Wait();
    ASSERT_EQ(result.signal, SIGKILL) << result.Describe();
    const std::uint64_t last = Flushed(result.out, next);
    ASSERT_EQ(Missing(next, last), 0U) << "of " << next << " to " << last;
    next = last + 1;
    ASSERT_LT(next, kMostRecords / 2);
  }
  EXPECT_GE(next, kKills);
  EXPECT_EQ(Missing(1, next - 1), 0U) << "none was lost later";
}

INSTANTIATE_TEST_SUITE_P(
    All, Journal,
    testing::Values(Kind{"Writeback", "", {}}, Kind{"Direct", ",cache=none", {}},
                    Kind{"Writethrough", ",cache=writethrough", {}},
                    Kind{"IoThread", ",iothread=a", {"--iothread", "a,poll-max-ns=50000"}}),
    [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace gyre::test
