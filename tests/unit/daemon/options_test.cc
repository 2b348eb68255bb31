#include "src/daemon/options.h"
#include "src/daemon/memory_option.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace gyre::daemon {
namespace {

Result<std::variant<Options, Text>> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "gyred");
  return ParseOptions(static_cast<int>(arguments.size()), arguments.data());
}

std::string ErrorOf(std::vector<const char*> arguments) {
  const auto parsed = Parse(std::move(arguments));
  return parsed ? "no error" : parsed.error().message();
}

TEST(Options, Defaults_AreTheDocumentedOnes) {
  const auto parsed = Parse({"--kernel", "k"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& options = std::get<Options>(*parsed);
  EXPECT_EQ(options.machine.memory.size, 256 * kMiB);
  EXPECT_EQ(options.machine.vcpus, 1U);
  EXPECT_EQ(options.machine.serial, "stdio");
  EXPECT_TRUE(options.machine.acpi);
  EXPECT_FALSE(options.machine.legacy_irq);
  EXPECT_FALSE(options.paused);
}

TEST(Options, KernelCache_IsOnOffOrAPlaceWithASize) {
  const auto parse = [](const char* text) {
    const auto parsed = Parse({"--kernel", "k", "--kernel-cache", text});
    EXPECT_TRUE(parsed) << parsed.error().message();
    return parsed ? std::get<Options>(*parsed) : Options();
  };
  const auto plain = std::get<Options>(*Parse({"--kernel", "k"}));
  EXPECT_TRUE(plain.kernel_cache);
  EXPECT_EQ(plain.boot.kernel_cache.path, "");
  EXPECT_EQ(plain.boot.kernel_cache.limit, 512 * kMiB);
  EXPECT_TRUE(parse("on").kernel_cache);
  EXPECT_EQ(parse("on,size=1G").boot.kernel_cache.limit, kGiB);
  EXPECT_FALSE(parse("off").kernel_cache);
  EXPECT_EQ(parse("path=/var/cache/k,size=64M").boot.kernel_cache.path, "/var/cache/k");
  EXPECT_EQ(parse("path=/var/cache/k,size=64M").boot.kernel_cache.limit, 64 * kMiB);
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--kernel-cache", "maybe"}),
            "--kernel-cache: 'maybe' is not of the form key=value");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--kernel-cache", "path="}),
            "--kernel-cache: 'path=' is not on, off, path=DIR or size=SIZE");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--kernel-cache", "on,limit=3"}),
            "--kernel-cache: 'limit=3' is not on, off, path=DIR or size=SIZE");
}

