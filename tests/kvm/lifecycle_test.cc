// How a VM ends, and what its user is told.
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX

#include <algorithm>
#include <cctype>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <tuple>

#include "gyre/base/format.h"
#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

class Lifecycle : public GyredTest {};

TEST_F(Lifecycle, ExitPort_EveryStatusIsSeen) {
  for (int value = 0; value < 128; ++value) {
    const auto result = RunGuest("exit_status", {"--cmdline", std::to_string(value)});
    ASSERT_EQ(result.exit_status, (value << 1) | 1) << value << result.Describe();
  }
}

TEST_F(Lifecycle, ExitPortAbove127_LowEightBitsAreSeen) {
  const auto result = RunGuest("exit_status", {"--cmdline", "200"});
  EXPECT_EQ(result.exit_status, ((200 << 1) | 1) & 0xff) << result.Describe();
}

TEST_F(Lifecycle, ExitPort_TakesWiderWrites) {
  EXPECT_EQ(RunGuest("exit_status", {"--cmdline", "77 16"}).exit_status, 155);
  EXPECT_EQ(RunGuest("exit_status", {"--cmdline", "78 32"}).exit_status, 157);
}

TEST_F(Lifecycle, PowerOff_EndsCleanly) {
  const auto result = RunGuest("power_off", {"--cpus", "2"});
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out, "powering off\n");
}

TEST_F(Lifecycle, PowerOffWithActionPause_StaysUntilItIsEnded) {
  auto process = StartGuest("power_off", {"--action", "shutdown=pause"});
  ASSERT_TRUE(process.WaitForOutput("powering off\n")) << process.err();
  EXPECT_TRUE(process.StaysAlive(std::chrono::milliseconds(150))) << process.err();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

class GuestReset : public GyredTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(GuestReset, ByDefault_BootsAgainAndAgain) {
  const std::string way = GetParam();
  auto process = StartGuest("reset", {"--cmdline", way});
  EXPECT_TRUE(process.WaitForOutputs("boot fresh [" + way + "]\n", 20)) << process.out() << process.err();
  process.Signal(SIGTERM);
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out.find("stale"), std::string::npos) << result.Describe();
}

TEST_P(GuestReset, ActionShutdown_EndsCleanly) {
  const std::string way = GetParam();
  const auto result = RunGuest("reset", {"--cmdline", way, "--action", "reboot=shutdown"});
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out, "boot fresh [" + way + "]\n");
}

TEST_P(GuestReset, WithSeveralProcessors_BootsAgain) {
  const std::string way = GetParam();
  auto process = StartGuest("reset", {"--cmdline", way, "--cpus", "3"});
  EXPECT_TRUE(process.WaitForOutputs("boot fresh [" + way + "]\n", 3)) << process.out() << process.err();
}

