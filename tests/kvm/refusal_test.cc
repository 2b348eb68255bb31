// What gyred cannot work with, on the host or in its options: one clear line on
// stderr, exit status 2, nothing on stdout, nothing left behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "gyre/base/format.h"
#include "tests/kvm/gyred.h"

namespace gyre::test {
namespace {

using ::testing::HasSubstr;

void ExpectOneLine(const ProcessResult& result, std::string_view part) {
  EXPECT_EQ(result.exit_status, kBadUsage) << result.Describe();
  EXPECT_EQ(result.out, "");
  const auto lines = Lines(result.err);
  ASSERT_EQ(lines.size(), 1U) << result.err;
  EXPECT_TRUE(lines[0].starts_with("gyred: ")) << result.err;
  EXPECT_THAT(lines[0], HasSubstr(std::string(part)));
}

class Refusal : public GyredTest {
 protected:
  static ProcessResult With(const Arguments& more) { return RunProcess(Command("hello", more)); }
  // gyred in a mount namespace of its own, where `mount` was run first.
  static ProcessResult After(const std::string& mount) {
    std::string command = mount + " && exec";
    for (const auto& word : Command("hello")) {
      command += " '" + word + "'";
    }
    return RunProcess({"unshare", "--mount", "sh", "-c", command});
  }
  static ProcessResult Denied(const std::string& call, int error) {
    Arguments command{std::getenv("DENY_SYSCALL"), call, format("{}", error)};
    for (auto& word : Command("hello")) {
      command.push_back(std::move(word));
    }
    return RunProcess(command);
  }
};

class RefusalAsRoot : public Refusal {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "only root can take /dev/kvm away from a process";
    }
    Refusal::SetUp();
  }
};

TEST_F(RefusalAsRoot, NoSuchDevice_SaysWhatToLookFor) {
  const auto result = After("mount -t tmpfs none /dev");
  ExpectOneLine(result, "/dev/kvm");
  EXPECT_THAT(result.err, HasSubstr("No such file or directory"));
}

TEST_F(RefusalAsRoot, NotAKvmDevice_IsSaid) {
  ExpectOneLine(After("mount --bind /dev/null /dev/kvm"), "/dev/kvm");
}

TEST_F(RefusalAsRoot, NoPermission_IsSaid) {
  // A device that is root's alone, whatever the host's own is.
  const auto command = Command("hello");
  const std::string script =
      "mount -t tmpfs none /dev && mknod -m 600 /dev/kvm c 10 232 && exec setpriv --reuid 65534 "
      "--clear-groups ";
  std::string words;
  for (const auto& word : command) {
    words += "'" + word + "' ";
  }
  ExpectOneLine(RunProcess({"unshare", "--mount", "sh", "-c", script + words}), "Permission denied");
}

TEST_F(Refusal, IoUringForbiddenBySeccomp_IsNamed) {
  ExpectOneLine(Denied("io_uring_setup", EPERM), "io_uring");
  EXPECT_THAT(Denied("io_uring_setup", EPERM).err, HasSubstr("seccomp"));
  ExpectOneLine(Denied("io_uring_setup", ENOSYS), "io_uring");
}

TEST_F(Refusal, OptionsOfADeviceThatDoNotGoTogether_AreSaid) {
  ExpectOneLine(With({"--vsock", "cid=7,vhost=on,uds=/tmp/x"}),
                "--vsock: vhost=on does not go with uds: the host's end is AF_VSOCK");
}

TEST_F(Refusal, UnwritableSerialTarget_IsNamed) {
  ExpectOneLine(With({"--serial", "file:/nonexistent/directory/log"}), "/nonexistent/directory/log");
  ExpectOneLine(With({"--serial", "unix:/nonexistent/directory/socket"}), "/nonexistent/directory/socket");
  ExpectOneLine(With({"--serial", "unix:/" + std::string(200, 'x')}), "xxx");
  ExpectOneLine(With({"--serial", "lpt1"}), "lpt1");
  ExpectOneLine(With({"--serial", "file:"}), "file:");
}

TEST_F(Refusal, NameOfAnotherDevice_IsNamed) {
  const auto image = [this](const char* name) {
    return "path=" + WriteTempFile(name, std::string(4096, 'i'));
  };
  // The second one's own would be the same.
  ExpectOneLine(With({"--disk", image("a") + ",id=disk1", "--disk", image("b")}),
                "--disk: id=disk1: is another one's");
  ExpectOneLine(With({"--disk", image("a") + ",id=../a"}), "--disk: id=../a: is not 1 to 64 letters");
}

TEST_F(Refusal, UnknownOption_IsAnsweredWithTheNearest) {
  ExpectOneLine(With({"--memroy", "1G"}), "did you mean '--memory'?");
}

TEST_F(Refusal, MoreDevicesThanThereIsRoomFor_AreCounted) {
  const auto entropy = [](int count) {
    Arguments all;
    for (int i = 0; i < count; ++i) {
      all.insert(all.end(), {"--entropy", "on"});
    }
    return all;
  };
  ExpectOneLine(With(entropy(25)),
                "--entropy: 25 virtio devices are more than the 24 that a machine with ACPI has");
  auto without = entropy(11);
  without.insert(without.end(), {"--acpi", "off"});
  ExpectOneLine(With(without), "11 virtio devices are more than the 10 that a machine without ACPI has");
}

TEST_F(Refusal, MemoryThatCannotBe_IsNamed) {
  ExpectOneLine(With({"--memory", "0"}), "--memory");
  ExpectOneLine(With({"--memory", "1000K"}), "1024000");
  ExpectOneLine(With({"--memory", "4000T"}), "more than the");
}

TEST_F(Refusal, CommandLineTooLong_IsNamedWithItsLimit) {
  ExpectOneLine(With({"--cmdline", std::string(70'000, 'c')}), "command line");
}

TEST_F(Refusal, InitrdMissing_IsNamed) { ExpectOneLine(With({"--initrd", TempPath("missing")}), "missing"); }

TEST_F(Refusal, LogFileThatCannotBeOpened_IsNamed) {
  ExpectOneLine(With({"--log-file", "/nonexistent/directory/log"}), "/nonexistent/directory/log");
}

TEST_F(Refusal, TruncatedAtEachByteOfItsHeaders_IsRefusedOrRunsNothing) {
  const auto command = Command("hello");
  const std::string image = [&] {
    const auto read = RunProcess({"cat", command[2]});
    return read.out;
  }();
  ASSERT_GT(image.size(), 200U);
  for (std::size_t size = 0; size < 200; size += 7) {
    SCOPED_TRACE(size);
    ExpectOneLine(RunProcess({command.front(), "--kernel", WriteTempFile("cut", image.substr(0, size))}),
                  "cut");
  }
}

}  // namespace
}  // namespace gyre::test