TEST(Options, Trace_NamesItsFile) {
  const auto parsed = Parse({"--kernel", "k", "--trace", "t.json"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(std::get<Options>(*parsed).trace_file, "t.json");
}

TEST(Options, ControlSockets_AreKept) {
  const auto parsed = Parse({"--kernel", "k", "--qmp", "unix:/run/a,mode=0600", "--qmp", "unix:@b", "--uuid",
                             "01234567-89ab-cdef-0123-456789ABCDEF"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& options = std::get<Options>(*parsed);
  ASSERT_EQ(options.control_sockets.size(), 2U);
  EXPECT_EQ(options.control_sockets[0].path, "/run/a");
  EXPECT_EQ(options.control_sockets[0].mode, 0600U);
  EXPECT_EQ(options.control_sockets[1].path, "@b");
  EXPECT_EQ(options.uuid, "01234567-89ab-cdef-0123-456789ABCDEF");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--qmp", "tcp:1"}),
            "--qmp: 'tcp:1' is neither unix:PATH, unix:@NAME nor fd:N");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--uuid", "1234"}),
            "--uuid: '1234' is not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
}

TEST(Options, EachMistake_IsOneClearLine) {
  EXPECT_EQ(ErrorOf({}), "--kernel is required, or --firmware");
  EXPECT_EQ(ErrorOf({"--firmware", "rom", "--kernel", "k"}),
            "--kernel: firmware finds its own guest; not with --firmware");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "0"}), "--memory: a guest needs some");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "1000K"}),
            "--memory: 1024000 bytes is not a whole number of MiB");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "12Q"}),
            "--memory: '12Q' is not a size such as 256M or 2G");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "99999999999T"}),
            "--memory: '99999999999T' is not a size such as 256M or 2G");
  EXPECT_NE(ErrorOf({"--kernel", "k", "--memory", "4096T"}).find("more than the"), std::string::npos);
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--cpus", "0"}), "--cpus: 0 is not between 1 and 254");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--cpus", "255"}), "--cpus: 255 is not between 1 and 254");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--cpus", "two"}), "--cpus: 'two' is not a number of CPUs");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--acpi", "maybe"}), "--acpi: 'maybe' is not one of off, on");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--dirty-ring-size", "many"}),
            "--dirty-ring-size: 'many' is not a number of entries");
  for (const std::string size : {"1", "512", "1025", "131072"}) {
    EXPECT_EQ(ErrorOf({"--kernel", "k", "--dirty-ring-size", size.c_str()}),
              "--dirty-ring-size: " + size + " is neither 0 nor a power of two from 1024 to 65536");
  }
  EXPECT_EQ(ErrorOf({"--kernel", "k", "extra"}), "unexpected argument 'extra'");
}

TEST(Options, UnknownOption_IsAnsweredWithTheNearestOne) {
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--memroy", "1G"}),
            "unknown option '--memroy'; did you mean '--memory'?");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--cpu=2"}), "unknown option '--cpu=2'; did you mean '--cpus'?");
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--zzzzzzz"}), "unknown option '--zzzzzzz'");
}

TEST(Options, ParseSize_KnowsItsUnits) {
  EXPECT_EQ(ParseSize("64").value(), 64 * kMiB);
  EXPECT_EQ(ParseSize("64K").value(), 64 * kKiB);
  EXPECT_EQ(ParseSize("3G").value(), 3 * kGiB);
  EXPECT_FALSE(ParseSize(""));
  EXPECT_FALSE(ParseSize("-1"));
  EXPECT_FALSE(ParseSize("1GB"));
  EXPECT_FALSE(ParseSize("18446744073709551616"));
}

class ConfigFile : public ::testing::Test {
 protected:
  ConfigFile() { ::close(::mkstemp(path_)); }
  ~ConfigFile() override { ::unlink(path_); }
  void Write(const std::string& text) { std::ofstream(path_) << text; }
  char path_[64] = "/tmp/gyre-options-XXXXXX";
};

