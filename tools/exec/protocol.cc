#include "tools/exec/protocol.h"

#include <algorithm>
#include <array>

#include "gyre/base/endian.h"
#include "gyre/base/format.h"
#include "gyre/base/numbers.h"

namespace gyre::exec {
namespace {

constexpr std::string_view kMagic = "gyre";

struct Rule {
  FrameType type;
  Side sender;  // of kHello it is either
  std::size_t least;
  std::size_t most;
};
constexpr std::array kRules{
    Rule{.type = FrameType::kHello, .sender = Side::kClient, .least = 8, .most = 8},
    Rule{.type = FrameType::kStart, .sender = Side::kClient, .least = 1, .most = kMostStart},
    Rule{.type = FrameType::kStdin, .sender = Side::kClient, .least = 1, .most = kMostData},
    Rule{.type = FrameType::kStdinEnd, .sender = Side::kClient, .least = 0, .most = 0},
    Rule{.type = FrameType::kResize, .sender = Side::kClient, .least = 4, .most = 4},
    Rule{.type = FrameType::kSignal, .sender = Side::kClient, .least = 4, .most = 4},
    Rule{.type = FrameType::kCredit, .sender = Side::kAgent, .least = 4, .most = 4},
    Rule{.type = FrameType::kStdinClosed, .sender = Side::kAgent, .least = 0, .most = 0},
    Rule{.type = FrameType::kStdout, .sender = Side::kAgent, .least = 1, .most = kMostData},
    Rule{.type = FrameType::kStderr, .sender = Side::kAgent, .least = 1, .most = kMostData},
    Rule{.type = FrameType::kExit, .sender = Side::kAgent, .least = 5, .most = 5},
    Rule{.type = FrameType::kError, .sender = Side::kAgent, .least = 5, .most = 5 + kMostErrorText}};

// Fields one behind the other; what is beyond the end is nothing.
class PayloadReader {
 public:
  explicit PayloadReader(std::string_view payload) : rest_(payload) {}

