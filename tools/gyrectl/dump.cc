// dump: the file is ours, so that its owner, mode and place are the caller's and
// not the server's; the server gets its descriptor. It has no name until it is
// whole.
#include <algorithm>

#include "gyre/base/format.h"
#include "tools/gyrectl/new_file.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

constexpr double kAnswerTime = 30;  // seconds
constexpr const char* kFdName = "gyrectl-dump";

std::uint64_t Count(const Json& status, const char* key) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(IntegerOf(status, key).value_or(0), 0));
}

// As the events tell it.
void ShowProgress(const Output& output, const Json& event) {
  if (TextOf(event, "event") == "DUMP_PROGRESS") {
    const Json& result = MemberOf(MemberOf(event, "data"), "result");
    output.Progress("dump", Count(result, "completed"), Count(result, "total"));
  }
}

}  // namespace

Outcome<void> RunDump(Call& call) {
  const std::string path = call.Value("FILE");
  NewFile file = TRY(NewFile::Create(path, call.Has("force")));
  const Deadline answer = call.deadline.Earlier(Deadline::After(kAnswerTime));
  TRY(call.client->Execute("getfd", {{"fdname", kFdName}}, answer, file.fd()));
  const Json arguments{{"paging", call.Has("paging")}, {"protocol", format("fd:{}", kFdName)}};
  call.client->set_event_watch([&call](const Json& event) { ShowProgress(call.output, event); });
  // Not detached: if we go, it is given up, and the guest goes on.
  const auto done = call.client->Execute("dump-guest-memory", arguments, call.deadline);
  call.output.EndProgress();
  TRY(Outcome<Json>(done));
  TRY(file.Publish());
  if (call.output.json()) {
    call.output.Print(ToText({{"file", path}, {"size", file.size()}}) + "\n");
  } else {
    call.output.Print(format("{}: {}\n", path, SizeText(file.size())));
  }
  return {};
}

}  // namespace gyre::ctl