TEST_F(ConfigFile, HasTheSameNames_AndTheCommandLineWins) {
  Write("kernel=from-file\nmemory=1G\ncpus=4\naction=\"reboot=shutdown,panic=none\"\npaused=true\n");
  const auto parsed = Parse({"--config", path_, "--cpus", "2"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& options = std::get<Options>(*parsed);
  EXPECT_EQ(options.boot.kernel_path, "from-file");
  EXPECT_EQ(options.machine.memory.size, kGiB);
  EXPECT_EQ(options.machine.vcpus, 2U);
  EXPECT_TRUE(options.paused);
  EXPECT_EQ(options.machine.actions.reboot, machine::RebootAction::kShutdown);
  EXPECT_EQ(options.machine.actions.panic, machine::PanicAction::kNone);
}

// Those of the file were dropped without a word, wrong ones too.
TEST_F(ConfigFile, WhatMayComeSeveralTimes_ComesFromBoth) {
  Write("kernel=k\nqmp=unix:/run/a,mode=0600\naction=\"reboot=shutdown,panic=none\"\n");
  const auto parsed = Parse({"--config", path_, "--qmp", "unix:/run/b", "--action", "panic=pause"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& options = std::get<Options>(*parsed);
  ASSERT_EQ(options.control_sockets.size(), 2U);
  EXPECT_EQ(options.control_sockets[0].path, "/run/a");
  EXPECT_EQ(options.control_sockets[1].path, "/run/b");
  EXPECT_EQ(options.machine.actions.reboot, machine::RebootAction::kShutdown);
  EXPECT_EQ(options.machine.actions.panic, machine::PanicAction::kPause);
  Write("kernel=k\nqmp=nonsense\n");
  EXPECT_NE(ErrorOf({"--config", path_, "--qmp", "unix:/run/b"}).find("nonsense"), std::string::npos);
}

TEST_F(ConfigFile, ControlSocket_MayBeUnquoted) {
  Write("kernel=k\nqmp=unix:/run/a,mode=0600,allow=0\n");
  const auto parsed = Parse({"--config", path_});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& options = std::get<Options>(*parsed);
  ASSERT_EQ(options.control_sockets.size(), 1U);
  EXPECT_EQ(options.control_sockets[0].mode, 0600U);
  EXPECT_EQ(options.control_sockets[0].allowed.size(), 1U);
}

TEST_F(ConfigFile, UnknownName_IsRefused) {
  Write("kernel=k\nmemroy=1G\n");
  EXPECT_NE(ErrorOf({"--config", path_}).find("memroy"), std::string::npos) << ErrorOf({"--config", path_});
}

TEST_F(ConfigFile, Missing_IsRefused) {
  EXPECT_NE(ErrorOf({"--config", "/nonexistent.conf"}).find("/nonexistent.conf"), std::string::npos);
}

TEST(Options, HelpAndVersion_AreTexts) {
  const auto help = Parse({"--help"});
  ASSERT_TRUE(help);
  EXPECT_NE(std::get<Text>(*help).text.find("--boot-timeline"), std::string::npos);
  const auto version = Parse({"--version"});
  ASSERT_TRUE(version);
  EXPECT_EQ(std::get<Text>(*version).text, "gyred " GYRE_VERSION "\n");
}

TEST(Options, Memory_TakesEachKey) {
  const auto memory = ParseMemory(
      "size=1G,backend=file,path=/dev/shm,share=on,hugepages=transparent,prealloc=on,prealloc-threads=4,"
      "locked=on,dump=off,merge=on,numa=0,policy=interleave,numa=2-4");
  ASSERT_TRUE(memory) << memory.error().message();
  EXPECT_EQ(memory->size, kGiB);
  EXPECT_EQ(memory->backend, memory::RamBackend::kFile);
  EXPECT_EQ(memory->path, "/dev/shm");
  EXPECT_TRUE(memory->share);
  EXPECT_EQ(memory->huge_pages, memory::HugePages::kTransparent);
  EXPECT_TRUE(memory->prealloc);
  EXPECT_EQ(memory->prealloc_threads, 4U);
  EXPECT_TRUE(memory->locked);
  EXPECT_FALSE(memory->dump);
  EXPECT_TRUE(memory->merge);
  EXPECT_EQ(memory->numa_policy, memory::NumaPolicy::kInterleave);
  EXPECT_EQ(memory->numa_nodes, (std::vector<unsigned>{0, 2, 3, 4}));
  EXPECT_EQ(ParseMemory("size=64")->size, 64 * kMiB);
  EXPECT_EQ(ParseMemory("2G")->size, 2 * kGiB);
}

TEST(Options, Memory_EachMistakeIsNamed) {
  const auto error = [](const char* text) { return ParseMemory(text).error().message(); };
  EXPECT_EQ(error("prealloc=on"), "size=SIZE is missing");
  EXPECT_EQ(error("size=64,backend=disk"), "backend=disk: must be one of anonymous, memfd, file");
  EXPECT_EQ(error("size=64,share=yes"), "share=yes: is neither on nor off");
  EXPECT_EQ(error("size=64,hugepages=4K"), "hugepages=4K: must be one of off, transparent, 2M, 1G");
  EXPECT_EQ(error("size=64,prealloc-threads=0"), "prealloc-threads=0: must be 1 to 256");
  EXPECT_EQ(error("size=64,prealloc"), "'prealloc' is not of the form key=value");
  EXPECT_EQ(
      error("size=64,huge=on"),
      "'huge' is not one of size, backend, path, share, hugepages, prealloc, prealloc-threads, locked, dump, "
      "merge, numa, policy");
  EXPECT_EQ(error("size=64,policy=local"),
            "policy=local: must be one of default, preferred, bind, interleave");
  for (const char* nodes :
       {"numa=", "numa=x", "numa=-1", "numa=2-1", "numa=0-", "numa=0-4000000000", "numa=1x"}) {
    EXPECT_NE(error((std::string("size=64,") + nodes).c_str()).find("is not a NUMA node or a range"),
              std::string::npos)
        << nodes;
  }
}

TEST(Options, Devices_ComeFromTheirOwnDescriptions) {
  const auto parsed = Parse({"--kernel", "k", "--entropy", "on", "--disk", "path=a,readonly=on", "--disk",
                             "b", "--entropy=rate=1K"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& devices = std::get<Options>(*parsed).machine.devices;
  ASSERT_EQ(devices.size(), 4U);
  EXPECT_EQ(devices[0].module->option, "disk");
  EXPECT_EQ(devices[0].properties.Get("path"), "a");
  EXPECT_EQ(devices[1].properties.Get("path"), "b");
  EXPECT_EQ(devices[2].module->option, "entropy");
  EXPECT_EQ(devices[3].properties.Get("rate"), "1K");
}

TEST(Options, ADeviceOfAnotherProcess_NeedsMemoryThatCanBeShared) {
  for (const auto& device : {std::pair{"--disk", "vhost-user=s"}, std::pair{"--share", "socket=s,tag=t"}}) {
    EXPECT_EQ(ErrorOf({"--kernel", "k", device.first, device.second}), "no error");
    EXPECT_EQ(
        ErrorOf(
            {"--kernel", "k", "--memory", "size=64M,backend=file,path=/tmp", device.first, device.second}),
        std::string("--memory: share=on is missing: ") + device.first + "'s back end has to have it, too");
    EXPECT_EQ(ErrorOf({"--kernel", "k", "--memory", "size=64M,backend=file,path=/tmp,share=on", device.first,
                       device.second}),
              "no error");
  }
}

TEST(Options, Devices_EachMistakeIsNamed) {
  EXPECT_EQ(ErrorOf({"--kernel", "k", "--disk", "readonly=on"}), "--disk: path=PATH is missing");
  const std::string unknown = ErrorOf({"--kernel", "k", "--disk", "path=a,colour=red"});
  EXPECT_TRUE(unknown.starts_with("--disk: 'colour' is not one of path, readonly, cache, ")) << unknown;
  std::vector<const char*> many{"--kernel", "k", "--acpi", "off"};
  for (int i = 0; i < 11; ++i) {
    many.insert(many.end(), {"--entropy", "on"});
  }
  EXPECT_EQ(ErrorOf(many),
            "--entropy: 11 virtio devices are more than the 10 that a machine without ACPI has");
  many[3] = "on";
  EXPECT_EQ(ErrorOf(many), "no error");
}

TEST_F(ConfigFile, Devices_ComeFromItToo) {
  Write("kernel=k\ndisk=[\"path=a\",\"path=b,readonly=on\"]\nentropy=on\n");
  const auto parsed = Parse({"--config", path_});
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& devices = std::get<Options>(*parsed).machine.devices;
  ASSERT_EQ(devices.size(), 3U);
  EXPECT_EQ(devices[1].properties.Get("path"), "b");
}

}  // namespace
}  // namespace gyre::daemon
