// Clients that take what they can get: places, file descriptors, memory for requests that wait.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <array>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/open_files.h"
#include "src/control/admission.h"
#include "tests/support/file_limit.h"
#include "tests/unit/control/qmp_fixture.h"

namespace gyre::control {
namespace {

using testing::HasSubstr;

constexpr uid_t kGreedy = 54321;
constexpr uid_t kOther = 54322;

std::size_t CountOf(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

// With a socket that anybody may connect to.
class Greed : public Qmp {
 protected:
  Greed() {
    auto spec = ParseSocketSpec("unix:" + name_);
    for (uid_t user = kGreedy; user < kGreedy + 8; ++user) {
      spec->allowed.push_back(user);
    }
    Serve(&TestCommands, {*std::move(spec)});
  }
  // A connection that waits to be accepted.
  UniqueFd Dial() const {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const UnixAddress address(name_);
    EXPECT_EQ(::connect(fd.get(), address.get(), address.size()), 0) << std::strerror(errno);
    return fd;
  }
  // As that user, for the calling thread alone: glibc's call is for all of a process.
  UniqueFd DialAs(uid_t user) const {
    EXPECT_EQ(::syscall(SYS_setresuid, -1, user, -1), 0);
    UniqueFd fd = Dial();
    EXPECT_EQ(::syscall(SYS_setresuid, -1, 0, -1), 0);
    return fd;
  }
  // True if it was let in; false if it was sent away.
  bool IsServed(TestClient& client) {
    const loop::Watch wakes(loop(), client.fd(), loop::Watch::kRead, [](unsigned) {});
    EXPECT_TRUE(RunUntil([&] {
      client.Take();
      return client.ended || !client.text.empty();
    }));
    return !client.text.empty();
  }
  bool GetsIn(uid_t user) {
    clients_.emplace_back(DialAs(user));
    return IsServed(clients_.back());
  }
  // Whatever is there to be done is done, and how often the loop went round for it.
  std::uint64_t RoundsOfAWhile() {
    bool over = false;
    loop::Timer timer(loop(), loop::ClockType::kRealtime, [&over] { over = true; });
    timer.Set(loop().Now(loop::ClockType::kRealtime) + (200 * loop::kMs));
    const std::uint64_t before = loop().stats().iterations;
    EXPECT_TRUE(RunUntil([&over] { return over; }));
    return loop().stats().iterations - before;
  }

  // The kernel keeps a name until the ring has let go of its socket.
  static inline int made_ = 0;
  const std::string name_ = format("@gyre-greed-{}-{}", ::getpid(), made_++);
  std::deque<TestClient> clients_;
};

class GreedOfUsers : public Greed {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "connecting as other users takes root";
    }
  }
};

TEST_F(GreedOfUsers, ClientsOfOneUser_LeaveOthersTheirPlaces) {
  testing::internal::CaptureStderr();
  for (std::size_t i = 0; i < kMostOfAStranger; ++i) {
    ASSERT_TRUE(GetsIn(kGreedy)) << i;
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_FALSE(GetsIn(kGreedy)) << "he has enough";
  }
  EXPECT_TRUE(GetsIn(kOther));
  EXPECT_TRUE(GetsIn(0));
  clients_.front().Hangup();
  EXPECT_TRUE(RunUntil([this] { return server_->clients() == kMostOfAStranger + 1; }));
  EXPECT_TRUE(GetsIn(kGreedy)) << "one has left";
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr(format("uid {}: its user has {} clients", kGreedy, kMostOfAStranger)));
}

TEST_F(GreedOfUsers, ManyUsersTogether_LeaveRootItsPlaces) {
  const std::size_t most = kMostClients - kKeptPlaces;
  for (std::size_t i = 0; i < most; ++i) {
    ASSERT_TRUE(GetsIn(static_cast<uid_t>(kGreedy + (i % 4)))) << i;
  }
  EXPECT_FALSE(GetsIn(kGreedy + 5)) << "who has none yet";
  for (std::size_t i = 0; i < kKeptPlaces; ++i) {
    ASSERT_TRUE(GetsIn(0)) << i;
  }
  // All are taken: who may come in waits for a place.
  UniqueFd waits = DialAs(0);
  EXPECT_LT(RoundsOfAWhile(), 20U);
  EXPECT_EQ(server_->clients(), kMostClients);
  clients_.front().Hangup();
  TestClient last(std::move(waits));
  EXPECT_TRUE(IsServed(last));
}

TEST_F(GreedOfUsers, RefusedStrangers_FillNoLog) {
  testing::internal::CaptureStderr();
  constexpr int kStrangers = 300;
  for (int i = 0; i < kStrangers; ++i) {
    EXPECT_FALSE(GetsIn(kGreedy + 100));
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr(format("refused pid {}, uid {}: is not allowed", ::getpid(), kGreedy + 100)));
  EXPECT_LT(CountOf(log, "refused pid"), kStrangers / 3U) << log;
  EXPECT_TRUE(GetsIn(0));
}

// --- File descriptors ---

