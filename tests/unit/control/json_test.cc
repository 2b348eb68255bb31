// The parser and writer of the wire.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "src/control/json.h"

namespace gyre::control {
namespace {

// What comes out of `stream` when it arrives in pieces of `size`: values as they are
// written, errors after a '!'.
std::vector<std::string> ParseAll(JsonParser& parser, std::string_view stream, std::size_t size) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < stream.size(); at += size) {
    auto piece = stream.substr(at, size);
    while (!piece.empty()) {
      if (const auto parsed = parser.Next(piece)) {
        out.push_back(*parsed ? WriteJson(**parsed) : "!" + parsed->error());
      }
    }
  }
  return out;
}

std::vector<std::string> ParseAll(std::string_view stream) {
  JsonParser parser;
  return ParseAll(parser, stream, stream.size());
}

using Texts = std::vector<std::string>;

TEST(JsonParser, Values_AreWhatTheyWere) {
  EXPECT_EQ(ParseAll(R"({"a": [1, -2, 18446744073709551615, 1.5, 1e3, true, false, null, "x"], "b": {}})"),
            Texts{R"({"a": [1, -2, 18446744073709551615, 1.5, 1000, true, false, null, "x"], "b": {}})"});
}

TEST(JsonParser, ValuesWithoutAnythingBetween_AreTakenApart) {
  EXPECT_EQ(ParseAll(R"({"a":1}[2]{}"x"3 )"), (Texts{R"({"a": 1})", "[2]", "{}", "\"x\"", "3"}));
}

