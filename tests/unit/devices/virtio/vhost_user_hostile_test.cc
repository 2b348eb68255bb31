// vhost-user back ends that lie, hang and die: one line says what is wrong, and the VM goes on.
#include "tests/unit/devices/virtio/vhost_user_fixture.h"

namespace gyre::virtio {
namespace {

using Message = test::FakeBackEnd::Message;

class VhostUserHostile : public VhostUserTest {
 protected:
  // What is said of a back end that changes its answer to one request so.
  std::string Refused(VhostRequest which, const std::function<bool(Message&)>& change,
                      test::FakeBackEnd::Options options = {}) {
    options.change = [which, change](VhostRequest request, Message& answer) {
      return request != which || change(answer);
    };
    StartBackEnd(std::move(options));
    auto opened = Open(2);
    if (opened) {
      return "opened";
    }
    const std::string prefix = path + ": the back end ";
    EXPECT_TRUE(opened.error().message().starts_with(prefix)) << opened.error().message();
    EXPECT_EQ(opened.error().kind(), ErrorKind::kUsage);
    return opened.error().message().substr(std::min(prefix.size(), opened.error().message().size()));
  }
};

TEST_F(VhostUserHostile, AnswersOfTheWrongFormAreRefusedInOneLine) {
  const auto nothing = [](Message&) { return true; };
  EXPECT_EQ(Refused(VhostRequest::kGetFeatures, nothing), "opened");
  EXPECT_EQ(Refused(VhostRequest::kGetFeatures,
                    [](Message& answer) {
                      answer.header.request = 99U;
                      return true;
                    }),
            "answers GET_FEATURES by message 99 with flags 0x5");
  EXPECT_EQ(Refused(VhostRequest::kGetFeatures,
                    [](Message& answer) {
                      answer.header.flags = 1U;
                      return true;
                    }),
            "answers GET_FEATURES by message 1 with flags 0x1");
  EXPECT_EQ(Refused(VhostRequest::kGetFeatures,
                    [](Message& answer) {
                      answer.header.flags = 6U;
                      return true;
                    }),
            "answers GET_FEATURES by message 1 with flags 0x6");
  EXPECT_EQ(Refused(VhostRequest::kGetProtocolFeatures,
                    [](Message& answer) {
                      answer.header.size = UINT32_MAX;
                      return true;
                    }),
            "answers GET_PROTOCOL_FEATURES by 4294967295 bytes instead of 8");
  EXPECT_EQ(Refused(VhostRequest::kGetConfig,
                    [](Message& answer) {
                      answer.header.size = 12U;
                      answer.payload.resize(12);
                      return true;
                    }),
            "answers GET_CONFIG by 12 bytes instead of 72");
  EXPECT_EQ(Refused(VhostRequest::kGetConfig,
                    [](Message& answer) {
                      answer.payload[4] = std::byte{8};
                      return true;
                    }),
            "tells 8 bytes of its configuration from 0 on, not 60 from 0 on");
  EXPECT_EQ(Refused(VhostRequest::kSetOwner,
                    [](Message& answer) {
                      answer.payload[0] = std::byte{22};
                      return true;
                    }),
            "refuses SET_OWNER (22)");
}

TEST_F(VhostUserHostile, ABackEndThatCannotDoWhatIsNeededIsRefused) {
  const auto nothing = [](Message&) { return true; };
  EXPECT_EQ(Refused(VhostRequest::kGetFeatures, nothing, {.features = 1ULL << 30}),
            "lacks features that are needed: 0x100000000");
  EXPECT_EQ(Refused(VhostRequest::kGetFeatures, nothing, {.queues = 1}), "has 1 queues, not 2");
  EXPECT_EQ(Refused(VhostRequest::kGetFeatures, nothing, {.protocol_features = kVhostMultiQueue}),
            "does not tell its configuration");
}

TEST_F(VhostUserHostile, SilenceEndsInTime) {
  const auto silent = [](Message&) { return false; };
  EXPECT_EQ(Refused(VhostRequest::kGetFeatures, silent), "does not answer GET_FEATURES within 300 ms");
  EXPECT_EQ(Refused(VhostRequest::kSetOwner, silent), "answers SET_OWNER by message 17 with flags 0x5");
  EXPECT_EQ(Refused(VhostRequest::kGetConfig, silent), "does not answer GET_CONFIG within 300 ms");
  // Half an answer.
  EXPECT_EQ(Refused(VhostRequest::kGetConfig,
                    [](Message& answer) {
                      answer.payload.resize(40);
                      return true;
                    }),
            "does not answer GET_CONFIG within 300 ms");
}

TEST_F(VhostUserHostile, ABackEndThatClosesAtOnceIsRefused) {
  StartBackEnd({.change = [this](VhostRequest, Message&) {
    back_end->Hangup();
    return false;
  }});
  EXPECT_EQ(Open().error().message(), path + ": the back end has closed the connection");
}

TEST_F(VhostUserHostile, WhatNobodyHasAskedForEndsTheConnection_AndTheNextOneServes) {
  StartBackEnd();
  Make();
  Bring(0, 16);
  Request(BlockRequest::kWrite, 1);
  AwaitUsed();
  const VhostHeader header{.request = 1U, .flags = 5U, .size = 0U};
  back_end->SendRaw(std::as_bytes(std::span(&header, 1)));
  ASSERT_TRUE(Await([this] { return events.size() == 2; }));
  EXPECT_EQ(info().trouble, "says something (1) that nobody has asked for");
  const auto id = Request(BlockRequest::kWrite, 2);
  EXPECT_EQ(AwaitUsed().id, id);
}

TEST_F(VhostUserHostile, RingsThatLieEndTheConnection_AndTheRequestGoesToTheNext) {
  for (const auto& [mode, trouble] :
       {std::pair{Mode::kBadId, "says that request 7 is done, which there is not"},
        std::pair{Mode::kJump, "says that 101 requests are done, of 1"}}) {
    StartBackEnd();
    Make();
    Bring(0, 16);
    events.clear();
    back_end->SetMode(mode);
    const auto id = Request(BlockRequest::kWrite, 1);
    ASSERT_TRUE(Await([this] { return !events.empty(); }));
    EXPECT_EQ(info().trouble, trouble);
    back_end->SetMode(Mode::kServe);
    EXPECT_EQ(AwaitUsed().id, id);
    Unplug();
  }
}

TEST_F(VhostUserHostile, ALengthBeyondTheBuffersIsTheBuffers) {
  StartBackEnd();
  Make();
  Bring(0, 16);
  back_end->SetMode(Mode::kTooLong);
  const auto id = Request(BlockRequest::kRead, 1);
  EXPECT_EQ(AwaitUsed(), (test::Used{id, 513}));
}

TEST_F(VhostUserHostile, ANextOneThatCanDoLessIsNotTaken) {
  StartBackEnd();
  Make();
  Bring(0, 16);
  Request(BlockRequest::kWrite, 1);
  AwaitUsed();
  StartBackEnd({.features = (1ULL << 32) | (1ULL << 30)});
  ASSERT_TRUE(Await([this] { return info().trouble.starts_with("lacks"); }));
  EXPECT_EQ(info().trouble, "lacks features that are needed: 0x240");
  const auto id = Request(BlockRequest::kWrite, 2);
  EXPECT_EQ(back_end->taken(), 0U);
  StartBackEnd();
  EXPECT_EQ(AwaitUsed().id, id);
  EXPECT_EQ(events, (std::vector<std::string>{"d down", "d up"}));
}

// It refuses a message of the rings' start.
TEST_F(VhostUserHostile, ABackEndThatRefusesMemoryIsGivenUp_AndTheGuestWaits) {
  std::atomic<bool> refuse = true;
  StartBackEnd({.change = [&](VhostRequest request, Message& answer) {
    if (request == VhostRequest::kSetMemTable && refuse) {
      answer.payload[0] = std::byte{1};
    }
    return true;
  }});
  Make();
  Bring(0, 16);
  const auto id = Request(BlockRequest::kWrite, 1);
  ASSERT_TRUE(Await([this] { return !events.empty(); }));
  EXPECT_EQ(info().trouble, "refuses SET_MEM_TABLE (1)");
  refuse = false;
  EXPECT_EQ(AwaitUsed().id, id);
  Unplug();
  back_end.reset();
}

}  // namespace
}  // namespace gyre::virtio
