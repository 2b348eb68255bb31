// The VM as objects with properties, over the control socket.
#include <gmock/gmock.h>

#include <algorithm>

#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

class Objects : public Control {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(Control::SetUp());
    process_.emplace(StartGuest(
        "echo",
        With({"--paused", "--name", "vm", "--cpus", "2", "--memory", "64M", "--iothread", "io", "--disk",
              "path=" + WriteTempFile("image", std::string(1 << 20, 'i')) + ",serial=abc,iothread=io",
              "--disk", "path=" + WriteTempFile("other", std::string(1 << 20, 'i')) + ",id=data", "--entropy",
              "on"})));
    client_.emplace(Talk());
  }
  // By value: the range of a loop would not keep the reply.
  Json Ask(const char* command, const Json& arguments = Json::object()) {
    return client_->Run(command, arguments)["return"];
  }
  Json Get(const std::string& path, const std::string& property) {
    const Json reply = client_->Run("qom-get", {{"path", path}, {"property", property}});
    return reply.contains("return") ? reply["return"] : reply;
  }
  std::vector<std::string> Names(const std::string& path) {
    std::vector<std::string> names;
    for (const Json& entry : Ask("qom-list", {{"path", path}})) {
      names.push_back(entry["name"]);
    }
    return names;
  }

  std::optional<Process> process_;
  std::optional<Client> client_;
};

TEST_F(Objects, EveryPartHasAPath) {
  using testing::IsSupersetOf;
  EXPECT_THAT(Names("/"), IsSupersetOf({"type", "chardevs", "machine", "objects"}));
  EXPECT_THAT(Names("/machine"), IsSupersetOf({"cpu[0]", "cpu[1]", "disk", "entropy", "acpi"}));
  EXPECT_THAT(Names("/machine/disk"), testing::ElementsAre("type", "disk0", "data"));
  EXPECT_THAT(Names("/objects"), IsSupersetOf({"io", "ram"}));
  EXPECT_THAT(Names("/chardevs"), IsSupersetOf({"serial0"}));
}

// Where other commands give a path, it is one of these.
TEST_F(Objects, PathsOfOtherCommandsAreTheirs) {
  for (const Json& cpu : Ask("query-cpus-fast")) {
    EXPECT_EQ(Get(cpu["qom-path"], "thread-id"), cpu["thread-id"]);
  }
  for (const Json& disk : Ask("query-block")) {
    EXPECT_EQ(Get(disk["qdev"], "path"), disk["inserted"]["file"]);
  }
  for (const Json& device : Ask("x-query-virtio")) {
    EXPECT_EQ(Get(device["path"], "type"), device["name"]);
  }
  EXPECT_EQ(Ask("x-query-virtio").size(), 3U);
}

TEST_F(Objects, PropertiesAreRead) {
  EXPECT_EQ(Get("/machine", "name"), "vm");
  EXPECT_EQ(Get("/objects/ram", "size"), 64U << 20U);
  EXPECT_EQ(Get("/machine/disk/disk0", "serial"), "abc");
  EXPECT_EQ(Get("data", "type"), "virtio-disk");       // a path's end is enough
  EXPECT_EQ(Get("machine", "disk"), "/machine/disk");  // an object: its path
  EXPECT_EQ(Get("/machine", "nothing")["error"]["desc"], "Property 'gyre-machine.nothing' not found");
  EXPECT_EQ(Get("/machine/disk/nothing", "type")["error"]["class"], "DeviceNotFound");
  EXPECT_EQ(Get("type", "type")["error"]["class"], "DeviceNotFound");
  EXPECT_EQ(Get("", "type")["error"]["class"], "DeviceNotFound");
}

// What the command line takes.
TEST_F(Objects, DevicesOptionsAreListedByTheirType) {
  std::vector<std::string> types;
  for (const Json& type : Ask("qom-list-types", {{"implements", "device"}})) {
    types.push_back(type["name"]);
  }
  EXPECT_THAT(types, testing::IsSupersetOf({"virtio-disk", "virtio-net", "virtio-entropy"}));
  EXPECT_THAT(types, testing::Not(testing::Contains("iothread")));
  const Json options = Ask("device-list-properties", {{"typename", "virtio-disk"}});
  const auto path = std::ranges::find(options, "path", [](const Json& option) { return option["name"]; });
  ASSERT_NE(path, options.end());
  EXPECT_EQ((*path)["description"], "PATH");
}

TEST_F(Objects, VirtioDevicesStatus_IsWhatTheDriverHasMadeOfIt) {
  const Json status =
      client_->Run("x-query-virtio-status", {{"path", "/machine/entropy/entropy0"}})["return"];
  EXPECT_EQ(status["device-id"], 4);
  EXPECT_EQ(status["num-vqs"], 1);
  EXPECT_EQ(status["started"], false);
  EXPECT_EQ(status["broken"], false);
  EXPECT_EQ(status["guest-features"], 0);
  EXPECT_EQ(status["status"]["statuses"], Json::array());
}

TEST_F(Objects, TextsForPeopleNameRamAndNodes) {
  const auto text = [this](const char* command) {
    return client_->Run(command)["return"]["human-readable-text"].get<std::string>();
  };
  EXPECT_THAT(text("x-query-ramblock"), testing::HasSubstr(" 0x0000000004000000"));
  EXPECT_EQ(text("x-query-numa"), "1 nodes\nnode 0 cpus: 0 1\nnode 0 size: 64 MB\nnode 0 plugged: 0 MB\n");
}

}  // namespace
}  // namespace gyre::test
