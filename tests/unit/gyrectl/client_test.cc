#include "tools/gyrectl/client.h"

#include <gtest/gtest.h>

#include "tests/unit/gyrectl/fake_server.h"

namespace gyre::ctl {
namespace {

constexpr double kPatience = 20;  // seconds, of a test that should not need them
constexpr double kShort = 0.2;    // seconds, of a test whose time is to be up

Outcome<std::optional<Json>> ReadOne(std::string_view bytes) {
  MessageReader reader;
  reader.Feed(bytes);
  return reader.Next();
}

TEST(MessageReader, TakesObjectsHoweverTheyAreCut) {
  const std::string text = "{\"a\": \"}{\\\"\"}\r\n {\"b\":\n [1, {}]}  ";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    MessageReader reader;
    std::vector<Json> seen;
    for (const auto& part : {text.substr(0, cut), text.substr(cut)}) {
      reader.Feed(part);
      while (const auto message = reader.Next().value()) {
        seen.push_back(*message);
      }
    }
    ASSERT_EQ(seen.size(), 2U) << cut;
    EXPECT_EQ(seen[0], Json({{"a", "}{\""}}));
    EXPECT_EQ(seen[1]["b"].size(), 2U);
  }
}

TEST(MessageReader, RefusesWhatIsNoMessage) {
  for (const std::string text :
       {"HTTP/1.1 200 OK", "}", "{\"a\": nonsense}", "{\"a\": \"\xff\"}", "[1, 2]", "1"}) {
    const auto read = ReadOne(text);
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error().exit, Exit::kBroken);
  }
}

TEST(MessageReader, HasLimits) {
  const std::string deep = "{\"a\":" + std::string(kMaxDepth, '[');
  EXPECT_NE(ReadOne(deep).error().message.find("nested"), std::string::npos);
  const std::string allowed =
      "{\"a\":" + std::string(kMaxDepth - 1, '[') + std::string(kMaxDepth - 1, ']') + "}";
  EXPECT_TRUE(ReadOne(allowed).value());
  const std::string endless = "{\"a\": \"" + std::string(kMaxMessage, 'x');
  EXPECT_NE(ReadOne(endless).error().message.find("longer"), std::string::npos);
}

TEST(Client, ExecutesAndKeepsEventsForLater) {
  FakeServer server([](const Json& request) {
    return std::string("{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n") +
           FakeServer::Return(request, {{"echo", request["arguments"]}});
  });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  ASSERT_TRUE(client) << client.error().message;
  const auto result = client->Execute("test", {{"x", 1}}, Deadline::After(kPatience));
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ((*result)["echo"]["x"], 1);
  const auto event = client->NextEvent(Deadline::After(kPatience)).value();
  ASSERT_TRUE(event);
  EXPECT_EQ((*event)["event"], "STOP");
  EXPECT_FALSE(client->NextEvent(Deadline::After(kShort)).value());
}

TEST(Client, TellsWhatTheServerRefuses) {
  FakeServer server([](const Json& request) {
    return Json({{"error", {{"class", "CommandNotFound"}, {"desc", "no such thing"}}}, {"id", request["id"]}})
               .dump() +
           "\r\n";
  });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  const auto result = client->Execute("test", Json::object(), Deadline::After(kPatience));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().exit, Exit::kRefused);
  EXPECT_EQ(result.error().message, "no such thing");
  EXPECT_EQ(client->last_error_class(), "CommandNotFound");
}

TEST(Client, NobodyThere_IsNoConnection) {
  EXPECT_EQ(Client::Connect("/nonexistent/qmp", Deadline::After(kPatience)).error().exit,
            Exit::kNoConnection);
  EXPECT_EQ(Client::Connect("@gyrectl-test-nobody", Deadline::After(kPatience)).error().exit,
            Exit::kNoConnection);
  EXPECT_EQ(Client::Connect(std::string(200, 'x'), Deadline::After(kPatience)).error().exit, Exit::kUsage);
}

TEST(Client, SilentServer_IsATimeout) {
  FakeServer server([](const Json&) { return std::string(); });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  ASSERT_TRUE(client);
  EXPECT_EQ(client->Execute("test", Json::object(), Deadline::After(kShort)).error().exit, Exit::kTimeout);
  FakeServer mute([](const Json&) { return std::string(); }, "");
  EXPECT_EQ(Client::Connect(mute.path(), Deadline::After(kShort)).error().exit, Exit::kTimeout);
}

