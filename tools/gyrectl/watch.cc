// Subcommands that wait for what the VM does.
#include <chrono>
#include <ctime>

#include "gyre/base/format.h"
#include "gyre/base/numbers.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

constexpr double kLookAgain = 1.0;  // seconds: a state may change without an event

std::string TimeText(const Json& timestamp) {
  const auto seconds = IntegerOf(timestamp, "seconds");
  const auto micros = IntegerOf(timestamp, "microseconds");
  if (!seconds || !micros || *seconds < 0 || *micros < 0 || *micros > 999'999) {
    return "-";
  }
  const auto whole = static_cast<std::time_t>(*seconds);
  std::tm local = {};
  std::array<char, 64> text{};
  if (::localtime_r(&whole, &local) == nullptr ||
      std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local) == 0) {
    return "-";
  }
  return format("{}.{:06}", text.data(), *micros);
}

std::string ValueText(const Json& value) {
  return value.is_string() ? value.get<std::string>() : ToText(value);
}

// They may come without end, so that an output that takes nothing ends it.
Outcome<void> ShowEvent(const Output& output, const Json& event) {
  output.Print((output.json() ? ToText(event) : EventLine(event)) + "\n");
  return Output::Written();
}

// How many events to print; 0: no end.
Outcome<std::uint64_t> EventCount(const Call& call) {
  if (!call.Has("count")) {
    return std::uint64_t{call.Has("follow") ? 0U : 1U};
  }
  const std::string text = call.Value("count");
  const auto count = ParseNumber<std::uint64_t>(text).value_or(0);
  if (count == 0) {
    return Fail(Exit::kUsage, format("--count: '{}' is not a number of events", text));
  }
  return count;
}

}  // namespace

std::string EventLine(const Json& event) {
  std::string line = TimeText(MemberOf(event, "timestamp")) + "  " + TextOf(event, "event", "?");
  if (const Json& data = MemberOf(event, "data"); data.is_object()) {
    for (const auto& [key, value] : data.items()) {
      line += format(" {}={}", key, ValueText(value));
    }
  }
  return Harmless(line);
}

Outcome<void> RunEvents(Call& call) {
  const std::uint64_t count = TRY(EventCount(call));
  for (std::uint64_t seen = 0; count == 0 || seen < count; ++seen) {
    if (call.deadline.passed()) {  // they may come without end
      return Fail(Exit::kTimeout, "no further event in time");
    }
    auto event = call.client->NextEvent(call.deadline);
    if (!event && event.error().absent && call.Has("follow")) {
      return {};  // the VM's end is that of its events
    }
    const auto next = TRY(std::move(event));
    if (!next) {
      return Fail(Exit::kTimeout, "no further event in time");
    }
    TRY(ShowEvent(call.output, *next));
  }
  return {};
}

Outcome<void> WaitForEnd(Call& call) {
  while (!call.deadline.passed()) {
    const auto event = call.client->NextEvent(call.deadline);
    if (!event) {
      return event.error().absent ? Outcome<void>() : std::unexpected(event.error());
    }
  }
  return Fail(Exit::kTimeout, "the VM has not ended in time");
}

Outcome<void> RunWait(Call& call) {
  const std::string wanted = call.Value("STATE");
  if (wanted == "gone") {
    return call.client != nullptr ? WaitForEnd(call) : Outcome<void>();
  }
  if (call.client == nullptr) {
    return std::unexpected(*call.absence);
  }
  constexpr double kAnswerTime = 10;  // seconds, though the state may take for ever
  while (true) {
    const std::string state =
        TRY(QueryState(*call.client, call.deadline.Earlier(Deadline::After(kAnswerTime))));
    if (state == wanted) {
      return {};
    }
    TRY(call.client->NextEvent(call.deadline.Earlier(Deadline::After(kLookAgain))));
    if (call.deadline.passed()) {
      return Fail(Exit::kTimeout, format("the VM is {}, not {}", Harmless(state), wanted));
    }
  }
}

}  // namespace gyre::ctl
