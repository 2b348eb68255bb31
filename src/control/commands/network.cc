// Network devices, and sockets between host and guest.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "gyre/base/format.h"
#include "src/control/commands/families.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

using virtio::Nic;

constexpr std::array kLinkMembers{Member{"name", &kString, "the device's id, such as net0"},
                                  Member{"up", &kBoolean, "true: as long as its back end is there"}};
constexpr Type kLinkArguments = ObjectType("set_link arguments", kLinkMembers);

constexpr std::array kFilterArgumentMembers{Member{"name", &kString, "one; all if none is named", kOptional}};
constexpr Type kFilterArguments = ObjectType("query-rx-filter arguments", kFilterArgumentMembers);
constexpr std::array<std::string_view, 3> kStates{"normal", "none", "all"};
constexpr Type kState = EnumType("RxState", kStates);
constexpr Type kVlans = ArrayType("array of integer", kInteger);
constexpr std::array kFilterMembers{Member{"name", &kString},
                                    Member{"promiscuous", &kBoolean, "all get through"},
                                    Member{"multicast", &kState, "normal: those of the table"},
                                    Member{"unicast", &kState, "normal: its own and those of the table"},
                                    Member{"vlan", &kState, "normal: those of the table"},
                                    Member{"broadcast-allowed", &kBoolean},
                                    Member{"multicast-overflow", &kBoolean, "more than the table takes"},
                                    Member{"unicast-overflow", &kBoolean, "more than the table takes"},
                                    Member{"main-mac", &kString},
                                    Member{"vlan-table", &kVlans},
                                    Member{"unicast-table", &kStrings},
                                    Member{"multicast-table", &kStrings}};
constexpr Type kFilter = ObjectType("RxFilterInfo", kFilterMembers);
constexpr Type kFilters = ArrayType("array of RxFilterInfo", kFilter);

constexpr std::array kVsockServers{ToText(virtio::VsockServer::kGyred), ToText(virtio::VsockServer::kKernel),
                                   ToText(virtio::VsockServer::kNobody)};
constexpr Type kVsockServer = EnumType("VsockServer", kVsockServers);
constexpr std::array kVsockMembers{
    Member{"cid", &kUnsigned, "the guest's"},
    Member{"path", &kString, "the socket that clients connect to; none with vhost=on", kOptional},
    Member{"served-by", &kVsockServer, "kernel: its vhost, which counts nothing of what follows"},
    Member{"connections", &kUnsigned, "at the moment"},
    Member{"opened", &kUnsigned, "by either side, and accepted by the other"},
    Member{"refused", &kUnsigned, "nobody listens, no answer in time, or too many"},
    Member{"violations", &kUnsigned, "packets of the guest's that break the rules"},
    Member{"bytes-to-guest", &kUnsigned},
    Member{"bytes-from-guest", &kUnsigned}};
constexpr Type kVsock = ObjectType("VsockInfo", kVsockMembers);
constexpr Type kVsocks = ArrayType("array of VsockInfo", kVsock);

Nic* Find(const Call& call, std::string_view id) {
  const auto nics = call.services.machine->nics();
  const auto found = std::ranges::find(nics, id, &Nic::id);
  return found == nics.end() ? nullptr : *found;
}

Outcome SetLink(Call& call) {
  const std::string& name = call.Text("name");
  Nic* const nic = Find(call, name);
  if (nic == nullptr) {
    return Refuse(format("Device '{}' not found", name), ErrorClass::kDeviceNotFound);
  }
  nic->SetLink(call.Flag("up"));
  return Nothing();
}

Json Addresses(const std::vector<virtio::MacAddress>& table) {
  Json list = Json::array();
  for (const auto& mac : table) {
    list.push_back(virtio::ToText(mac));
  }
  return list;
}

std::string_view StateOf(bool none, bool all) { return none ? "none" : all ? "all" : "normal"; }

Json Describe(const Nic& nic) {
  const virtio::NetFilter filter = nic.filter();
  Json vlans = Json::array();
  for (unsigned id = 0; filter.filters_vlans && id < 64 * filter.vlans.size(); ++id) {
    if (filter.HasVlan(id)) {
      vlans.push_back(id);
    }
  }
  return {{"name", nic.id()},
          {"promiscuous", filter.promiscuous},
          {"multicast", StateOf(filter.no_multicast, filter.all_multicast)},
          {"unicast", StateOf(filter.no_unicast, filter.all_unicast)},
          {"vlan", StateOf(false, !filter.filters_vlans)},
          {"broadcast-allowed", !filter.no_broadcast},
          {"multicast-overflow", filter.multicast_overflow},
          {"unicast-overflow", filter.unicast_overflow},
          {"main-mac", virtio::ToText(filter.mac)},
          {"vlan-table", std::move(vlans)},
          {"unicast-table", Addresses(filter.unicast)},
          {"multicast-table", Addresses(filter.multicast)}};
}

Outcome QueryRxFilter(Call& call) {
  if (call.Has("name")) {
    const Nic* const nic = Find(call, call.Text("name"));
    return nic != nullptr ? Outcome(Json::array({Describe(*nic)}))
                          : Refuse(format("invalid net client name: {}", call.Text("name")));
  }
  Json list = Json::array();
  for (const Nic* const nic : call.services.machine->nics()) {
    list.push_back(Describe(*nic));
  }
  return list;
}

Outcome QueryVsock(Call& call) {
  Json list = Json::array();
  if (const virtio::Vsock* const vsock = call.services.machine->vsock()) {
    const virtio::VsockCounters counted = vsock->counters();
    list.push_back({{"cid", vsock->cid()},
                    {"served-by", ToText(vsock->server())},
                    {"connections", counted.connections},
                    {"opened", counted.opened},
                    {"refused", counted.refused},
                    {"violations", counted.violations},
                    {"bytes-to-guest", counted.bytes_to_guest},
                    {"bytes-from-guest", counted.bytes_from_guest}});
    if (!vsock->socket_path().empty()) {
      list.back()["path"] = vsock->socket_path();
    }
  }
  return list;
}

constexpr std::array kCommands{
    Command{.name = "set_link",
            .help = "Takes a network device's link down, or up.",
            .arguments = &kLinkArguments,
            .run = SetLink},
    Command{.name = "query-rx-filter",
            .help = "Which frames the guest wants of its network devices.",
            .arguments = &kFilterArguments,
            .result = &kFilters,
            .run = QueryRxFilter},
    Command{.name = "query-vsock",
            .help = "The sockets between host and guest: none without --vsock.",
            .result = &kVsocks,
            .run = QueryVsock},
};

}  // namespace

std::span<const Command> NetworkCommands() { return kCommands; }

}  // namespace gyre::control
