#include "tests/fuzz/exec_frames.h"

#include <algorithm>
#include <string>

#include "gyre/base/check.h"
#include "tools/exec/protocol.h"

namespace gyre::exec {
namespace {

constexpr std::size_t kMostKept = kHeaderSize + kMostStart;  // of a frame that is not whole

// What is taken for good is what would be sent for it.
template <typename T, typename Parse>
void CheckRoundTrip(const Result<T>& parsed, std::string_view payload, Parse to_payload) {
  CHECK(!parsed || to_payload(*parsed) == payload);
  CHECK(parsed || (!parsed.error().message().empty() && !parsed.error().message().contains('\n')));
}

void CheckFrame(const Frame& frame) {
  const auto to_payload = [](const auto& value) { return ToPayload(value); };
  switch (frame.type) {
    case FrameType::kHello:
      CheckRoundTrip(ParseHello(frame.payload), frame.payload, HelloPayload);
      break;
    case FrameType::kStart:
      CheckRoundTrip(ParseStart(frame.payload), frame.payload, to_payload);
      break;
    case FrameType::kResize:
      CheckRoundTrip(ParseResize(frame.payload), frame.payload, to_payload);
      break;
    case FrameType::kSignal:
      CheckRoundTrip(ParseSignal(frame.payload), frame.payload, NumberPayload);
      break;
    case FrameType::kCredit:
      CheckRoundTrip(ParseCredit(frame.payload), frame.payload, NumberPayload);
      break;
    case FrameType::kExit:
      CheckRoundTrip(ParseExit(frame.payload), frame.payload, to_payload);
      break;
    case FrameType::kError:
      CheckRoundTrip(ParseError(frame.payload), frame.payload, to_payload);
      break;
    default:
      CHECK(frame.payload.size() <= kMostData);
  }
}

}  // namespace

void FuzzExecFrames(std::string_view bytes) {
  if (bytes.empty()) {
    return;
  }
  const unsigned first = static_cast<unsigned char>(bytes.front());
  bytes.remove_prefix(1);
  FrameReader reader((first & 1) != 0 ? Side::kAgent : Side::kClient);
  const std::size_t half = first >> 1;
  const std::size_t piece = 1 + half * half;
  while (!bytes.empty()) {
    const std::size_t size = std::min(piece, bytes.size());
    reader.Feed(bytes.substr(0, size));
    bytes.remove_prefix(size);
    auto frame = reader.Next();
    for (; frame && *frame; frame = reader.Next()) {
      CheckFrame(**frame);
    }
    if (!frame) {
      CHECK(!reader.Next());
      return;
    }
    CHECK(reader.kept() < kMostKept);
  }
}

}  // namespace gyre::exec