TEST_F(Greed, OutOfFiles_IsSaidOnceAndWhoIsThereIsServed) {
  auto client = ConnectAndNegotiate();
  std::vector<TestClient> others;
  for (int i = 0; i < 8; ++i) {
    others.emplace_back(Dial());
  }
  testing::internal::CaptureStderr();
  const test::FileLimit limit;
  limit.LeaveRoomFor(2);
  EXPECT_TRUE(RunUntil([this] { return server_->clients() == 3; }));
  EXPECT_EQ(Ask(client, EchoRequest("still here")), Echoed("still here"));
  for (int i = 0; i < 7; ++i) {  // it is tried again meanwhile, and nothing new is said of it
    EXPECT_LT(RoundsOfAWhile(), 20U);
  }
  EXPECT_EQ(server_->clients(), 3U);
  limit.Restore();
  EXPECT_TRUE(RunUntil([this] { return server_->clients() == 9; }));
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(CountOf(log, "no more clients for now"), 1U) << log;
}

TEST_F(Greed, FileDescriptorsThatThereIsNoRoomFor_AreLostAndTheCommandHasNone) {
  auto client = ConnectAndNegotiate();
  const loop::Pipe pipe;
  const std::string request = R"({"execute": "take-fd"})";
  for (const std::size_t room : {0U, 2U}) {  // the kernel cannot give it; it would be of the last
    testing::internal::CaptureStderr();
    const test::FileLimit limit;
    limit.LeaveRoomFor(room);
    client.PutWithFd(request, pipe.write_end.get());
    taken_fd = 0;
    EXPECT_EQ(Read(client, 1), std::vector<std::string>{R"({"return": {}})"});
    EXPECT_EQ(taken_fd, -1) << room;
    limit.Restore();
    const std::string log = testing::internal::GetCapturedStderr();
    EXPECT_EQ(CountOf(log, "file descriptors that it has sent are lost"), room == 0 ? 1U : 0U)
        << "no more than once a second: " << log;
  }
  client.PutWithFd(request, pipe.write_end.get());
  (void)Read(client, 1);
  ASSERT_GE(taken_fd, 0);
  ::close(std::exchange(taken_fd, -1));
}

// --- Requests that wait ---

// Of about so many bytes of memory, once it has been read.
std::string RequestOf(std::size_t size) {
  std::string text = R"({"execute": "echo", "arguments": {"text": [)";
  constexpr std::size_t kValue = 96;
  for (std::size_t i = 0; i < size / kValue; ++i) {
    text += i == 0 ? "0" : ",0";
  }
  return text + "]}}";
}

void PutAll(TestClient& client, std::string_view text,
            const std::function<bool(std::function<bool()>)>& run) {
  EXPECT_TRUE(run([&] {
    text.remove_prefix(client.Put(text));
    client.Take();
    return text.empty() || client.ended;
  }));
}

// Whole requests were not counted, however large, once they waited for another one. Those that are not whole
// yet stay below the limit here.
TEST_F(Greed, RequestsThatWait_AreBoundedForAllTogether) {
  constexpr std::size_t kSize = Session::kPauseQueued * 7 / 8;
  constexpr std::size_t kClients = Session::kMostHeld / kSize - 4;
  const std::string request = RequestOf(kSize);
  std::deque<TestClient> clients;
  for (std::size_t i = 0; i < kClients; ++i) {
    clients.push_back(ConnectAndNegotiate(true));
    PutAll(clients.back(), R"({"execute": "slow"})" + request + request,
           [this](const auto& done) { return RunUntil(done); });
  }
  EXPECT_TRUE(RunUntil([this] { return server_->clients() < kClients; }));
  EXPECT_GT(server_->clients(), 0U);
  auto other = ConnectAndNegotiate();
  EXPECT_EQ(Ask(other, EchoRequest("still here")), Echoed("still here"));
}

TEST_F(Greed, LargeRequestThatWaits_IsAsGoodAsAFullQueue) {
  auto client = ConnectAndNegotiate(true);
  PutAll(client,
         R"({"execute": "slow"})" + RequestOf(Session::kPauseQueued * 9 / 8) +
             R"({"exec-oob": "where", "id": "oob"})",
         [this](const auto& done) { return RunUntil(done); });
  EXPECT_TRUE(RunUntil([] { return static_cast<bool>(pending_done); }));
  (void)RoundsOfAWhile();
  client.Take();
  EXPECT_EQ(client.text, "");
  std::exchange(pending_done, nullptr)(Nothing());
  EXPECT_THAT(Read(client, 3), testing::Contains(R"({"return": {}, "id": "oob"})"));
}

// What the main loop has not even seen yet, since a drain holds it up, fills the queue as well.
TEST_F(Greed, RequestsThatTheMainLoopHasNotSeen_FillTheQueue) {
  auto client = ConnectAndNegotiate(true);
  EXPECT_EQ(Ask(client, R"({"exec-oob": "where"})"), R"({"return": {}})");
  oob_thread = {};
  std::string requests;
  for (std::size_t i = 0; i < Session::kQueueLimit; ++i) {
    requests += R"({"execute": "count"})";
  }
  EXPECT_EQ(client.Put(requests + R"({"exec-oob": "where", "id": "oob"})"), requests.size() + 34);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the main loop stands
  EXPECT_EQ(oob_thread, std::thread::id());
  EXPECT_EQ(executed, 0);
  EXPECT_THAT(Read(client, Session::kQueueLimit + 1), testing::Contains(R"({"return": {}, "id": "oob"})"));
}

}  // namespace
}  // namespace gyre::control
