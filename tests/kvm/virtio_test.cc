// virtio devices on KVM: ioeventfds and irqfds, as a driver meets them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>

#include "gyre/base/format.h"
#include "tests/kvm/gyred.h"
#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

class Virtio : public GyredTest {
 protected:
  std::string Image() const { return WriteTempFile("disk", std::string(1 << 20, 'i')); }
};

unsigned EnvironmentNumber(const char* name, unsigned otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : otherwise;
}

// The number that stands before that text; 0 if there is none.
std::uint64_t NumberBefore(const std::string& line, const std::string& text) {
  const auto end = line.find(text);
  const auto begin = end == std::string::npos ? end : line.find_last_of(' ', end - 1);
  return begin == std::string::npos ? 0 : std::strtoull(line.c_str() + begin, nullptr, 10);
}

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

// Two processors break the rules of a disk, an entropy device, a console and the sockets; a third works with
// another disk. GYRE_SCRIBBLE_SECONDS makes it longer, GYRE_SCRIBBLE_SEED repeats one.
TEST_F(Virtio, AGuestThatScribblesHarmsItselfAlone) {
  const unsigned seconds = EnvironmentNumber("GYRE_SCRIBBLE_SECONDS", 4);
  const unsigned seed = EnvironmentNumber("GYRE_SCRIBBLE_SEED", std::random_device{}());
  SCOPED_TRACE(format("GYRE_SCRIBBLE_SEED={}", seed));
  const std::string good = WriteTempFile("good", std::string(1 << 20, 'i'));
  const std::string socket = TempPath("qmp.sock");
  // What is on the first disk points nowhere when it is read into a ring.
  auto guest = StartGuest("scribble", {"--cpus",
                                       "3",
                                       "--memory",
                                       "1G",
                                       "--iothread",
                                       "a",
                                       "--iothread",
                                       "b",
                                       "--disk",
                                       "path=" + WriteTempFile("victim", std::string(256 << 10, '\xcc')) +
                                           ",queues=2,packed=on,iothread=a",
                                       "--disk",
                                       "id=good,iothread=b,path=" + good,
                                       "--entropy",
                                       "packed=on",
                                       "--console",
                                       "to=null,port=a:ringbuf,packed=on",
                                       "--vsock",
                                       "cid=3,packed=on,uds=" + TempPath("vsock"),
                                       "--qmp",
                                       "unix:" + socket,
                                       "--cmdline",
                                       format("{} {}", seed, seconds)});
  ASSERT_TRUE(guest.WaitForOutput("begin\n")) << guest.err();
  Client client = TalkTo(socket);
  std::uint64_t reads = 0;
  std::string report;
  for (unsigned round = 0; guest.out().find("scribbled\n") == std::string::npos; ++round) {
    ASSERT_TRUE(guest.StaysAlive(std::chrono::milliseconds(80))) << guest.err();
    const Json status = client.Run("query-status");
    const Json stats = client.Run("query-blockstats");
    const Json text = client.Run("human-monitor-command", {{"command-line", "info report"}});
    ASSERT_EQ(status["return"]["status"], "running") << round;
    ASSERT_EQ(stats["return"].size(), 2U);
    const auto now = stats["return"][1]["stats"]["rd_operations"].get<std::uint64_t>();
    if (round % 50 == 49) {
      ASSERT_GT(now, reads) << "the good disk stands";
      reads = now;
    }
    report = text["return"];
    if (round % 16 == 8) {
      ASSERT_EQ(client.Run("stop"), Json::parse(R"({"return": {}})"));
      ASSERT_EQ(client.Run("cont"), Json::parse(R"({"return": {}})"));
    }
  }
  guest.Write("q");
  const auto result = guest.Wait();
  EXPECT_GUEST_PASSES(result, "scribble");
  // What was wrong is counted, and only with whom it was.
  std::uint64_t refused = 0;
  std::uint64_t needed_reset = 0;
  for (const auto& line : LinesAfter(report, "virtio ")) {
    const std::uint64_t writes = NumberBefore(line, " writes refused");
    const std::uint64_t resets = NumberBefore(line, " times");
    EXPECT_TRUE(writes + resets == 0 || !line.starts_with("1 ")) << line;
    refused += writes;
    needed_reset += resets;
  }
  EXPECT_GT(refused, 0U) << report;
  EXPECT_GT(needed_reset, 0U) << report;
  std::cout << report.substr(0, report.find("address space")) << result.out;
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