// More than anybody reads within the deadlines here.
std::string FloodOf(std::string_view message) {
  std::string flood;
  for (int i = 0; i < 2'000'000; ++i) {
    flood += message;
  }
  return flood;
}

TEST(Client, EventsWithoutEnd_AreATimeoutToo) {
  FakeServer server([](const Json& request) {
    return FloodOf("{\"event\":\"X\"}\n") + FakeServer::Return(request, "too late");
  });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  ASSERT_TRUE(client);
  EXPECT_EQ(client->Execute("test", Json::object(), Deadline::After(kShort)).error().exit, Exit::kTimeout);
}

TEST(Client, LateAnswersWithoutEnd_AreATimeoutToo) {
  FakeServer server([](const Json& request) {
    return FloodOf("{\"return\":1,\"id\":1}\n") + FakeServer::Return(request, "too late");
  });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  ASSERT_TRUE(client);
  EXPECT_EQ(client->Execute("test", Json::object(), Deadline::After(kShort)).error().exit, Exit::kTimeout);
}

TEST(Client, WhatIsNoEventWithoutEnd_IsNoEventInTime) {
  FakeServer server([](const Json& request) {
    return FakeServer::Return(request, 1) + FloodOf("{\"id\":1}\n") + "{\"event\":\"TOO_LATE\"}\n";
  });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  ASSERT_TRUE(client->Execute("test", Json::object(), Deadline::After(kPatience)));
  const auto event = client->NextEvent(Deadline::After(kShort));
  ASSERT_TRUE(event) << event.error().message;
  EXPECT_FALSE(*event);
}

TEST(Client, KeepsFewEventsThatAreLong) {
  constexpr int kEvents = 12;
  FakeServer server([](const Json& request) {
    std::string text;
    for (int i = 0; i < kEvents; ++i) {
      text +=
          Json({{"event", "LONG"}, {"data", {{"number", i}, {"text", std::string(1 << 20, 'x')}}}}).dump();
    }
    return text + FakeServer::Return(request, 1);
  });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  ASSERT_TRUE(client->Execute("test", Json::object(), Deadline::After(kPatience)));
  std::vector<int> kept;
  while (const auto event = client->NextEvent(Deadline::After(kShort)).value()) {
    kept.push_back((*event)["data"]["number"]);
  }
  EXPECT_EQ(kept, (std::vector<int>{kEvents - 3, kEvents - 2,
                                    kEvents - 1}));  // 4 MiB, less what is around the text
}

TEST(Client, AnswerThatCameTooLate_IsNotTakenForTheNext) {
  std::string held;
  FakeServer server([&held](const Json& request) {
    if (request["execute"] == "slow") {
      held = FakeServer::Return(request, "late");
      return std::string();
    }
    return held + FakeServer::Return(request, "right");
  });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  ASSERT_TRUE(client);
  EXPECT_FALSE(client->Execute("slow", Json::object(), Deadline::After(kShort)));
  EXPECT_EQ(client->Execute("next", Json::object(), Deadline::After(kPatience)).value(), "right");
}

struct Lie {
  const char* name;
  const char* answer;
};
class LyingServer : public ::testing::TestWithParam<Lie> {};

TEST_P(LyingServer, IsFoundOut) {
  FakeServer server([](const Json&) { return std::string(GetParam().answer); });
  auto client = Client::Connect(server.path(), Deadline::After(kPatience));
  ASSERT_TRUE(client) << client.error().message;
  EXPECT_EQ(client->Execute("test", Json::object(), Deadline::After(kPatience)).error().exit, Exit::kBroken);
}

INSTANTIATE_TEST_SUITE_P(Answers, LyingServer,
                         ::testing::Values(Lie{"HangsUp", FakeServer::kHangUp},
                                           Lie{"OtherId", "{\"return\": {}, \"id\": 77}"},
                                           Lie{"IdOfText", "{\"return\": {}, \"id\": \"2\"}"},
                                           Lie{"NoResult", "{\"id\": 2}"}, Lie{"NoJson", "hello"},
                                           Lie{"List", "[{\"return\": {}}]"}),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST(Client, GreetingOfAnotherKind_IsRefused) {
  FakeServer server([](const Json&) { return std::string(); }, "{\"hello\": true}\n");
  EXPECT_EQ(Client::Connect(server.path(), Deadline::After(kPatience)).error().exit, Exit::kBroken);
}

}  // namespace
}  // namespace gyre::ctl
