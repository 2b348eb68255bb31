// Char devices by label, with back ends that are exchanged.
#include "gyre/devices/chardevs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "gyre/base/unique_fd.h"
#include "tests/support/file_limit.h"
#include "tests/unit/devices/device_fakes.h"

namespace gyre::devices {
namespace {

// A port that remembers what it was told.
class Port final : public CharFrontend {
 public:
  std::size_t ReceiveRoom() const override { return room; }
  void Receive(std::span<const std::uint8_t> bytes) override { got.append(bytes.begin(), bytes.end()); }
  void WriteReady() override { story += "ready "; }
  CharUse use() const override { return kind; }
  void OpenChanged(bool open) override { story += open ? "open " : "closed "; }
  void Resized() override { story += "resized "; }
  CharUse kind = CharUse::kTerminal;
  std::size_t room = SIZE_MAX;
  std::string got;
  std::string story;
};

std::span<const std::uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

class ChardevsTest : public LoopTest {
 protected:
  ChardevsTest() : LoopTest(&loop::KernelTime()) {
    std::string name = testing::TempDir() + "gyre-chardevs-XXXXXX";
    dir_ = ::mkdtemp(name.data());
  }
  ~ChardevsTest() override { std::filesystem::remove_all(dir_); }
  // Until something happens.
  void Sleep() NO_THREAD_SAFETY_ANALYSIS { loop_->RunOnce(false); }

