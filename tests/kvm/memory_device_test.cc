// Devices with memory of their own, and balloons, as clients of the real gyred see them.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
constexpr std::uint64_t kGiB = 1024 * kMiB;

TEST_F(Control, MemoryDevices_AreToldAsQemusClientsKnowThem) {
  const std::string image = WriteTempFile("image", "");
  std::filesystem::resize_file(image, 2 * kMiB);
  auto process =
      StartGuest("echo", With({"--memory", "32M", "--mem-device", "size=1G,requested-size=64M,id=more",
                               "--mem-device", "size=5G,share=on", "--pmem", "path=" + image}));
  auto client = Talk();
  const Json devices = client.Run("query-memory-devices")["return"];
  ASSERT_EQ(devices.size(), 3U);
  EXPECT_EQ(devices[0], Json({{"type", "virtio-mem"},
                              {"data",
                               {{"id", "more"},
                                {"memaddr", 4 * kGiB},
                                {"requested-size", 64 * kMiB},
                                {"size", 0},
                                {"max-size", kGiB},
                                {"block-size", 2 * kMiB},
                                {"node", 0},
                                {"memdev", "/machine/mem-device/more/memory"}}}}));
  EXPECT_EQ(devices[1]["data"]["id"], "mem1");
  EXPECT_EQ(devices[1]["data"]["memaddr"], 5 * kGiB);
  EXPECT_EQ(devices[2], Json({{"type", "virtio-pmem"},
                              {"data",
                               {{"id", "pmem0"},
                                {"memaddr", 10 * kGiB},
                                {"size", 2 * kMiB},
                                {"memdev", "/machine/pmem/pmem0/memory"}}}}));
  EXPECT_EQ(client.Run("query-memory-size-summary")["return"],
            Json({{"base-memory", 32 * kMiB}, {"plugged-memory", 0}}));
  const auto resize = [&client](const char* id, std::uint64_t size) {
    return client.Run("memory-device-resize", {{"id", id}, {"size", size}});
  };
  EXPECT_EQ(resize("mem1", kGiB)["return"], Json::object());
  EXPECT_EQ(client.Run("query-memory-devices")["return"][1]["data"]["requested-size"], kGiB);
  EXPECT_EQ(resize("mem1", kMiB)["error"]["desc"],
            "'mem1' has whole blocks of 2097152 bytes, and 5368709120 bytes at most");
  EXPECT_EQ(resize("mem1", 6 * kGiB)["error"]["class"], "GenericError");
  EXPECT_EQ(resize("pmem0", 0)["error"]["desc"], "'pmem0' is as large as its image");
  EXPECT_EQ(resize("mem7", 0)["error"]["class"], "DeviceNotFound");
}

TEST_F(Control, MemoryDevices_ThatCannotBeAreRefused) {
  const std::string image = WriteTempFile("image", "too small");
  const auto refused = [](const Arguments& more) {
    const auto result = RunGuest("echo", more);
    EXPECT_EQ(result.exit_status, kBadUsage) << result.Describe();
    return result.err;
  };
  EXPECT_THAT(refused({"--mem-device", "size=3M"}),
              testing::HasSubstr("--mem-device: size and requested-size"));
  EXPECT_THAT(refused({"--mem-device", "size=64M,id=a", "--mem-device", "size=64M,id=a"}),
              testing::HasSubstr("--mem-device: id=a: is another one's"));
  const std::string whole = WriteTempFile("whole", std::string(2 * kMiB, 'i'));
  EXPECT_THAT(refused({"--mem-device", "size=64M,id=a", "--pmem", "id=a,path=" + whole}),
              testing::HasSubstr("--pmem: id=a: is another one's"));
  EXPECT_THAT(refused({"--mem-device", "size=64M,id=a/b"}),
              testing::HasSubstr("--mem-device: id=a/b: is not 1 to 64 letters"));
  EXPECT_THAT(refused({"--pmem", "id=,path=" + whole}), testing::HasSubstr("--pmem: id=: is not 1 to 64"));
  EXPECT_THAT(refused({"--pmem", "path=" + image}), testing::HasSubstr("--pmem: " + image));
}

TEST_F(Control, ABalloonThatFollowsTheHost_TellsHow) {
  const std::string pressure = WriteTempFile("pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
  auto process = StartGuest("echo", With({"--balloon", "size=8M,auto=64M,auto-pressure=" + pressure}));
  auto client = Talk();
  EXPECT_EQ(client.Run("query-balloon-auto")["return"], Json({{"limit", 64 * kMiB},
                                                              {"reserve", 64 * kMiB},
                                                              {"least", 8 * kMiB},
                                                              {"target", 8 * kMiB},
                                                              {"pressure", 0.0}}));
}

TEST_F(Control, ABalloonThatIsToldWhatToDo_FollowsNobody) {
  auto process = StartGuest("echo", With({"--balloon", "on"}));
  auto client = Talk();
  EXPECT_EQ(client.Run("query-balloon-auto")["error"]["class"], "DeviceNotActive");
}

}  // namespace
}  // namespace gyre::test
