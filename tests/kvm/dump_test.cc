// Memory dumps of the real gyred, and what may be asked for meanwhile.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "gyre/base/format.h"
#include "tests/kvm/qmp_client.h"

namespace gyre::test {
namespace {

TEST_F(Control, Dump_IsACoreThatGdbOpens) {
  auto process = StartGuest("echo", With({"--cpus", "2", "--memory", "32M"}));
  auto client = Talk();
  const std::string path = TempPath("core");
  EXPECT_EQ(client.Run("dump-guest-memory", {{"paging", false}, {"protocol", "file:" + path}})["return"],
            Json::object());
  EXPECT_THAT(client.events, testing::ElementsAre("STOP", "DUMP_COMPLETED", "RESUME"));
  EXPECT_EQ(client.Run("query-dump")["return"]["status"], "completed");
  EXPECT_EQ(
      client.Run("pmemsave", {{"val", 0x10'0000}, {"size", 4}, {"filename", TempPath("piece")}})["return"],
      Json::object());
  std::array<unsigned char, 4> piece{};
  std::ifstream(TempPath("piece"), std::ios::binary)
      .read(reinterpret_cast<char*>(piece.data()), piece.size());
  const auto gdb =
      RunProcess({"gdb", "-nx", "-batch", "-ex", "info threads", "-ex", "x/4xb 0x100000", "-c", path});
  if (gdb.exit_status == 127) {
    GTEST_SKIP() << "gdb is not installed";
  }
  EXPECT_THAT(gdb.out, testing::HasSubstr(format("0x{:02x}\t0x{:02x}\t0x{:02x}\t0x{:02x}", piece[0], piece[1],
                                                 piece[2], piece[3])))
      << gdb.Describe();
  EXPECT_THAT(gdb.out, testing::HasSubstr("LWP 2")) << gdb.Describe();
}

TEST_F(Control, DetachedDump_TellsItsEnd) {
  auto process = StartGuest("echo", With({"--memory", "32M"}));
  auto client = Talk();
  EXPECT_EQ(
      client.Run("dump-guest-memory",
                 {{"paging", false}, {"protocol", "file:" + TempPath("core")}, {"detach", true}})["return"],
      Json::object());
  EXPECT_TRUE(client.Await("RESUME"));
  EXPECT_THAT(client.events, testing::ElementsAre("STOP", "DUMP_COMPLETED", "RESUME"));
}

// By linear address, as the guest itself sees it: what its symbols say, and what is mapped far from where it
// is.
TEST_F(Control, PagingDump_IsByTheGuestsOwnAddresses) {
  auto process = StartGuest("paging", {"--memory", "32M", "--qmp", "unix:" + Socket()});
  auto client = Talk();
  ASSERT_TRUE(process.WaitForOutput("mapped\n")) << process.out();
  const std::string path = TempPath("core");
  EXPECT_EQ(client.Run("dump-guest-memory", {{"paging", true}, {"protocol", "file:" + path}})["return"],
            Json::object());
  EXPECT_THAT(client.events, testing::ElementsAre("STOP", "DUMP_COMPLETED", "RESUME"));
  const auto gdb = RunProcess({"gdb", "-nx", "-batch", "-ex", "print/x (unsigned long)kept", "-ex",
                               "x/gx 0x320000005000", "-ex", "x/gx 0x320000006000", Guest("paging"), path});
  if (gdb.exit_status == 127) {
    GTEST_SKIP() << "gdb is not installed";
  }
  EXPECT_THAT(gdb.out, testing::HasSubstr("= 0x123456789abcdef0")) << gdb.Describe();
  EXPECT_THAT(gdb.out, testing::HasSubstr("0x0fedcba987654321")) << gdb.Describe();
  EXPECT_THAT(gdb.err, testing::HasSubstr("0x320000006000")) << gdb.Describe();
}

// --- While a dump is being written ---

class DumpMeanwhile : public Control {
 protected:
  // To a pipe that nobody reads yet, so that it does not end.
  void Begin(const Arguments& more = {}) {
    const std::string pipe = TempPath("pipe");
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    reader_ = UniqueFd(::open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    writer_ = UniqueFd(::open(pipe.c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_TRUE(reader_ && writer_);
    process_.emplace(StartGuest("echo", With(more)));
    client_.emplace(Talk());
    client_->PutWithFd(R"({"execute": "getfd", "arguments": {"fdname": "pipe"}})", writer_.get());
    EXPECT_TRUE(client_->Next().value_or(Json()).contains("return"));
    writer_.Reset();
  }
  void Dump() {
    EXPECT_EQ(
        client_->Run("dump-guest-memory", {{"paging", false}, {"protocol", "fd:pipe"}, {"detach", true}}),
        Json::parse(R"({"return": {}})"));
  }
  // Reads it to its end.
  void Drain() const {
    std::vector<char> bytes(1U << 20U);
    while (true) {
      pollfd entry{.fd = reader_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&entry, 1, 20'000) != 1) {
        ADD_FAILURE() << "the dump does not go on";
        return;
      }
      const ssize_t got = ::read(reader_.get(), bytes.data(), bytes.size());
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        return;
      }
    }
  }
  // How often that comes depends on how long it takes.
  std::vector<std::string> EventsButProgress() const {
    auto events = client_->events;
    std::erase(events, "DUMP_PROGRESS");
    return events;
  }
  std::string State() { return client_->Run("query-status")["return"]["status"]; }

  UniqueFd reader_;
  UniqueFd writer_;
  std::optional<Process> process_;
  std::optional<Client> client_;
};

// In QEMU's words; its own system_reset ends it here, ours is refused like the others.
TEST_F(DumpMeanwhile, StopContResetAndDump_AreRefused) {
  ASSERT_NO_FATAL_FAILURE(Begin({"--memory", "16M"}));
  Dump();
  EXPECT_EQ(State(), "save-vm");
  for (const char* const command : {"stop", "cont", "system_reset"}) {
    const Json reply = client_->Run(command);
    EXPECT_EQ(reply["error"]["desc"], "There is a dump in process, please wait.") << command << reply;
  }
  const Json again =
      client_->Run("dump-guest-memory", {{"paging", false}, {"protocol", "file:" + TempPath("other")}});
  EXPECT_EQ(again["error"]["desc"], "There is a dump in process, please wait.");
  EXPECT_FALSE(std::filesystem::exists(TempPath("other")));
  EXPECT_EQ(client_->Run("query-dump")["return"]["status"], "active");
  EXPECT_EQ(State(), "save-vm");
  Drain();
  EXPECT_TRUE(client_->Await("RESUME"));
  EXPECT_THAT(EventsButProgress(), testing::ElementsAre("STOP", "DUMP_COMPLETED", "RESUME"));
  EXPECT_EQ(State(), "running");
}

TEST_F(DumpMeanwhile, Clients_AreToldHowFarItIs) {
  ASSERT_NO_FATAL_FAILURE(Begin({"--memory", "16M"}));
  Dump();
  std::optional<Json> told;
  for (auto line = client_->Next(); line && !told; line = client_->Next()) {
    if (line->value("event", "") == "DUMP_PROGRESS") {
      told = line->at("data").at("result");
    }
  }
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->at("status"), "active");
  EXPECT_GT(told->at("total"), 16U << 20U);
  EXPECT_GT(told->at("completed"), 0);  // what the pipe takes
  EXPECT_LT(told->at("completed"), told->at("total"));
  Drain();
  EXPECT_TRUE(client_->Await("RESUME"));
}

TEST_F(DumpMeanwhile, PowerButton_IsPressed) {
  ASSERT_NO_FATAL_FAILURE(Begin({"--memory", "16M"}));
  Dump();
  EXPECT_EQ(client_->Run("system_powerdown")["return"], Json::object());
  EXPECT_TRUE(client_->Await("POWERDOWN"));
  EXPECT_EQ(State(), "save-vm");
  Drain();
  EXPECT_TRUE(client_->Await("RESUME"));
}

// A service manager's stop: the guest hears of it when it goes on, and is not ended under its file systems.
TEST_F(DumpMeanwhile, Terminate_AsksTheGuestToPowerOff) {
  ASSERT_NO_FATAL_FAILURE(Begin({"--memory", "16M", "--stop-timeout", "2"}));
  Dump();
  process_->Signal(SIGTERM);
  EXPECT_TRUE(client_->Await("POWERDOWN"));
  EXPECT_EQ(State(), "save-vm");
  Drain();
  EXPECT_TRUE(client_->Await("SHUTDOWN"));  // this guest does not listen
  EXPECT_THAT(EventsButProgress(),
              testing::ElementsAre("STOP", "POWERDOWN", "DUMP_COMPLETED", "RESUME", "SHUTDOWN"));
  EXPECT_EQ(process_->Wait().exit_status, kCleanEnd);
}

TEST_F(DumpMeanwhile, Quit_EndsAtOnce) {
  ASSERT_NO_FATAL_FAILURE(Begin({"--memory", "16M"}));
  Dump();
  EXPECT_EQ(client_->Run("quit")["return"], Json::object());
  EXPECT_TRUE(client_->Await("SHUTDOWN"));
  EXPECT_EQ(process_->Wait().exit_status, kCleanEnd);
}

// It went on, and the guest stood, until somebody read it.
TEST_F(DumpMeanwhile, ClientThatWaitsForItGoes_ItIsCancelled) {
  ASSERT_NO_FATAL_FAILURE(Begin({"--memory", "16M"}));
  client_->Put(R"({"execute": "dump-guest-memory", "arguments": {"paging": false, "protocol": "fd:pipe"}})");
  EXPECT_TRUE(client_->Await("STOP"));
  std::optional<Client> other(Talk());
  ASSERT_TRUE(other.has_value());
  client_.reset();
  EXPECT_TRUE(other->Await("RESUME"));
  EXPECT_EQ(other->Run("query-dump")["return"]["status"], "failed");
  EXPECT_EQ(other->Run("query-status")["return"]["status"], "running");
}

// A reset that was asked for first, in the same breath, is done when the dump has ended.
TEST_F(DumpMeanwhile, ResetBefore_Waits) {
  ASSERT_NO_FATAL_FAILURE(Begin({"--memory", "16M"}));
  client_->Put(
      R"({"execute": "system_reset"})"
      R"({"execute": "dump-guest-memory", "arguments": {"paging": false, "protocol": "fd:pipe", "detach": true}})");
  EXPECT_TRUE(client_->Await("STOP"));
  const bool first = std::ranges::find(client_->events, "RESET") != client_->events.end();
  Drain();
  EXPECT_TRUE(client_->Await("RESUME"));
  EXPECT_TRUE(client_->Await("RESET"));
  if (!first) {
    EXPECT_THAT(EventsButProgress(), testing::ElementsAre("STOP", "DUMP_COMPLETED", "RESUME", "RESET"));
  }
  EXPECT_EQ(State(), "running");
}

}  // namespace
}  // namespace gyre::test
