// dump: the file is ours, so that its owner, mode and place are the caller's and
// not the server's; the server gets its descriptor. It has no name until it is
// whole.
#include <algorithm>

#include "gyre/base/format.h"
#include "tools/gyrectl/new_file.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

constexpr double kBetweenLooks = 0.2;  // seconds
constexpr double kAnswerTime = 30;     // seconds for each answer meanwhile
constexpr const char* kFdName = "gyrectl-dump";

std::uint64_t Count(const Json& status, const char* key) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(IntegerOf(status, key).value_or(0), 0));
}

// Until the server says that it has done.
Outcome<void> Follow(Call& call) {
  while (true) {
    const Deadline answer = call.deadline.Earlier(Deadline::After(kAnswerTime));
    const Json status = TRY(call.client->Execute("query-dump", Json::object(), answer));
    const std::string state = TextOf(status, "status");
    if (state == "completed") {
      return {};
    }
    if (state != "active") {
      return Fail(Exit::kRefused, format("the dump has failed ({})", Harmless(state)));
    }
    call.output.Progress("dump", Count(status, "completed"), Count(status, "total"));
    if (call.deadline.passed()) {
      return Fail(Exit::kTimeout, "the dump is not done in time");
    }
    TRY(call.client->NextEvent(call.deadline.Earlier(Deadline::After(kBetweenLooks))));
  }
}

}  // namespace

Outcome<void> RunDump(Call& call) {
  const std::string path = call.Value("FILE");
  NewFile file = TRY(NewFile::Create(path, call.Has("force")));
  const Deadline answer = call.deadline.Earlier(Deadline::After(kAnswerTime));
  TRY(call.client->Execute("getfd", {{"fdname", kFdName}}, answer, file.fd()));
  const Json arguments{
      {"paging", call.Has("paging")}, {"protocol", format("fd:{}", kFdName)}, {"detach", true}};
  TRY(call.client->Execute("dump-guest-memory", arguments, answer));
  const auto done = Follow(call);
  call.output.EndProgress();
  TRY(Outcome<void>(done));
  TRY(file.Publish());
  if (call.output.json()) {
    call.output.Print(ToText({{"file", path}, {"size", file.size()}}) + "\n");
  } else {
    call.output.Print(format("{}: {}\n", path, SizeText(file.size())));
  }
  return {};
}

}  // namespace gyre::ctl
