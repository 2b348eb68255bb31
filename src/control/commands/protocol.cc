// The wire itself: negotiation, version, and what there is to be asked for.
#include <array>

#include "src/control/commands/families.h"
#include "src/control/introspection.h"
#include "src/control/request.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

constexpr std::array<std::string_view, 1> kCapabilities{"oob"};
constexpr Type kCapability = EnumType("QMPCapability", kCapabilities);
constexpr Type kCapabilityList = ArrayType("array of QMPCapability", kCapability);
constexpr std::array kNegotiateMembers{
    Member{"enable", &kCapabilityList, "capabilities to be enabled", kOptional}};
constexpr Type kNegotiateArguments = ObjectType("qmp_capabilities arguments", kNegotiateMembers);

constexpr std::array kTripleMembers{Member{"major", &kInteger}, Member{"minor", &kInteger},
                                    Member{"micro", &kInteger}};
constexpr Type kTriple = ObjectType("VersionTriple", kTripleMembers);
constexpr std::array kVersionMembers{Member{"qemu", &kTriple, "the release of QEMU whose wire this is"},
                                     Member{"package", &kString, "gyre and its own version"}};
constexpr Type kVersion = ObjectType("VersionInfo", kVersionMembers);

constexpr std::array kNameMembers{Member{"name", &kString}};
constexpr std::array kCommandMembers{
    Member{"name", &kString},
    Member{"allowed-in", &kStrings, "the run states in which it is; all if there is none", kOptional}};
constexpr Type kCommandInfo = ObjectType("CommandInfo", kCommandMembers);
constexpr Type kCommandInfos = ArrayType("array of CommandInfo", kCommandInfo);
constexpr Type kEventInfo = ObjectType("EventInfo", kNameMembers);
constexpr std::array kSchemaMembers{Member{"name", &kString},
                                    Member{"meta-type", &kString, "what kind of entry"}};
constexpr Type kSchemaInfo = ObjectType("SchemaInfo", kSchemaMembers);
constexpr Type kSchemaInfos = ArrayType("array of SchemaInfo", kSchemaInfo);
constexpr Type kEventInfos = ArrayType("array of EventInfo", kEventInfo);

Outcome Negotiate(Call& call) {
  const auto enable = call.arguments.find("enable");
  if (enable != call.arguments.end() && !enable->empty()) {
    if (const auto started = call.services.start_monitor_thread(); !started) {
      return Refuse(started.error());
    }
    call.client.oob = true;
  }
  call.client.negotiated = true;
  return Nothing();
}

Outcome QueryVersion(Call& /*call*/) { return VersionInfo(); }

Outcome QueryCommands(Call& call) {
  Json commands = Json::array();
  for (const Command* const command : call.services.commands()) {
    Json entry{{"name", command->name}};
    if (!command->allowed.Everywhere()) {
      entry["allowed-in"] = AllowedStates(*command);
    }
    commands.push_back(std::move(entry));
  }
  return commands;
}

Outcome QuerySchema(Call& call) { return DescribeSchema(call.services.commands()); }

Outcome QueryEvents(Call& /*call*/) {
  Json names = Json::array();
  for (const auto& event : AllEvents()) {
    names.push_back({{"name", event.name}});
  }
  return names;
}

constexpr std::array kCommands{
    Command{.name = "qmp_capabilities",
            .help = "Ends the negotiation: commands are taken and events sent from now on.",
            .arguments = &kNegotiateArguments,
            .flags = Command::kNegotiates,
            .run = Negotiate},
    Command{.name = "query-version",
            .help = "The release of QEMU whose wire this is, and gyre's own version.",
            .result = &kVersion,
            .flags = Command::kAllowOob,
            .run = QueryVersion},
    Command{.name = "query-commands",
            .help = "All commands, by name.",
            .result = &kCommandInfos,
            .run = QueryCommands},
    Command{.name = "query-qmp-schema",
            .help = "Commands, events and their types, for programs.",
            .result = &kSchemaInfos,
            .run = QuerySchema},
    Command{
        .name = "query-events", .help = "All events, by name.", .result = &kEventInfos, .run = QueryEvents},
};

}  // namespace

std::span<const Command> ProtocolCommands() { return kCommands; }

}  // namespace gyre::control
