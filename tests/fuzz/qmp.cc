#include "tests/fuzz/qmp.h"

#include <algorithm>
#include <optional>

#include "gyre/base/check.h"
#include "src/control/command.h"
#include "src/control/json.h"
#include "src/control/request.h"

namespace gyre::control {
namespace {

// What was written is understood again, and means the same.
void CheckRoundTrip(const Json& value) {
  const std::string text = WriteJson(value) + " ";
  CHECK(std::ranges::all_of(text, [](char byte) { return byte >= 0x20 && byte < 0x7f; }));
  JsonParser parser({.bytes = 1U << 24, .nesting = 1024, .values = 1U << 20});
  std::string_view rest = text;
  const auto again = parser.Next(rest);
  CHECK(again && *again && WriteJson(**again) + " " == text);
}

void Serve(Json message) {
  CheckRoundTrip(message);
  std::optional<Json> id;
  const auto request = ReadRequest(std::move(message), true, id);
  Outcome outcome = Nothing();
  if (!request) {
    outcome = std::unexpected(request.error());
  } else {
    for (const Command* const command : AllCommands()) {
      if (auto checked = CheckArguments(request->arguments, *command->arguments); !checked) {
        outcome = Refuse(std::move(checked).error());
      }
    }
  }
  CHECK(WriteReply(outcome, id).ends_with("}\r\n"));
}

}  // namespace

// The first byte says how the rest is cut into pieces.
void FuzzQmp(std::string_view stream) {
  if (stream.empty()) {
    return;
  }
  const auto size = static_cast<std::size_t>(static_cast<unsigned char>(stream.front())) + 1;
  stream.remove_prefix(1);
  JsonParser parser;
  while (!stream.empty()) {
    auto piece = stream.substr(0, size);
    stream.remove_prefix(piece.size());
    while (!piece.empty()) {
      if (auto parsed = parser.Next(piece); parsed && *parsed) {
        Serve(**std::move(parsed));
      }
    }
  }
}

}  // namespace gyre::control
