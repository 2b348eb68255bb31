#include "gyre/devices/char_backend.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): posix_openpt
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <sstream>

#include "gyre/base/unique_fd.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

// A guest's side that keeps all it gets.
class Sink final : public CharFrontend {
 public:
  std::size_t ReceiveRoom() const override { return room; }
  void Receive(std::span<const std::uint8_t> bytes) override {
    EXPECT_LE(bytes.size(), room);
    room -= bytes.size();
    received.append(bytes.begin(), bytes.end());
  }
  void WriteReady() override { ++ready; }
  std::size_t room = 1024;
  std::string received;
  int ready = 0;
};

std::span<const std::uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// What there is to read within a while; empty if nothing comes.
std::string ReadSome(int fd, int timeout_ms = 2000) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  if (::poll(&entry, 1, timeout_ms) != 1) {
    return {};
  }
  std::string text(256UL * 1024, '\0');
  const ssize_t got = ::read(fd, text.data(), text.size());
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

std::string ReadAll(int fd, std::size_t size) {
  std::string text;
  while (text.size() < size) {
    const std::string piece = ReadSome(fd);
    if (piece.empty()) {
      break;
    }
    text += piece;
  }
  return text;
}

// On the kernel's clocks: what is tested here is real descriptors.
class CharBackendTest : public LoopTest {
 protected:
  CharBackendTest() : LoopTest(&loop::KernelTime()) {
    std::string name = testing::TempDir() + "gyre-chardev-XXXXXX";
    dir_ = ::mkdtemp(name.data());
  }
  void TearDown() override {
    backend_.reset();
    RestoreStandard();
    ::unlink((dir_ + "/socket").c_str());
    ::unlink((dir_ + "/file").c_str());
    ::rmdir(dir_.c_str());
  }

  void Open(const std::string& spec) {
    backend_ = NewCharBackend(*loop_, spec).value();
    backend_->SetFrontend(&sink_);
  }
  // Bounded: 5 s of loop iterations until `done`.
  template <typename Done>
  bool RunUntil(Done&& done) {
    const std::int64_t end = loop::KernelTime().MonotonicNs() + 5'000'000'000;
    while (!done()) {
      if (loop::KernelTime().MonotonicNs() > end) {
        return false;
      }
      RunPending();
    }
    return true;
  }
  UniqueFd Connect() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = dir_ + "/socket";
    std::memcpy(&address.sun_path[0], path.data(), path.size());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  // Puts `fd` in the place of a standard descriptor until the test ends.
  void ReplaceStandard(int standard, int fd) {
    saved_.emplace_back(standard, UniqueFd(::fcntl(standard, F_DUPFD_CLOEXEC, 100)));
    ::dup2(fd, standard);
  }
  void RestoreStandard() {
    for (auto& [standard, saved] : saved_) {
      ::dup2(saved.get(), standard);
    }
    saved_.clear();
  }
  std::string FileText() {
    std::ifstream file(dir_ + "/file");
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  std::string dir_;
  Sink sink_;
  std::unique_ptr<CharBackend> backend_;
  std::vector<std::pair<int, UniqueFd>> saved_;
};

TEST(CharSpec, BadForms_AreUsageErrors) {
  for (const char* spec : {"", "stdi", "file:", "unix:", "file", "tcp:1", "Null", "fd:", "fd:x", "fd:-1"}) {
    const auto status = CheckCharSpec(spec);
    ASSERT_FALSE(status) << spec;
    EXPECT_EQ(status.error().kind(), ErrorKind::kUsage);
  }
  EXPECT_FALSE(CheckCharSpec("unix:" + std::string(200, 'x')));
  for (const char* spec : {"stdio", "null", "pty", "file:/x", "unix:/x"}) {
    EXPECT_TRUE(CheckCharSpec(spec)) << spec;
  }
}

TEST_F(CharBackendTest, Null_TakesEverything) {
  Open("null");
  EXPECT_EQ(backend_->Write(Bytes("abc")), 3U);
}

TEST_F(CharBackendTest, File_IsTruncatedAndWritten) {
  std::ofstream(dir_ + "/file") << "old text";
  Open("file:" + dir_ + "/file");
  EXPECT_EQ(backend_->Write(Bytes("new")), 3U);
  EXPECT_EQ(FileText(), "new");
}

TEST_F(CharBackendTest, UnwritableFile_IsNamed) {
  const auto result = NewCharBackend(*loop_, "file:" + dir_ + "/none/file");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind(), ErrorKind::kUsage);
  EXPECT_NE(result.error().message().find(dir_ + "/none/file"), std::string::npos);
}

