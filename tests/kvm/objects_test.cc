// The VM as objects with properties, over the control socket.
#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

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

// Of every kind of devices one without a name and, where it takes one, one that has it.
class EveryDevice : public Control {
 protected:
  Arguments Devices() const {
    const std::string program = WriteTempFile("passt", "#!/bin/sh\nexec cat <&3 >&3\n");
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    const auto image = [this](const char* name) {
      return "path=" + WriteTempFile(name, std::string(2 << 20, 'i'));
    };
    Arguments all;
    for (const auto& [option, value] :
         std::vector<std::pair<std::string, std::string>>{{"disk", image("a")},
                                                          {"disk", image("b") + ",id=root"},
                                                          {"disk", image("c")},
                                                          {"entropy", "on"},
                                                          {"entropy", "on"},
                                                          {"net", "user,passt=" + program},
                                                          {"net", "user,id=lan,passt=" + program},
                                                          {"console", "to=null,port=agent:null"},
                                                          {"vsock", "cid=3,uds=" + TempPath("vsock")},
                                                          {"balloon", "on"},
                                                          {"mem-device", "size=64M"},
                                                          {"mem-device", "size=64M,id=more"},
                                                          {"pmem", image("d")},
                                                          {"pmem", image("e") + ",id=kept"}}) {
      all.insert(all.end(), {"--" + option, value});
    }
    all.insert(all.end(), {"--paused", "--cpus", "2", "--iothread", "io"});
    return all;
  }
};

// Whatever is one, however deep.
void CollectPaths(const Json& value, std::set<std::string>& paths) {  // NOLINT(misc-no-recursion)
  for (const auto& member : value.is_structured() ? value : Json::array()) {
    CollectPaths(member, paths);
  }
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  if (text.starts_with("/machine") || text.starts_with("/objects") || text.starts_with("/chardevs")) {
    paths.insert(text);
  }
}

// What is below that object, with itself.
void CollectObjects(Client& client, const std::string& path,  // NOLINT(misc-no-recursion)
                    std::set<std::string>& paths) {
  paths.insert(path);
  const Json properties = client.Run("qom-list", {{"path", path}})["return"];
  for (const Json& property : properties) {
    if (property["type"].get<std::string>().starts_with("child<")) {
      CollectObjects(
          client, client.Run("qom-get", {{"path", path}, {"property", property["name"]}})["return"], paths);
    }
  }
}

// Some were of a tree that there is not.
TEST_F(EveryDevice, PathsInAnswers_AreThoseOfTheTree) {
  auto process = StartGuest("echo", With(Devices()));
  auto client = Talk();
  std::set<std::string> objects;
  CollectObjects(client, "/", objects);
  std::set<std::string> paths;
  const Json commands = client.Run("query-commands")["return"];
  for (const Json& command : commands) {
    const std::string name = command["name"];
    if (name.contains("query-")) {
      CollectPaths(client.Run(name), paths);
    }
  }
  CollectPaths(client.Run("query-stats", {{"target", "vcpu"}}), paths);
  EXPECT_THAT(objects, testing::IsSupersetOf(paths));
  EXPECT_THAT(paths, testing::UnorderedElementsAre(
                         "/machine/cpu[0]", "/machine/cpu[1]", "/machine/disk/disk0", "/machine/disk/root",
                         "/machine/disk/disk2", "/machine/entropy/entropy0", "/machine/entropy/entropy1",
                         "/machine/net/net0", "/machine/net/lan", "/machine/console/console0",
                         "/machine/vsock/vsock0", "/machine/balloon/balloon0", "/machine/mem-device/mem0",
                         "/machine/mem-device/mem0/memory", "/machine/mem-device/more",
                         "/machine/mem-device/more/memory", "/machine/pmem/pmem0",
                         "/machine/pmem/pmem0/memory", "/machine/pmem/kept", "/machine/pmem/kept/memory"));
  const Json devices = client.Run("x-query-virtio")["return"];
  for (const Json& device : devices) {
    EXPECT_TRUE(client.Run("x-query-virtio-status", {{"path", device["path"]}}).contains("return")) << device;
  }
  // The ids of other commands are the paths' ends.
  const auto ids = [&client](const char* command, const char* member) {
    std::vector<std::string> all;
    const Json list = client.Run(command)["return"];
    for (const Json& entry : list) {
      all.push_back(entry.contains("data") ? entry["data"][member] : entry[member]);
    }
    return all;
  };
  EXPECT_THAT(ids("query-block", "device"), testing::ElementsAre("disk0", "root", "disk2"));
  EXPECT_THAT(ids("query-rx-filter", "name"), testing::ElementsAre("net0", "lan"));
  EXPECT_THAT(ids("query-memory-devices", "id"), testing::ElementsAre("mem0", "more", "pmem0", "kept"));
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