  template <typename T>
  std::optional<T> Number() {
    LittleEndian<T> number;
    if (rest_.size() < sizeof(number)) {
      return std::nullopt;
    }
    rest_.copy(reinterpret_cast<char*>(&number), sizeof(number));
    rest_.remove_prefix(sizeof(number));
    return number.value();
  }
  // Up to a NUL, which is taken too.
  std::optional<std::string> Text() {
    const auto end = rest_.find('\0');
    if (end == std::string_view::npos) {
      return std::nullopt;
    }
    std::string text(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return text;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

template <typename T>
void Append(std::string& payload, T number) {
  const LittleEndian<T> field(number);
  payload.append(reinterpret_cast<const char*>(&field), sizeof(field));
}

std::unexpected<Error> Broken(std::string_view what) { return Fail(Error::Host(std::string(what))); }

constexpr std::string_view kStartBroken = "the command is not whole";

Result<std::vector<std::string>> ParseTexts(PayloadReader& reader, std::uint32_t count) {
  std::vector<std::string> texts;
  for (std::uint32_t i = 0; i < count; ++i) {
    auto text = reader.Text();
    if (!text) {
      return Broken(kStartBroken);
    }
    texts.push_back(*std::move(text));
  }
  return texts;
}

Result<std::uint32_t> ReadNumber(std::string_view payload, std::uint32_t most, std::string_view what) {
  PayloadReader reader(payload);
  const auto number = reader.Number<std::uint32_t>();
  if (!number || *number == 0 || *number > most || !reader.rest().empty()) {
    return Broken(what);
  }
  return *number;
}

}  // namespace

std::string ToBytes(FrameType type, std::string_view payload) {
  std::string frame(1, static_cast<char>(type));
  Append(frame, static_cast<std::uint32_t>(payload.size()));
  return frame.append(payload);
}

std::string ToPayload(const StartRequest& request) {
  std::string payload(1, static_cast<char>(request.terminal ? 1 : 0));
  payload += ToPayload(request.size);
  Append(payload, static_cast<std::uint32_t>(request.words.size()));
  Append(payload, static_cast<std::uint32_t>(request.variables.size()));
  payload.append(request.directory).push_back('\0');
  for (const auto* const texts : {&request.words, &request.variables}) {
    for (const std::string& text : *texts) {
      payload.append(text).push_back('\0');
    }
  }
  return payload;
}

std::string ToPayload(WindowSize size) {
  std::string payload;
  Append(payload, size.rows);
  Append(payload, size.columns);
  return payload;
}

std::string ToPayload(const ExitReport& report) {
  std::string payload(1, static_cast<char>(report.by_signal ? 1 : 0));
  Append(payload, report.value);
  return payload;
}

std::string ToPayload(const ErrorReport& report) {
  std::string payload(1, static_cast<char>(report.source));
  Append(payload, report.sys_errno);
  return payload.append(report.text, 0, kMostErrorText);
}

std::string NumberPayload(std::uint32_t number) {
  std::string payload;
  Append(payload, number);
  return payload;
}

std::string HelloPayload(std::uint32_t version) { return std::string(kMagic) + NumberPayload(version); }

Status CheckStart(const StartRequest& request) {
  if (request.words.empty() || request.words.front().empty()) {
    return Broken("there is no command");
  }
  if (request.words.size() > kMostWords || request.variables.size() > kMostWords) {
    return Broken(format("a command has more than {} words or variables", kMostWords));
  }
  if (std::ranges::any_of(request.variables, [](const std::string& variable) {
        return variable.find('=') == std::string::npos || variable.starts_with('=');
      })) {
    return Broken("a variable is not of the form NAME=VALUE");
  }
  if (ToPayload(request).size() > kMostStart) {
    return Broken(format("a command has more than {} bytes in its words and variables", kMostStart));
  }
  return {};
}

Result<StartRequest> ParseStart(std::string_view payload) {
  PayloadReader reader(payload);
  const auto terminal = reader.Number<std::uint8_t>();
  const auto rows = reader.Number<std::uint16_t>();
  const auto columns = reader.Number<std::uint16_t>();
  const auto words = reader.Number<std::uint32_t>();
  const auto variables = reader.Number<std::uint32_t>();
  auto directory = reader.Text();
  if (!terminal || *terminal > 1 || !rows || !columns || !words || !variables || !directory) {
    return Broken(kStartBroken);
  }
  StartRequest request{.terminal = *terminal == 1,
                       .size = {.rows = *rows, .columns = *columns},
                       .directory = *std::move(directory)};
  request.words = TRY(ParseTexts(reader, *words));
  request.variables = TRY(ParseTexts(reader, *variables));
  if (!reader.rest().empty()) {
    return Broken("there is more behind the command");
  }
  TRY(CheckStart(request));
  return request;
}

Result<WindowSize> ParseResize(std::string_view payload) {
  PayloadReader reader(payload);
  const auto rows = reader.Number<std::uint16_t>();
  const auto columns = reader.Number<std::uint16_t>();
  if (!rows || !columns || !reader.rest().empty()) {
    return Broken("no window's size");
  }
  return WindowSize{.rows = *rows, .columns = *columns};
}

Result<std::uint32_t> ParseSignal(std::string_view payload) {
  return ReadNumber(payload, kMostSignal, "no signal's number");
}

Result<std::uint32_t> ParseCredit(std::string_view payload) {
  return ReadNumber(payload, kMostCredit, "a credit of no possible size");
}

Result<ExitReport> ParseExit(std::string_view payload) {
  PayloadReader reader(payload);
  const auto by_signal = reader.Number<std::uint8_t>();
  const auto value = reader.Number<std::uint32_t>();
  if (!by_signal || *by_signal > 1 || !value || *value > (*by_signal == 1 ? kMostSignal : 255) ||
      !reader.rest().empty()) {
    return Broken("no command's end");
  }
  return ExitReport{.by_signal = *by_signal == 1, .value = *value};
}

Result<ErrorReport> ParseError(std::string_view payload) {
  PayloadReader reader(payload);
  const auto source = reader.Number<std::uint8_t>();
  const auto sys_errno = reader.Number<std::uint32_t>();
  if (!source || *source > 1 || !sys_errno || reader.rest().size() > kMostErrorText) {
    return Broken("an error that says nothing");
  }
  return ErrorReport{.source = static_cast<ErrorReport::Source>(*source),
                     .sys_errno = *sys_errno,
                     .text = std::string(reader.rest())};
}

Result<std::uint32_t> ParseHello(std::string_view payload) {
  if (!payload.starts_with(kMagic)) {
    return Broken("it is another protocol");
  }
  PayloadReader reader(payload.substr(kMagic.size()));
  const auto version = reader.Number<std::uint32_t>();
  if (!version || !reader.rest().empty()) {
    return Broken("no version");
  }
  return *version;
}

void FrameReader::Feed(std::string_view bytes) {
  buffer_.erase(0, at_);
  at_ = 0;
  buffer_ += bytes;
}

std::optional<std::uint32_t> ParsePort(std::string_view text) {
  const auto port = ParseNumber<std::uint32_t>(text);
  return port != UINT32_MAX ? port : std::nullopt;  // which is any port
}

Result<std::optional<Frame>> FrameReader::Next() {
  PayloadReader reader(std::string_view(buffer_).substr(at_));
  const auto type = reader.Number<std::uint8_t>();
  if (!type) {
    return std::nullopt;
  }
  // A peer of another protocol is found out by its first byte.
  const auto rule = std::ranges::find(kRules, static_cast<FrameType>(*type), &Rule::type);
  const bool hello = rule != kRules.end() && rule->type == FrameType::kHello;
  if (rule == kRules.end() || hello == greeted_ || (!hello && rule->sender != sender_)) {
    return Broken(greeted_ ? format("a frame of type {} where there can be none", *type)
                           : "it is another protocol");
  }
  const auto length = reader.Number<std::uint32_t>();
  if (!length) {
    return std::nullopt;
  }
  if (*length < rule->least || *length > rule->most) {
    return Broken(format("a frame of type {} with {} bytes", *type, *length));
  }
  if (reader.rest().size() < *length) {
    return std::nullopt;
  }
  greeted_ = true;
  at_ += kHeaderSize + *length;
  return Frame{.type = rule->type, .payload = reader.rest().substr(0, *length)};
}

}  // namespace gyre::exec