  Chardev& Add(const std::string& spec) {
    Chardev* const chardev = chardevs_.Add(chardevs_.NewLabel("port"), spec).value();
    chardev->SetFrontend(&port_);
    return *chardev;
  }
  UniqueFd Connect() const {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
    const std::string path = dir_ + "/socket";
    std::memcpy(&address.sun_path[0], path.data(), path.size());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  // Until `done`, for a few seconds at most.
  template <typename Done>
  bool RunUntil(Done&& done) {
    for (int i = 0; i < 5000; ++i) {
      RunPending();
      if (done()) {
        return true;
      }
      if (i > 100) {
        ::usleep(1000);
      }
    }
    return false;
  }
  std::string Text(const std::string& name) const {
    std::ifstream file(dir_ + "/" + name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  static std::string Receive(const UniqueFd& fd) {
    std::string text(1 << 20, '\0');
    const ssize_t got = ::recv(fd.get(), text.data(), text.size(), MSG_DONTWAIT);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
  }

  std::string dir_;
  Port port_;
  Chardevs chardevs_{*loop_};
};

TEST_F(ChardevsTest, EachHasALabelAndIsFoundByIt) {
  EXPECT_EQ(Add("null").label(), "port0");
  EXPECT_EQ(Add("ringbuf").label(), "port1");
  EXPECT_EQ(chardevs_.Find("port1")->filename(), "ringbuf");
  EXPECT_EQ(chardevs_.Find("port2"), nullptr);
  EXPECT_EQ(chardevs_.all().size(), 2U);
}

TEST_F(ChardevsTest, Change_TakesOutputElsewhere) {
  Chardev& chardev = Add("file:" + dir_ + "/first");
  std::string told;
  const auto handle =
      chardevs_.change_notifiers().Add([&](const Chardev& changed) { told = changed.filename(); });
  chardev.Write(Bytes("one"));
  ASSERT_TRUE(chardevs_.Change(chardev, "file:" + dir_ + "/second"));
  chardev.Write(Bytes("two"));
  EXPECT_EQ(Text("first"), "one");
  EXPECT_EQ(Text("second"), "two");
  EXPECT_EQ(told, "file:" + dir_ + "/second");
  EXPECT_EQ(port_.story, "closed open resized ready ");
}

TEST_F(ChardevsTest, ChangeThatFails_LeavesAllAsItWas) {
  Chardev& chardev = Add("file:" + dir_ + "/first");
  EXPECT_FALSE(chardevs_.Change(chardev, "file:" + dir_ + "/none/there"));
  EXPECT_FALSE(chardevs_.Change(chardev, "nonsense"));
  chardev.Write(Bytes("one"));
  EXPECT_EQ(Text("first"), "one");
  EXPECT_EQ(port_.story, "");
}

TEST_F(ChardevsTest, Append_KeepsWhatIsThere) {
  std::ofstream(dir_ + "/log") << "old ";
  Chardev& chardev = Add("append:" + dir_ + "/log");
  chardev.Write(Bytes("new"));
  EXPECT_EQ(Text("log"), "old new");
  EXPECT_EQ(chardev.filename(), "file:" + dir_ + "/log");
}

TEST_F(ChardevsTest, StdioIsOnesAlone) {
  Add("stdio");
  const auto second = chardevs_.Add("other", "stdio");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message(), "stdio: port0 has it already");
  Chardev& other = Add("null");
  EXPECT_FALSE(chardevs_.Change(other, "stdio"));
  EXPECT_TRUE(chardevs_.Change(*chardevs_.Find("port0"), "stdio")) << "it has it";
  ASSERT_TRUE(chardevs_.Change(*chardevs_.Find("port0"), "null"));
  EXPECT_TRUE(chardevs_.Change(other, "stdio"));
}

TEST_F(ChardevsTest, ASizeThatIsTold_GoesToThePort) {
  Chardev& chardev = Add("null");
  EXPECT_EQ(chardev.size(), WindowSize());
  chardev.Resize({.columns = 132, .rows = 50});
  EXPECT_EQ(chardev.size(), (WindowSize{.columns = 132, .rows = 50}));
  EXPECT_EQ(port_.story, "resized ");
}

TEST_F(ChardevsTest, RingBuffer_KeepsTheLast) {
  Chardev& chardev = Add("ringbuf:8");
  chardev.Write(Bytes("abc"));
  chardev.Write(Bytes("defghij"));
  EXPECT_EQ(chardev.ring_buffer()->Take(3), "cde");
  EXPECT_EQ(chardev.ring_buffer()->Take(100), "fghij");
  chardev.Write(Bytes("0123456789"));
  EXPECT_EQ(chardev.ring_buffer()->Take(100), "23456789");
  EXPECT_EQ(chardev.ring_buffer()->Take(100), "");
  EXPECT_EQ(Add("null").ring_buffer(), nullptr);
  for (const char* size : {"0", "3", "x", "1073741824", "-8"}) {
    EXPECT_FALSE(CheckCharSpec(std::string("ringbuf:") + size)) << size;
  }
}

TEST_F(ChardevsTest, UnixClient_IsSeenToComeAndGo) {
  Chardev& chardev = Add("unix:" + dir_ + "/socket");
  EXPECT_FALSE(chardev.open());
  auto client = Connect();
  ASSERT_TRUE(RunUntil([&] { return chardev.open(); }));
  client.Reset();
  ASSERT_TRUE(RunUntil([&] { return !chardev.open(); }));
  EXPECT_EQ(port_.story, "open closed ");
}

TEST_F(ChardevsTest, StreamClientThatGoes_IsReadToItsEndFirst) {
  port_.kind = CharUse::kStream;
  port_.room = 0;
  Chardev& chardev = Add("unix:" + dir_ + "/socket");
  auto client = Connect();
  ASSERT_EQ(::send(client.get(), "last", 4, 0), 4);
  client.Reset();
  ASSERT_TRUE(RunUntil([&] { return !chardev.open() && port_.story == "open "; }));
  RunPending();
  EXPECT_EQ(port_.story, "open ") << "the port has not got it yet";
  port_.room = 100;
  chardev.ResumeInput();
  ASSERT_TRUE(RunUntil([&] { return port_.story == "open closed "; })) << port_.story;
  EXPECT_EQ(port_.got, "last");
}

TEST_F(ChardevsTest, Stream_LosesNothingOfASlowClient) {
  port_.kind = CharUse::kStream;
  Chardev& chardev = Add("unix:" + dir_ + "/socket");
  const auto client = Connect();
  ASSERT_TRUE(RunUntil([&] { return chardev.open(); }));
  std::string sent;
  std::string received;
  for (int i = 0; i < 2'000'000; ++i) {
    sent += static_cast<char>('a' + i % 23);
  }
  std::size_t taken = chardev.Write(Bytes(sent));
  ASSERT_LT(taken, sent.size()) << "there is an end to what is kept";
  ASSERT_TRUE(RunUntil([&] {
    received += Receive(client);
    if (port_.story.contains("ready")) {
      port_.story.clear();
      taken += chardev.Write(Bytes(sent.substr(taken)));
    }
    return received.size() == sent.size();
  })) << received.size();
  EXPECT_EQ(received, sent);
}

TEST_F(ChardevsTest, Stream_ALateClientGetsWhatNobodyHas) {
  port_.kind = CharUse::kStream;
  Chardev& chardev = Add("unix:" + dir_ + "/socket");
  EXPECT_EQ(chardev.Write(Bytes("early ")), 6U);
  auto first = Connect();
  ASSERT_TRUE(RunUntil([&] { return chardev.open(); }));
  chardev.Write(Bytes("first's"));
  EXPECT_EQ(Receive(first), "early first's");
  first.Reset();
  ASSERT_TRUE(RunUntil([&] { return !chardev.open(); }));
  const auto second = Connect();
  ASSERT_TRUE(RunUntil([&] { return chardev.open(); }));
  chardev.Write(Bytes("second's"));
  EXPECT_EQ(Receive(second), "second's");
}

// Accepting failed as often as the loop could turn.
TEST_F(ChardevsTest, SocketWithoutADescriptorForItsClient_WaitsForOne) {
  const Chardev& port = Add("unix:" + dir_ + "/socket");
  const UniqueFd client = Connect();
  testing::internal::CaptureStderr();
  const test::FileLimit limit;
  limit.LeaveRoomFor(0);
  bool over = false;
  loop::Timer timer(*loop_, loop::ClockType::kRealtime, [&over] { over = true; });
  const auto sleep_for = [&](std::int64_t ms) {
    over = false;
    timer.Set(loop_->Now(loop::ClockType::kRealtime) + ms * 1'000'000);
    const std::uint64_t before = loop_->stats().iterations;
    while (!over && !port.open()) {
      Sleep();
    }
    return loop_->stats().iterations - before;
  };
  EXPECT_LT(sleep_for(200), 20U);
  EXPECT_LT(sleep_for(1500), 20U) << "it is tried again";
  EXPECT_FALSE(port.open());
  limit.Restore();
  (void)sleep_for(5000);
  EXPECT_TRUE(port.open());
  const std::string log = testing::internal::GetCapturedStderr();
  const auto said = log.find("nobody can connect for now");
  EXPECT_NE(said, std::string::npos) << log;
  EXPECT_EQ(log.find("nobody can connect for now", said + 1), std::string::npos) << log;
}

}  // namespace
}  // namespace gyre::devices
