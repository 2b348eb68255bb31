#include "src/machine/actions.h"

#include <algorithm>
#include <string>

#include "gyre/base/format.h"

namespace gyre::machine {
namespace {

template <typename T>
struct Choice {
  std::string_view name;
  T value;
};

template <typename T, std::size_t kCount>
Status Choose(std::string_view event, std::string_view action, const Choice<T> (&choices)[kCount], T& out) {
  std::string known;
  for (const auto& choice : choices) {
    if (choice.name == action) {
      out = choice.value;
      return {};
    }
    known += known.empty() ? "" : ", ";
    known += choice.name;
  }
  return Fail(Error::Usage(format("--action {}={}: the action must be one of {}", event, action, known)));
}

constexpr Choice<WatchdogAction> kWatchdogActions[] = {
    {"reset", WatchdogAction::kReset},         {"shutdown", WatchdogAction::kShutdown},
    {"poweroff", WatchdogAction::kPoweroff},   {"pause", WatchdogAction::kPause},
    {"debug", WatchdogAction::kDebug},         {"none", WatchdogAction::kNone},
    {"inject-nmi", WatchdogAction::kInjectNmi}};

Status ApplyOne(std::string_view event, std::string_view action, Actions& actions) {
  if (event == "reboot") {
    static constexpr Choice<RebootAction> kChoices[] = {{"reset", RebootAction::kReset},
                                                        {"shutdown", RebootAction::kShutdown}};
    return Choose(event, action, kChoices, actions.reboot);
  }
  if (event == "shutdown") {
    static constexpr Choice<ShutdownAction> kChoices[] = {{"poweroff", ShutdownAction::kPoweroff},
                                                          {"pause", ShutdownAction::kPause}};
    return Choose(event, action, kChoices, actions.shutdown);
  }
  if (event == "panic") {
    static constexpr Choice<PanicAction> kChoices[] = {{"pause", PanicAction::kPause},
                                                       {"shutdown", PanicAction::kShutdown},
                                                       {"exit-failure", PanicAction::kExitFailure},
                                                       {"none", PanicAction::kNone}};
    return Choose(event, action, kChoices, actions.panic);
  }
  if (event == "crash") {
    static constexpr Choice<CrashAction> kChoices[] = {{"exit-failure", CrashAction::kExitFailure},
                                                       {"pause", CrashAction::kPause}};
    return Choose(event, action, kChoices, actions.crash);
  }
  if (event == "watchdog") {
    return Choose(event, action, kWatchdogActions, actions.watchdog);
  }
  return Fail(Error::Usage(format(
      "--action {}={}: the event must be one of reboot, shutdown, panic, crash, watchdog", event, action)));
}

}  // namespace

std::string_view Name(WatchdogAction action) {
  const auto* const found = std::ranges::find(kWatchdogActions, action, &Choice<WatchdogAction>::value);
  return found->name;
}

Status ParseActions(std::string_view text, Actions& actions) {
  Actions parsed = actions;
  while (true) {
    const auto comma = text.find(',');
    const auto item = text.substr(0, comma);
    const auto equals = item.find('=');
    if (equals == std::string_view::npos) {
      return Fail(Error::Usage(format("--action: '{}' is not of the form event=action", item)));
    }
    TRY(ApplyOne(item.substr(0, equals), item.substr(equals + 1), parsed));
    if (comma == std::string_view::npos) {
      break;
    }
    text.remove_prefix(comma + 1);
  }
  actions = parsed;
  return {};
}

}  // namespace gyre::machine
