// Devices that other processes carry out.
#include <array>

#include "src/control/commands/families.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

constexpr std::array<std::string_view, 3> kKinds{"disk", "share", "net"};
constexpr Type kKind = EnumType("VhostUserKind", kKinds);
constexpr std::array kMembers{
    Member{"id", &kString, "the device's"},
    Member{"type", &kKind},
    Member{"path", &kString, "of the back end's socket"},
    Member{"connected", &kBoolean, "it is there; else the guest waits for it"},
    Member{"queues", &kUnsigned},
    Member{"connections", &kUnsigned, "how often it has been found"},
    Member{"in-flight", &kUnsigned, "requests that it has now"},
    Member{"resubmitted", &kUnsigned, "requests that one had when it was lost, and the next one has got"},
    Member{"error", &kString, "why the last one was lost", kOptional}};
constexpr Type kInfo = ObjectType("VhostUserInfo", kMembers);
constexpr Type kInfos = ArrayType("array of VhostUserInfo", kInfo);

Outcome QueryVhostUser(Call& call) {
  Json list = Json::array();
  for (const virtio::VhostUserClient* const client : call.services.machine->vhost_users()) {
    const virtio::VhostUserInfo info = client->info();
    Json one = {{"id", info.id},
                {"type", info.kind},
                {"path", info.path},
                {"connected", info.connected},
                {"queues", info.queues},
                {"connections", info.connections},
                {"in-flight", info.in_flight},
                {"resubmitted", info.resubmitted}};
    if (!info.trouble.empty()) {
      one["error"] = info.trouble;
    }
    list.push_back(std::move(one));
  }
  return list;
}

constexpr std::array kCommands{
    Command{.name = "query-vhost-user",
            .help = "Devices whose back end is another process, and how that stands.",
            .result = &kInfos,
            .run = QueryVhostUser},
};

}  // namespace

std::span<const Command> VhostUserCommands() { return kCommands; }

}  // namespace gyre::control