INSTANTIATE_TEST_SUITE_P(Ways, GuestReset, ::testing::Values("i8042", "triple", "acpi"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_F(Lifecycle, InstructionThatKvmCannotRun_IsAGuestCrashWithRegisters) {
  auto result = RunGuest("crash", {"--cmdline", "fetch"});
  EXPECT_EQ(result.exit_status, kGuestCrash) << result.Describe();
  EXPECT_EQ(result.out, "crash [fetch]\n");
  std::ranges::transform(result.err, result.err.begin(),
                         [](unsigned char letter) { return std::tolower(letter); });
  EXPECT_NE(result.err.find("rip"), std::string::npos) << result.Describe();
  EXPECT_NE(result.err.find("d0000000"), std::string::npos) << "no register dump: " << result.Describe();
}

// What the guest would do after its panic is not executed, unless the action is none.
TEST_F(Lifecycle, Panic_EndsByDefaultWithTheEvent) {
  const auto result = RunGuest("panic", {"--log-level", "info"});
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out, "panic\n");
  EXPECT_NE(result.err.find("GUEST_PANICKED action=poweroff"), std::string::npos) << result.Describe();
}

TEST_F(Lifecycle, PanicExitFailure_IsAGuestCrash) {
  const auto result = RunGuest("panic", {"--action", "panic=exit-failure"});
  EXPECT_EQ(result.exit_status, kGuestCrash) << result.Describe();
  EXPECT_EQ(result.out, "panic\n");
}

TEST_F(Lifecycle, PanicPause_StopsTheGuestWhereItIs) {
  auto process = StartGuest("panic", {"--action", "panic=pause", "--log-level", "info"});
  ASSERT_TRUE(process.WaitForError("STOP")) << process.err();
  EXPECT_NE(process.err().find("GUEST_PANICKED action=pause"), std::string::npos) << process.err();
  EXPECT_TRUE(process.StaysAlive(std::chrono::milliseconds(50))) << process.err();
  EXPECT_EQ(process.out(), "panic\n");
  process.Signal(SIGUSR2);
  EXPECT_TRUE(process.WaitForError("state: guest-panicked")) << process.err();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(Lifecycle, PanicNone_IsAnEventAndNothingElse) {
  const auto result = RunGuest("panic", {"--action", "panic=none", "--log-level", "info"});
  EXPECT_GUEST_PASSES(result, "panic");
  EXPECT_NE(result.err.find("GUEST_PANICKED action=run"), std::string::npos) << result.Describe();
}

TEST_F(Lifecycle, CrashKernelLoaded_GoesOn) {
  const auto result = RunGuest("panic", {"--cmdline", "crashload", "--log-level", "info"});
  EXPECT_GUEST_PASSES(result, "panic");
  EXPECT_NE(result.err.find("GUEST_CRASHLOADED"), std::string::npos) << result.Describe();
}

TEST_F(Lifecycle, Terminate_EndsARunningGuestCleanly) {
  for (const int signal : {SIGTERM, SIGINT}) {
    auto process = StartGuest("echo");
    ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
    process.Signal(signal);
    const auto result = process.Wait();
    EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  }
}

// A guest that reboots for ever costs its host nothing more with time.
TEST_F(Lifecycle, ThousandReboots_LeakNothing) {
  auto process = StartGuest("reset", {"--cmdline", "i8042", "--cpus", "2"});
  const auto facts = [&process] {
    const std::filesystem::path proc = "/proc/" + std::to_string(process.pid());
    const auto count = [&](const char* directory) {
      return std::distance(std::filesystem::directory_iterator(proc / directory), {});
    };
    std::ifstream maps(proc / "maps");
    const auto mappings = std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
    return std::tuple(count("fd"), count("task"), mappings);
  };
  ASSERT_TRUE(process.WaitForOutputs("boot fresh", 20)) << process.err();
  const auto before = facts();
  ASSERT_TRUE(process.WaitForOutputs("boot fresh", 1020, std::chrono::seconds(60))) << process.err();
  const auto after = facts();
  EXPECT_EQ(std::get<0>(after), std::get<0>(before)) << "file descriptors";
  EXPECT_EQ(std::get<1>(after), std::get<1>(before)) << "threads";
  EXPECT_LE(std::get<2>(after), std::get<2>(before) + 2) << "mappings";  // an allocator may take one more
  process.Signal(SIGTERM);
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out.find("stale"), std::string::npos);
}

TEST_F(Lifecycle, ReportSignal_TellsCountersAndMemoryMap) {
  auto process = StartGuest("echo");
  ASSERT_TRUE(process.WaitForOutput("ready\n")) << process.err();
  process.Signal(SIGUSR2);
  ASSERT_TRUE(process.WaitForError("address space I/O")) << process.err();
  for (const char* wanted : {"state: running", "big lock: taken", "main loop: ", "vCPU 0: exits: ",
                             "ram-below-4g", "ioapic", "flat view:", "slot 0"}) {
    EXPECT_NE(process.err().find(wanted), std::string::npos) << wanted << process.err();
  }
  EXPECT_TRUE(process.StaysAlive(std::chrono::milliseconds(20))) << process.err();
}

TEST_F(Lifecycle, Terminate_EndsBusyProcessors) {
  auto process = StartGuest("reset", {"--cpus", "4", "--cmdline", "i8042"});
  ASSERT_TRUE(process.WaitForOutput("boot fresh")) << process.err();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait().exit_status, kCleanEnd);
}

TEST_F(Lifecycle, Paused_RunsNothingAndEndsOnRequest) {
  auto process = StartGuest("hello", {"--paused"});
  EXPECT_TRUE(process.StaysAlive(std::chrono::milliseconds(150))) << process.err();
  EXPECT_EQ(process.out(), "");
  process.Signal(SIGTERM);
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out, "");
}

