// The frames between gyrectl and its agent: what is sent is what is read, and nothing else is.
#include "tools/exec/protocol.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <tuple>

#include "gyre/base/endian.h"

namespace gyre::exec {
namespace {

std::string Header(FrameType type, std::uint32_t length) {
  const Le32 field(length);
  std::string header(1, static_cast<char>(type));
  return header.append(reinterpret_cast<const char*>(&field), sizeof(field));
}

std::string Hello() { return ToBytes(FrameType::kHello, HelloPayload(kVersion)); }

StartRequest Command() {
  return {.terminal = true,
          .size = {.rows = 40, .columns = 132},
          .directory = "/tmp",
          .words = {"sh", "-c", "", "echo \xff\n"},
          .variables = {"A=", "B=c=d"}};
}

// What a reader says of these bytes, behind a greeting.
std::string ErrorOf(Side sender, const std::string& bytes) {
  FrameReader reader(sender);
  reader.Feed(Hello() + bytes);
  while (true) {
    const auto frame = reader.Next();
    if (!frame) {
      return frame.error().message();
    }
    if (!*frame) {
      return "";
    }
  }
}

TEST(Protocol, WhatIsSentIsRead) {
  const auto start = ParseStart(ToPayload(Command()));
  ASSERT_TRUE(start) << start.error().message();
  EXPECT_TRUE(start->terminal);
  EXPECT_EQ(start->size, (WindowSize{.rows = 40, .columns = 132}));
  EXPECT_EQ(start->directory, "/tmp");
  EXPECT_EQ(start->words, Command().words);
  EXPECT_EQ(start->variables, Command().variables);
  EXPECT_EQ(ParseResize(ToPayload(WindowSize{.rows = 1, .columns = 65535})).value(),
            (WindowSize{.rows = 1, .columns = 65535}));
  EXPECT_EQ(ParseSignal(NumberPayload(15)).value(), 15U);
  EXPECT_EQ(ParseCredit(NumberPayload(kMostCredit)).value(), kMostCredit);
  EXPECT_EQ(ParseHello(HelloPayload(7)).value(), 7U);
  const auto end = ParseExit(ToPayload(ExitReport{.by_signal = true, .value = 9})).value();
  EXPECT_TRUE(end.by_signal);
  EXPECT_EQ(end.value, 9U);
  const ErrorReport told{.source = ErrorReport::Source::kCommand, .sys_errno = 2, .text = "no such thing"};
  const auto error = ParseError(ToPayload(told)).value();
  EXPECT_EQ(error.source, told.source);
  EXPECT_EQ(error.sys_errno, 2U);
  EXPECT_EQ(error.text, told.text);
}

TEST(Protocol, EachTruncationIsRefused) {
  const auto refused = [](const std::string& payload, auto parse) {
    for (std::size_t size = 0; size < payload.size(); ++size) {
      EXPECT_FALSE(parse(std::string_view(payload).substr(0, size))) << size;
    }
    EXPECT_FALSE(parse(payload + "x")) << "more than there is to be";
  };
  refused(ToPayload(Command()), ParseStart);
  refused(ToPayload(WindowSize{.rows = 1, .columns = 2}), ParseResize);
  refused(NumberPayload(9), ParseSignal);
  refused(NumberPayload(9), ParseCredit);
  refused(ToPayload(ExitReport{.value = 1}), ParseExit);
  refused(HelloPayload(1), ParseHello);
  for (std::size_t size = 0; size < 5; ++size) {
    EXPECT_FALSE(ParseError(ToPayload(ErrorReport{}).substr(0, size)));
  }
}

TEST(Protocol, NumbersHaveTheirBounds) {
  for (const std::uint32_t wrong : {0U, kMostSignal + 1, ~0U}) {
    EXPECT_FALSE(ParseSignal(NumberPayload(wrong))) << wrong;
  }
  for (const std::uint32_t wrong : {0U, kMostCredit + 1, ~0U}) {
    EXPECT_FALSE(ParseCredit(NumberPayload(wrong))) << wrong;
  }
  EXPECT_FALSE(ParseExit(ToPayload(ExitReport{.by_signal = false, .value = 256})));
  EXPECT_FALSE(ParseExit(ToPayload(ExitReport{.by_signal = true, .value = kMostSignal + 1})));
  EXPECT_FALSE(ParseExit(std::string("\x02\0\0\0\0", 5)));
  EXPECT_FALSE(ParseError(std::string("\x02\0\0\0\0", 5)));
  EXPECT_FALSE(ParseHello("qemu" + NumberPayload(1)));
  std::string lies = ToPayload(Command());
  lies[5] = lies[6] = lies[7] = lies[8] = '\xff';  // so many words
  EXPECT_FALSE(ParseStart(lies));
}

TEST(Protocol, CommandsHaveTheirBounds) {
  const auto error = [](const std::function<void(StartRequest&)>& change) {
    StartRequest request = Command();
    change(request);
    const Status status = CheckStart(request);
    EXPECT_EQ(!ParseStart(ToPayload(request)), !status) << "both say the same";
    return status ? "" : status.error().message();
  };
  EXPECT_EQ(error([](auto& request) { request.words.resize(kMostWords); }), "");
  EXPECT_EQ(error([](auto& request) { request.words.clear(); }), "there is no command");
  EXPECT_EQ(error([](auto& request) { request.words[0] = ""; }), "there is no command");
  EXPECT_EQ(error([](auto& request) { request.words.resize(kMostWords + 1); }),
            "a command has more than 4096 words or variables");
  EXPECT_EQ(error([](auto& request) { request.variables.resize(kMostWords + 1, "A=b"); }),
            "a command has more than 4096 words or variables");
  for (const char* const wrong : {"", "A", "=b"}) {
    EXPECT_EQ(error([&](auto& request) { request.variables = {wrong}; }),
              "a variable is not of the form NAME=VALUE");
  }
  EXPECT_EQ(error([](auto& request) { request.words.push_back(std::string(kMostStart, 'x')); }),
            "a command has more than 262144 bytes in its words and variables");
}

TEST(Frames, ComeHoweverTheyAreCut) {
  const std::string bytes = Hello() + ToBytes(FrameType::kStart, ToPayload(Command())) +
                            ToBytes(FrameType::kStdin, "abc") + ToBytes(FrameType::kStdinEnd);
  FrameReader reader(Side::kClient);
  std::string seen;
  for (const char byte : bytes) {
    reader.Feed({&byte, 1});
    for (auto frame = reader.Next(); frame && *frame; frame = reader.Next()) {
      seen += static_cast<char>('0' + static_cast<int>((*frame)->type));
      if ((*frame)->type == FrameType::kStdin) {
        EXPECT_EQ((*frame)->payload, "abc");
      }
    }
  }
  EXPECT_EQ(seen, "1234");
  EXPECT_EQ(reader.kept(), 0U);
}

TEST(Frames, LengthsHaveTheirBounds_BeforeThePayloadComes) {
  using Case = std::tuple<Side, FrameType, std::uint32_t, std::uint32_t>;
  const std::vector<Case> bounds = {{Side::kClient, FrameType::kStart, 1, kMostStart},
                                    {Side::kClient, FrameType::kStdin, 1, kMostData},
                                    {Side::kClient, FrameType::kStdinEnd, 0, 0},
                                    {Side::kClient, FrameType::kResize, 4, 4},
                                    {Side::kClient, FrameType::kSignal, 4, 4},
                                    {Side::kAgent, FrameType::kCredit, 4, 4},
                                    {Side::kAgent, FrameType::kStdinClosed, 0, 0},
                                    {Side::kAgent, FrameType::kStdout, 1, kMostData},
                                    {Side::kAgent, FrameType::kStderr, 1, kMostData},
                                    {Side::kAgent, FrameType::kExit, 5, 5},
                                    {Side::kAgent, FrameType::kError, 5, 5 + kMostErrorText}};
  for (const auto& [sender, type, least, most] : bounds) {
    EXPECT_EQ(ErrorOf(sender, Header(type, least)), "");
    EXPECT_EQ(ErrorOf(sender, Header(type, most)), "");
    EXPECT_NE(ErrorOf(sender, Header(type, most + 1)), "") << static_cast<int>(type);
    EXPECT_NE(ErrorOf(sender, Header(type, ~0U)), "") << static_cast<int>(type);
    if (least != 0) {
      EXPECT_NE(ErrorOf(sender, Header(type, least - 1)), "") << static_cast<int>(type);
    }
    const Side other = sender == Side::kClient ? Side::kAgent : Side::kClient;
    EXPECT_NE(ErrorOf(other, Header(type, least)), "") << "not that side's";
  }
}

TEST(Frames, TheFirstIsAGreeting_AndNoOther) {
  EXPECT_NE(ErrorOf(Side::kClient, Hello()), "");
  for (int type = 0; type < 256; ++type) {
    FrameReader reader(Side::kClient);
    reader.Feed(std::string(1, static_cast<char>(type)));
    EXPECT_EQ(reader.Next().has_value(), type == static_cast<int>(FrameType::kHello)) << type;
  }
  FrameReader reader(Side::kAgent);
  reader.Feed("SSH-2.0-OpenSSH_9.2p1\r\n");
  EXPECT_EQ(reader.Next().error().message(), "it is another protocol");
}

TEST(Frames, AnErrorsTextIsCut) {
  const std::string payload = ToPayload(ErrorReport{.text = std::string(kMostErrorText + 9, 'x')});
  EXPECT_EQ(ErrorOf(Side::kAgent, ToBytes(FrameType::kError, payload)), "");
  EXPECT_EQ(ParseError(payload).value().text.size(), kMostErrorText);
}

}  // namespace
}  // namespace gyre::exec
