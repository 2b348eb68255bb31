#include "src/control/request.h"

#include "gyre/base/format.h"

namespace gyre::control {
namespace {

constexpr std::string_view kEndOfLine = "\r\n";
constexpr std::int64_t kNsPerSecond = 1'000'000'000;

// The wire is compared with that of QEMU 7.2, and clients choose by this number what they
// ask for: so it is the number told.
constexpr int kWireMajor = 7;
constexpr int kWireMinor = 2;

Outcome CheckEnvelope(const Json& message, bool oob_enabled) {
  for (const auto& [key, value] : message.items()) {
    const bool known =
        key == "execute" || (key == "exec-oob" && oob_enabled) || key == "arguments" || key == "id";
    if (!known) {
      return Refuse(format("QMP input member '{}' is unexpected", key));
    }
    if ((key == "execute" || key == "exec-oob") && !value.is_string()) {
      return Refuse(format("QMP input member '{}' must be a string", key));
    }
    if (key == "arguments" && !value.is_object()) {
      return Refuse("QMP input member 'arguments' must be an object");
    }
  }
  if (message.contains("execute") && message.contains("exec-oob")) {
    return Refuse("QMP input member 'execute' clashes with 'exec-oob'");
  }
  if (!message.contains("execute") && !message.contains("exec-oob")) {
    return Refuse("QMP input lacks member 'execute'");
  }
  return Nothing();
}

}  // namespace

std::expected<Request, CommandError> ReadRequest(Json message, bool oob_enabled, std::optional<Json>& id) {
  if (!message.is_object()) {
    return Refuse("QMP input must be a JSON object");
  }
  if (const auto found = message.find("id"); found != message.end()) {
    id = *found;
  }
  if (auto checked = CheckEnvelope(message, oob_enabled); !checked) {
    return std::unexpected(std::move(checked).error());
  }
  Request request;
  request.oob = message.contains("exec-oob");
  request.name = message[request.oob ? "exec-oob" : "execute"].get<std::string>();
  request.id = id;
  if (const auto found = message.find("arguments"); found != message.end()) {
    request.arguments = std::move(*found);
  }
  return request;
}

std::string WriteReply(const Outcome& outcome, const std::optional<Json>& id) {
  std::string line = "{\"return\": ";
  if (outcome) {
    AppendJson(line, *outcome);
  } else {
    line = "{\"error\": ";
    AppendJson(line, {{"class", Name(outcome.error().error_class)}, {"desc", outcome.error().text}});
  }
  if (id) {
    line += ", \"id\": ";
    AppendJson(line, *id);
  }
  line += "}";
  line += kEndOfLine;
  return line;
}

std::string WriteEvent(std::string_view name, const Json& data, std::int64_t wall_ns) {
  std::string line = format("{{\"event\": \"{}\"", name);
  if (!data.empty()) {
    line += ", \"data\": ";
    AppendJson(line, data);
  }
  const bool known = wall_ns >= 0;
  line += format(", \"timestamp\": {{\"seconds\": {}, \"microseconds\": {}}}}}",
                 known ? wall_ns / kNsPerSecond : -1, known ? wall_ns % kNsPerSecond / 1000 : -1);
  line += kEndOfLine;
  return line;
}

Json VersionInfo() {
  return {{"qemu", {{"major", kWireMajor}, {"minor", kWireMinor}, {"micro", 0}}},
          {"package", "gyre " GYRE_VERSION}};
}

std::string WriteGreeting() {
  std::string line;
  AppendJson(line, {{"QMP", {{"version", VersionInfo()}, {"capabilities", {"oob"}}}}});
  line += kEndOfLine;
  return line;
}

}  // namespace gyre::control