TEST(JsonParser, SingleQuotes_AreQuotes) {
  EXPECT_EQ(ParseAll(R"({'a': 'it\'s "so"'})"), Texts{R"({"a": "it's \"so\""})"});
}

TEST(JsonParser, Escapes_AreWrittenAsAscii) {
  EXPECT_EQ(ParseAll(R"(["\u00e4\ud83d\ude00\n\t\/\\"])"), Texts{R"(["\u00E4\uD83D\uDE00\n\t/\\"])"});
  EXPECT_EQ(ParseAll(R"(["a\u0000b"])"), Texts{R"(["a\u0000b"])"});
  EXPECT_EQ(ParseAll("[\"\xc3\xa4\xf0\x9f\x98\x80\"]"), Texts{R"(["\u00E4\uD83D\uDE00"])"});
}

TEST(JsonParser, NumberTooSmallForADouble_IsTheNearestOne) { EXPECT_EQ(ParseAll("[1e-400]"), Texts{"[0]"}); }

TEST(JsonParser, EachPieceSize_GivesTheSame) {
  constexpr std::string_view kStream =
      "{\"execute\": \"a\\u00e4\", 'b': [1.5e3, tru, {}]}\n{\"c\": null}\r\n[\"\xff{'d': -0}{]{\"e\": 1}@ 7 ";
  JsonParser whole;
  const auto expected = ParseAll(whole, kStream, kStream.size());
  EXPECT_EQ(expected.size(), 8U);
  for (std::size_t size = 1; size < kStream.size(); ++size) {
    JsonParser parser;
    EXPECT_EQ(ParseAll(parser, kStream, size), expected) << size;
  }
}

// Each is one error, and what follows is understood.
class BrokenJson : public testing::TestWithParam<std::string_view> {};

TEST_P(BrokenJson, IsOneErrorAndThenForgotten) {
  const auto out = ParseAll(std::string(GetParam()) + R"({"next": 1})");
  ASSERT_EQ(out.size(), 2U) << testing::PrintToString(out);
  EXPECT_TRUE(out[0].starts_with("!JSON")) << out[0];
  EXPECT_EQ(out[1], R"({"next": 1})");
}

INSTANTIATE_TEST_SUITE_P(
    Streams, BrokenJson,
    testing::Values("{]", "{]\n", "{\xff", "{\x01", "{'bad \xff", "{'execute': 'x', 'id':'\n", "%p", "{,}",
                    "{\"a\":1,}", "[1 2]", "[1,]", "{\"a\" 1}", "{\"a\":1 \"b\":2}", "{1:2}",
                    "{\"a\":1,\"a\":2}", "{\"a\":tru}", "[01]", "[1.]", "[.5]", "[1e]", "[+1]", "[--1]",
                    "[1e999]", "[nan]", "[\"\\x\"]", "[\"\\u12g4\"]", "[\"\\ud800\"]", "[\"\\udc00\"]",
                    "[\"\\ud800\\ud800\"]", "[\"\\ud800x\"]", "[\"\xc3(\"]", "[\"\xed\xa0\x80\"]",
                    "[\"\xc0\xaf\"]", "[\"\xf4\x90\x80\x80\"]", "{@}", "{\"a\": @, \"b\": {\"c\": 1}}",
                    "{\"a\": @\n", "{\"a\": [1, @ ] , \"x\": \"}\" }", "}", "]]]", ": ", ", ", "[\x7f]"),
    [](const auto& instance) { return "Case" + std::to_string(instance.index); });

TEST(JsonParser, LineThatBegins_EndsWhatWasBroken) {
  EXPECT_EQ(ParseAll("{\"a\": {\"b\": @\n{\"next\": 1}\n").back(), R"({"next": 1})");
}

TEST(JsonParser, Nesting_IsLimited) {
  const std::string deep = std::string(1024, '[') + std::string(1024, ']');
  EXPECT_EQ(ParseAll(deep).size(), 1U);
  const auto out = ParseAll("[" + deep + "]{}");
  ASSERT_EQ(out.size(), 2U);
  EXPECT_EQ(out[0], "!JSON nesting depth limit exceeded");
  EXPECT_EQ(out[1], "{}");
}

TEST(JsonParser, GigabyteOfNesting_IsOneErrorAndNoMemory) {
  JsonParser parser;
  const std::string piece(1U << 20, '[');
  std::size_t errors = 0;
  for (int i = 0; i < 1024; ++i) {
    std::string_view rest = piece;
    while (!rest.empty()) {
      errors += parser.Next(rest) ? 1U : 0U;
    }
  }
  EXPECT_EQ(errors, 1U);
  std::string_view next = "\n{\"a\": 1}";
  const auto parsed = parser.Next(next);
  ASSERT_TRUE(parsed && *parsed);
  EXPECT_EQ(WriteJson(**parsed), "{\"a\": 1}");
}

TEST(JsonParser, Size_IsLimited) {
  const auto out = ParseAll("[\"" + std::string(2 << 20, 'x') + "\"]{}");
  ASSERT_EQ(out.size(), 2U);
  EXPECT_EQ(out[0], "!JSON token size limit exceeded");
  EXPECT_EQ(out[1], "{}");
}

TEST(JsonParser, WhitespaceWithoutEnd_IsNoValueThatGrows) {
  EXPECT_EQ(ParseAll(std::string(3 << 20, ' ') + "{}"), Texts{"{}"});
}

TEST(JsonParser, NumberOfValues_IsLimited) {
  std::string many = "[0";
  for (int i = 0; i < 70'000; ++i) {
    many += ",0";
  }
  const auto out = ParseAll(many + "]{}");
  ASSERT_EQ(out.size(), 2U);
  EXPECT_EQ(out[0], "!JSON token count limit exceeded");
}

TEST(JsonParser, Garbage_IsErrorsAndNothingWorse) {
  std::mt19937 random(1);
  constexpr std::string_view kBytes = "{}[]:,\"'\\u0123456789abcdef \n\t\x01\xff\xc3\xa4truefalsenull-+.eE@";
  for (int round = 0; round < 2000; ++round) {
    JsonParser parser;
    std::string stream(200, ' ');
    for (auto& byte : stream) {
      byte = kBytes[random() % kBytes.size()];
    }
    (void)ParseAll(parser, stream, 1 + (random() % 50));
    // A byte 0xFF and a line end any state.
    const auto out = ParseAll(parser, "\xff\xff\n{\"a\": 1}", 100);
    ASSERT_FALSE(out.empty());
    EXPECT_EQ(out.back(), "{\"a\": 1}") << stream;
  }
}

// Without its fraction it would be read again as the integer 0.
TEST(JsonWriter, NegativeZero_IsReadAgainAsItself) {
  EXPECT_EQ(ParseAll("[-0.0, -0, 0.0]"), Texts{"[-0.0, 0, 0]"});
  EXPECT_EQ(ParseAll("[-0.0]"), Texts{"[-0.0]"});
}

TEST(JsonWriter, BadUtf8_IsReplaced) { EXPECT_EQ(WriteJson("a\xff z\x7f"), R"("a\uFFFD z\u007F")"); }

}  // namespace
}  // namespace gyre::control
