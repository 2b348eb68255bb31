// What a client may send without the agent's losing more than that connection.
#include <gtest/gtest.h>

#include "tests/unit/agent/session_client.h"

namespace gyre::exec {
namespace {

std::string Hello(std::uint32_t version = kVersion) {
  return ToBytes(FrameType::kHello, HelloPayload(version));
}

std::string Start() { return ToBytes(FrameType::kStart, ToPayload(StartRequest{.words = {"sleep", "100"}})); }

// Sends it as it is; what the session says of it.
std::string Answer(const std::string& bytes) {
  SessionClient client;
  EXPECT_EQ(::send(client.link().fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
  const Told told = client.Wait();
  client.HangUp();
  EXPECT_TRUE(client.Ends()) << "the session ends, and ends well";
  return told.error ? told.error->text : "nothing";
}

TEST(HostileClient, EachBrokenRule_IsOneLineAndTheEnd) {
  EXPECT_EQ(Answer("GET / HTTP/1.1\r\n\r\n"), "it is another protocol");
  EXPECT_EQ(Answer(Start()), "it is another protocol");
  EXPECT_EQ(Answer(ToBytes(FrameType::kHello, "qemu\1\0\0\0")), "a frame of type 1 with 5 bytes");
  EXPECT_EQ(Answer(ToBytes(FrameType::kHello, "qemu" + NumberPayload(1))), "it is another protocol");
  EXPECT_EQ(Answer(Hello() + Hello()), "a frame of type 1 where there can be none");
  EXPECT_EQ(Answer(Hello() + "\x77"), "a frame of type 119 where there can be none");
  EXPECT_EQ(Answer(Hello() + ToBytes(FrameType::kExit, ToPayload(ExitReport{}))),
            "a frame of type 20 where there can be none");
  EXPECT_EQ(Answer(Hello() + ToBytes(FrameType::kStdin, "x")), "a frame that breaks the rules");
  EXPECT_EQ(Answer(Hello() + ToBytes(FrameType::kStart, "x")), "the command is not whole");
  EXPECT_EQ(Answer(Hello() + Start() + Start()), "a frame that breaks the rules");
  EXPECT_EQ(Answer(Hello() + Start() + ToBytes(FrameType::kSignal, NumberPayload(65))), "no signal's number");
  EXPECT_EQ(Answer(Hello() + Start() + ToBytes(FrameType::kStdinEnd) + ToBytes(FrameType::kStdin, "x")),
            "a frame that breaks the rules");
  EXPECT_EQ(Answer(Hello() + Start() + std::string("\3\xff\xff\xff\xff", 5)),
            "a frame of type 3 with 4294967295 bytes");
}

TEST(HostileClient, NewerOne_IsToldOurVersion) {
  EXPECT_EQ(Answer(Hello(kVersion + 1) + Start()), "version 2 of the protocol is not known here, but 1");
}

TEST(HostileClient, GoneInTheMidst) {
  const std::string all = Hello() + Start();
  for (std::size_t size = 0; size <= all.size(); size += 7) {
    SessionClient client;
    ASSERT_EQ(::send(client.link().fd(), all.data(), size, MSG_NOSIGNAL), static_cast<ssize_t>(size));
    client.HangUp();
    EXPECT_TRUE(client.Ends()) << size;
  }
}

TEST(HostileClient, WithoutEnd_IsLeft) {
  SessionClient client;
  ASSERT_EQ(::send(client.link().fd(), "x", 1, MSG_NOSIGNAL), 1);
  const auto deadline = std::chrono::steady_clock::now() + SessionClient::kPatience;
  const std::string more(4096, 'x');
  while (::send(client.link().fd(), more.data(), more.size(), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 ||
         errno == EAGAIN) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    ::poll(nullptr, 0, 1);
  }
  EXPECT_TRUE(client.Ends());
}

}  // namespace
}  // namespace gyre::exec