// A guest that starts anew finds its memory as it was given, whatever stands behind it.
class MemoryBackend : public GyredTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(MemoryBackend, GuestRunsAndStartsAnewOnIt) {
  std::string memory = std::string("size=64M,") + GetParam();
  if (memory.ends_with("path=")) {
    memory += WriteTempFile("ram", "");
  }
  auto process = StartGuest("reset", {"--cmdline", "i8042", "--memory", memory});
  EXPECT_TRUE(process.WaitForOutputs("boot fresh [i8042]\n", 5)) << process.out() << process.err();
  process.Signal(SIGTERM);
  const auto result = process.Wait();
  EXPECT_EQ(result.exit_status, kCleanEnd) << result.Describe();
  EXPECT_EQ(result.out.find("stale"), std::string::npos) << result.Describe();
}

INSTANTIATE_TEST_SUITE_P(Kinds, MemoryBackend,
                         ::testing::Values("backend=anonymous", "backend=memfd",
                                           "backend=file,share=on,path=", "backend=file,path=",
                                           "backend=file,path=/tmp", "prealloc=on",
                                           "backend=memfd,prealloc=on,prealloc-threads=2", "locked=on",
                                           "hugepages=transparent,dump=off"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           std::erase_if(name, [](char letter) { return std::isalnum(letter) == 0; });
                           return name;
                         });

// One clear line and exit status 2, with nothing started.
void ExpectRefused(const ProcessResult& result, std::string_view mention) {
  EXPECT_EQ(result.exit_status, kBadUsage) << result.Describe();
  EXPECT_EQ(result.out, "") << result.Describe();
  EXPECT_EQ(std::ranges::count(result.err, '\n'), 1) << result.Describe();
  EXPECT_NE(result.err.find(mention), std::string::npos)
      << "says nothing of " << mention << result.Describe();
}

TEST_F(Lifecycle, KernelThatIsNone_IsRefused) {
  const std::string gyred = Command("hello").front();
  ExpectRefused(RunProcess({gyred, "--kernel", TempPath("missing")}), "missing");
  ExpectRefused(RunProcess({gyred, "--kernel", WriteTempFile("empty", "")}), "empty");
  ExpectRefused(RunProcess({gyred, "--kernel", WriteTempFile("text", std::string(10'000, 'x'))}), "text");
}

TEST_F(Lifecycle, BootProtocolThatTheImageHasNot_IsRefused) {
  ExpectRefused(RunGuest("hello", {"--boot", "multiboot"}), "ultiboot");
  ExpectRefused(RunGuest("boot_info.multiboot", {"--boot", "pvh"}), "PVH");
}

TEST_F(Lifecycle, MemoryThatTheHostHasNot_IsRefused) {
  ExpectRefused(RunGuest("hello", {"--memory", "size=64M,backend=file,path=/nonexistent/ram"}),
                "/nonexistent/ram");
  ExpectRefused(RunGuest("hello", {"--memory", "size=64M,hugepages=1G"}), "whole pages");
  ExpectRefused(RunGuest("hello", {"--memory", "size=64M,share=on"}), "memfd");
  ExpectRefused(RunGuest("hello", {"--memory", "size=64M,hugepage=2M"}), "hugepages");
  ExpectRefused(RunGuest("hello", {"--memory", "size=64M,backend=file,path=" + WriteTempFile("small", "x")}),
                "small");
}

TEST_F(Lifecycle, InitrdLargerThanRam_IsRefused) {
  const auto initrd = WriteTempFile("initrd", std::string(20 << 20, 'x'));
  ExpectRefused(RunGuest("boot_info", {"--memory", "16M", "--initrd", initrd}), "initrd");
}

TEST_F(Lifecycle, CountsThatCannotBe_AreRefused) {
  ExpectRefused(RunGuest("hello", {"--memory", "0"}), "memory");
  ExpectRefused(RunGuest("hello", {"--cpus", "0"}), "cpus");
  ExpectRefused(RunGuest("hello", {"--cpus", "100000"}), "cpus");
}

}  // namespace
}  // namespace gyre::test
