// File descriptors that clients send along.
#include <array>

#include "gyre/base/format.h"
#include "src/control/commands/families.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

constexpr std::size_t kMostNamed = 64;  // of a client

constexpr std::array kNameMembers{Member{"fdname", &kString, "its name, which begins with no digit"}};
constexpr Type kNameArguments = ObjectType("getfd arguments", kNameMembers);
constexpr std::array kAddMembers{
    Member{"fdset-id", &kInteger, "the set; a new one if none is named", kOptional},
    Member{"opaque", &kString, "whatever the client wants to remember", kOptional}};
constexpr Type kAddArguments = ObjectType("add-fd arguments", kAddMembers);
constexpr std::array kAddResultMembers{Member{"fdset-id", &kInteger},
                                       Member{"fd", &kInteger, "its number in gyred"}};
constexpr Type kAddResult = ObjectType("AddfdInfo", kAddResultMembers);
constexpr std::array kRemoveMembers{Member{"fdset-id", &kInteger, "the set"},
                                    Member{"fd", &kInteger, "one of it; all if none is named", kOptional}};
constexpr Type kRemoveArguments = ObjectType("remove-fd arguments", kRemoveMembers);
constexpr std::array kFdMembers{Member{"fd", &kInteger}, Member{"opaque", &kString, "", kOptional}};
constexpr Type kFd = ObjectType("FdsetFdInfo", kFdMembers);
constexpr Type kFds = ArrayType("array of FdsetFdInfo", kFd);
constexpr std::array kSetMembers{Member{"fdset-id", &kInteger}, Member{"fds", &kFds}};
constexpr Type kSet = ObjectType("FdsetInfo", kSetMembers);
constexpr Type kSets = ArrayType("array of FdsetInfo", kSet);

Outcome GetFd(Call& call) {
  const std::string& name = call.Text("fdname");
  if (!call.fd) {
    return Refuse("No file descriptor supplied via SCM_RIGHTS");
  }
  if (name.empty() || (name.front() >= '0' && name.front() <= '9')) {
    return Refuse("Parameter 'fdname' expects a name not starting with a digit");
  }
  if (call.client.fds.size() >= kMostNamed && !call.client.fds.contains(name)) {
    return Refuse(
        format("this client has {} named file descriptors already, which is all that it may", kMostNamed));
  }
  call.client.fds[name] = std::move(call.fd);
  return Nothing();
}

Outcome CloseFd(Call& call) {
  if (call.client.fds.erase(call.Text("fdname")) == 0) {
    return Refuse(format("File descriptor named '{}' not found", call.Text("fdname")));
  }
  return Nothing();
}

Outcome AddFd(Call& call) {
  const auto set = call.Has("fdset-id") ? std::optional(call.Integer("fdset-id")) : std::nullopt;
  const auto opaque = call.Has("opaque") ? std::optional(call.Text("opaque")) : std::nullopt;
  return call.services.fd_sets.Add(set, opaque, std::move(call.fd));
}

Outcome RemoveFd(Call& call) {
  return call.services.fd_sets.Remove(call.Integer("fdset-id"),
                                      call.Has("fd") ? std::optional(call.Integer("fd")) : std::nullopt);
}

Outcome QueryFdSets(Call& call) { return call.services.fd_sets.Describe(); }

constexpr std::array kCommands{
    Command{.name = "getfd",
            .help = "Gives the file descriptor sent along a name, for this client's later commands.",
            .arguments = &kNameArguments,
            .flags = Command::kTakesFd,
            .run = GetFd},
    Command{.name = "closefd",
            .help = "Closes a file descriptor that getfd has named.",
            .arguments = &kNameArguments,
            .run = CloseFd},
    Command{.name = "add-fd",
            .help = "Puts the file descriptor sent along into a set, known to all as /dev/fdset/N until the "
                    "last client has gone.",
            .arguments = &kAddArguments,
            .result = &kAddResult,
            .flags = Command::kTakesFd,
            .run = AddFd},
    Command{.name = "remove-fd",
            .help = "Takes file descriptors out of a set and closes them.",
            .arguments = &kRemoveArguments,
            .run = RemoveFd},
    Command{.name = "query-fdsets", .help = "All sets.", .result = &kSets, .run = QueryFdSets},
};

}  // namespace

std::span<const Command> FdCommands() { return kCommands; }

}  // namespace gyre::control