TEST_F(CharBackendTest, FullDisk_DoesNotStopTheGuest) {
  Open("file:/dev/full");
  EXPECT_EQ(backend_->Write(Bytes("abc")), 3U);
}

TEST_F(CharBackendTest, StdioPipes_CarryBothWays) {
  std::array<int, 2> in = {};
  std::array<int, 2> out = {};
  ASSERT_EQ(::pipe2(in.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(out.data(), O_CLOEXEC), 0);
  const UniqueFd in_end(in[1]);
  const UniqueFd out_end(out[0]);
  ReplaceStandard(0, in[0]);
  ReplaceStandard(1, out[1]);
  ::close(in[0]);
  ::close(out[1]);
  Open("stdio");
  ASSERT_EQ(::write(in_end.get(), "typed", 5), 5);
  const bool received = RunUntil([&] { return sink_.received == "typed"; });
  const std::size_t taken = backend_->Write(Bytes("shown"));
  const int flags = ::fcntl(1, F_GETFL);
  RestoreStandard();
  EXPECT_TRUE(received);
  EXPECT_EQ(taken, 5U);
  EXPECT_EQ(ReadSome(out_end.get()), "shown");
  EXPECT_EQ(flags & O_NONBLOCK, 0);  // the shared description is as it was
}

TEST_F(CharBackendTest, FullPipe_TakesLessAndSaysWhenReady) {
  std::array<int, 2> out = {};
  ASSERT_EQ(::pipe2(out.data(), O_CLOEXEC), 0);
  const UniqueFd out_end(out[0]);
  ReplaceStandard(1, out[1]);
  ::close(out[1]);
  const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ReplaceStandard(0, nothing.get());
  Open("stdio");
  const std::string much(1 << 20, 'x');
  const std::size_t taken = backend_->Write(Bytes(much));
  RunPending();
  const int ready_before = sink_.ready;
  const std::string drained = ReadAll(out_end.get(), taken);
  const bool ready = RunUntil([&] { return sink_.ready > 0; });
  RestoreStandard();
  EXPECT_LT(taken, much.size());
  EXPECT_EQ(ready_before, 0);
  EXPECT_EQ(drained.size(), taken);
  EXPECT_TRUE(ready);
}

// EPIPE, and the SIGPIPE before it, end the output but not the VM.
TEST_F(CharBackendTest, ClosedPipe_DropsTheOutput) {
  std::array<int, 2> out = {};
  ASSERT_EQ(::pipe2(out.data(), O_CLOEXEC), 0);
  ReplaceStandard(1, out[1]);
  ::close(out[1]);
  Open("stdio");
  ::close(out[0]);
  const std::size_t taken = backend_->Write(Bytes("abc"));
  RestoreStandard();
  EXPECT_EQ(taken, 3U);
}

TEST_F(CharBackendTest, SocketAsStdio_NeverBlocks) {
  std::array<int, 2> pair = {};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  const UniqueFd peer(pair[1]);
  ReplaceStandard(0, pair[0]);
  ReplaceStandard(1, pair[0]);
  ::close(pair[0]);
  Open("stdio");
  const std::string much(4 << 20, 'x');
  const std::size_t taken = backend_->Write(Bytes(much));
  ASSERT_EQ(::write(peer.get(), "in", 2), 2);
  const bool received = RunUntil([&] { return sink_.received == "in"; });
  RestoreStandard();
  EXPECT_LT(taken, much.size());
  EXPECT_TRUE(received);
}

TEST_F(CharBackendTest, RegularFileAsStdin_EndsQuietly) {
  std::ofstream(dir_ + "/file") << "0123456789";
  const UniqueFd file(::open((dir_ + "/file").c_str(), O_RDONLY | O_CLOEXEC));
  ReplaceStandard(0, file.get());
  sink_.room = 4;
  Open("stdio");
  const bool first = RunUntil([&] { return sink_.received == "0123"; });
  for (int i = 0; i < 10; ++i) {
    RunPending();
  }
  const bool held_back = sink_.received == "0123";
  sink_.room = 100;
  backend_->ResumeInput();
  const bool rest = RunUntil([&] { return sink_.received == "0123456789"; });
  for (int i = 0; i < 10; ++i) {
    RunPending();
  }
  RestoreStandard();
  EXPECT_TRUE(first);
  EXPECT_TRUE(held_back);
  EXPECT_TRUE(rest);
}

bool Canonical(int terminal) {
  termios settings = {};
  return ::tcgetattr(terminal, &settings) == 0 && (settings.c_lflag & ICANON) != 0;
}

// In a session of its own whose terminal is a new pty: exits with 0 if the
// terminal is raw as long as the backend lives, and not before or after.
void UseTerminalAsStdio() NO_THREAD_SAFETY_ANALYSIS {
  ::setsid();
  const UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ::unlockpt(master.get());
  const UniqueFd slave(::open(::ptsname(master.get()), O_RDWR | O_CLOEXEC));  // NOLINT(concurrency-mt-unsafe)
  ::dup2(slave.get(), 0);
  ::dup2(slave.get(), 1);
  BigLock big_lock;
  big_lock.Lock();
  bool good = Canonical(slave.get());
  {
    const auto loop = loop::MainLoop::Create(big_lock).value();
    auto backend = NewCharBackend(*loop, "stdio").value();
    good =
        good && !Canonical(slave.get()) && backend->Write(Bytes("hi")) == 2 && ReadSome(master.get()) == "hi";
  }
  good = good && Canonical(slave.get());
  ::_exit(good ? 0 : 1);
}

TEST(CharBackendDeathTest, TerminalAsStdio_IsRawUntilDestruction) {
  EXPECT_EXIT(UseTerminalAsStdio(), testing::ExitedWithCode(0), "");
}

TEST_F(CharBackendTest, Pty_LateReaderWorksBothWays) {
  Open("pty");
  ASSERT_TRUE(backend_->filename().starts_with("pty:/dev/pts/"));
  const UniqueFd slave(::open(backend_->filename().substr(4).c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(slave);
  termios settings = {};
  ASSERT_EQ(::tcgetattr(slave.get(), &settings), 0);
  EXPECT_EQ(settings.c_lflag & (ICANON | ECHO), 0U);
  EXPECT_EQ(backend_->Write(Bytes("hello\n")), 6U);
  EXPECT_EQ(ReadSome(slave.get()), "hello\n");
  ASSERT_EQ(::write(slave.get(), "k", 1), 1);
  EXPECT_TRUE(RunUntil([&] { return sink_.received == "k"; }));
}

TEST_F(CharBackendTest, PtyWithoutReader_DropsInsteadOfBlocking) {
  Open("pty");
  const std::string text(4096, 'x');
  std::size_t taken = text.size();
  for (int i = 0; i < 100 && taken == text.size(); ++i) {
    taken = backend_->Write(Bytes(text));
  }
  ASSERT_LT(taken, text.size());  // full: the guest waits a moment
  // and then goes on, even if it tries again all the time; the kernel may take
  // a piece more meanwhile
  EXPECT_TRUE(RunUntil([&] { return sink_.ready > 0 && backend_->Write(Bytes(text)) == text.size(); }));
  const UniqueFd slave(
      ::open(backend_->filename().substr(4).c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  const int before = sink_.ready;
  EXPECT_TRUE(RunUntil([&] {
    ReadSome(slave.get(), 0);
    return sink_.ready > before;
  }));
  while (!ReadSome(slave.get(), 50).empty()) {
  }
  EXPECT_EQ(backend_->Write(Bytes("again")), 5U);
  EXPECT_EQ(ReadSome(slave.get()), "again");
}

TEST_F(CharBackendTest, Unix_CarriesBothWaysAndCleansUp) {
  Open("unix:" + dir_ + "/socket");
  struct stat status = {};
  ASSERT_EQ(::stat((dir_ + "/socket").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0660U);
  const UniqueFd client = Connect();
  ASSERT_EQ(::write(client.get(), "in", 2), 2);
  EXPECT_TRUE(RunUntil([&] { return sink_.received == "in"; }));
  EXPECT_EQ(backend_->Write(Bytes("out")), 3U);
  EXPECT_EQ(ReadSome(client.get()), "out");
  backend_.reset();
  EXPECT_NE(::stat((dir_ + "/socket").c_str(), &status), 0);
}

TEST_F(CharBackendTest, PassedSocket_IsServedAndItsFileLeftAlone) {
  const std::string path = dir_ + "/socket";
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(&address.sun_path[0], path.size());
  ASSERT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  Open("fd:" + std::to_string(listener));
  EXPECT_EQ(backend_->listener(), listener);
  EXPECT_EQ(backend_->filename(), "unix:" + path);
  const UniqueFd client = Connect();
  EXPECT_EQ(backend_->Write(Bytes("out")), 3U);
  EXPECT_TRUE(RunUntil([&] { return ReadSome(client.get(), 0) == "out"; }));
  backend_.reset();
  EXPECT_EQ(::access(path.c_str(), F_OK), 0);
}

TEST_F(CharBackendTest, PassedDescriptorOfAnotherKind_IsRefused) {
  const int other = ::socket(AF_UNIX, SOCK_STREAM, 0);  // listens not
  EXPECT_FALSE(NewCharBackend(*loop_, "fd:" + std::to_string(other)));
  EXPECT_FALSE(NewCharBackend(*loop_, "fd:9999"));
}

TEST_F(CharBackendTest, UnixLateClient_GetsTheLast64KiB) {
  Open("unix:" + dir_ + "/socket");
  EXPECT_EQ(backend_->Write(Bytes(std::string(100'000, 'a'))), 100'000U);
  EXPECT_EQ(backend_->Write(Bytes(std::string(1000, 'b'))), 1000U);
  const UniqueFd client = Connect();
  RunUntil([&] {
    pollfd entry{.fd = client.get(), .events = POLLIN, .revents = 0};
    return ::poll(&entry, 1, 0) == 1;
  });
  const std::string got = ReadAll(client.get(), 64 * 1024UL);
  EXPECT_EQ(got, std::string((64 * 1024) - 1000, 'a') + std::string(1000, 'b'));
}

TEST_F(CharBackendTest, UnixSlowClient_LosesTheOldestAndBlocksNobody) {
  Open("unix:" + dir_ + "/socket");
  const UniqueFd client = Connect();
  ASSERT_EQ(::write(client.get(), "x", 1), 1);
  ASSERT_TRUE(RunUntil([&] { return sink_.received == "x"; }));
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(backend_->Write(Bytes(std::string(64 * 1024UL, 'a'))), 64 * 1024U);
  }
  ASSERT_EQ(backend_->Write(Bytes("end")), 3U);
  std::string got;
  EXPECT_TRUE(RunUntil([&] {
    got += ReadSome(client.get(), 0);
    return got.ends_with("end");
  }));
  EXPECT_LT(got.size(), 100UL * 64 * 1024);
}

TEST_F(CharBackendTest, UnixSecondClient_WaitsForTheFirstToGo) {
  Open("unix:" + dir_ + "/socket");
  UniqueFd first = Connect();
  ASSERT_EQ(::write(first.get(), "1", 1), 1);
  ASSERT_TRUE(RunUntil([&] { return sink_.received == "1"; }));
  const UniqueFd second = Connect();
  ASSERT_EQ(::write(second.get(), "2", 1), 1);
  for (int i = 0; i < 10; ++i) {
    RunPending();
  }
  EXPECT_EQ(sink_.received, "1");
  first.Reset();
  EXPECT_TRUE(RunUntil([&] { return sink_.received == "12"; }));
}

TEST_F(CharBackendTest, UnixHalfClosedClient_StillListens) {
  Open("unix:" + dir_ + "/socket");
  const UniqueFd client = Connect();
  ASSERT_EQ(::write(client.get(), "cmd", 3), 3);
  ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
  ASSERT_TRUE(RunUntil([&] { return sink_.received == "cmd"; }));
  for (int i = 0; i < 10; ++i) {
    RunPending();
  }
  backend_->Write(Bytes("answer"));
  EXPECT_EQ(ReadSome(client.get()), "answer");
  const UniqueFd next = Connect();
  ASSERT_EQ(::write(next.get(), "!", 1), 1);
  EXPECT_TRUE(RunUntil([&] { return sink_.received == "cmd!"; }));
}

// Regression: the failed echo dropped the client with what it had sent last.
TEST_F(CharBackendTest, UnixClientThatWritesAndGoes_LosesNothingThoughTheGuestEchoes) {
  Open("unix:" + dir_ + "/socket");
  sink_.room = 16;
  const std::string sent(20'000, 'i');
  {
    const UniqueFd client = Connect();
    ASSERT_EQ(::write(client.get(), sent.data(), sent.size()), static_cast<ssize_t>(sent.size()));
  }
  EXPECT_TRUE(RunUntil([&] {
    if (sink_.room < 16) {
      backend_->Write(Bytes("echo"));
      sink_.room = 16;
      backend_->ResumeInput();
    }
    return sink_.received.size() == sent.size();
  }));
  EXPECT_EQ(sink_.received, sent);
}

// Regression: its hang-up went unnoticed while the guest read nothing.
TEST_F(CharBackendTest, UnixClientThatGoesWhileTheGuestReadsNothing_MakesRoomForTheNext) {
  Open("unix:" + dir_ + "/socket");
  sink_.room = 1;
  UniqueFd first = Connect();
  ASSERT_EQ(::write(first.get(), "first", 5), 5);
  ASSERT_TRUE(RunUntil([&] { return sink_.received == "f"; }));
  first.Reset();
  const UniqueFd second = Connect();
  ASSERT_EQ(::write(second.get(), "second", 6), 6);
  backend_->Write(Bytes("hello"));
  std::string shown;
  EXPECT_TRUE(RunUntil([&] {
    shown += ReadSome(second.get(), 0);
    return shown == "hello";
  }));
  EXPECT_EQ(sink_.received, "f");
  sink_.room = 100;
  backend_->ResumeInput();
  EXPECT_TRUE(RunUntil([&] { return sink_.received == "firstsecond"; }));
}

TEST_F(CharBackendTest, UnixStaleSocket_IsReplaced) {
  {
    const UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = dir_ + "/socket";
    std::memcpy(&address.sun_path[0], path.data(), path.size());
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  Open("unix:" + dir_ + "/socket");
  const auto second = NewCharBackend(*loop_, "unix:" + dir_ + "/socket");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), ErrorKind::kUsage);
}

TEST_F(CharBackendTest, UnixPathThatIsAFile_IsLeftAlone) {
  std::ofstream(dir_ + "/file") << "precious";
  const auto result = NewCharBackend(*loop_, "unix:" + dir_ + "/file");
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message().find(dir_ + "/file"), std::string::npos);
  EXPECT_EQ(FileText(), "precious");
}

}  // namespace
}  // namespace gyre::devices
