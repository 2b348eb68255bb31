// Statistics: KVM's own, as the kernel describes them, and gyre's counters.
#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/kvm/inspect.h"
#include "src/control/commands/families.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

using kvm::Statistic;

constexpr std::array<std::string_view, 2> kTargets{"vm", "vcpu"};
constexpr Type kTarget = EnumType("StatsTarget", kTargets);
constexpr std::array<std::string_view, 2> kProviders{"kvm", "gyre"};
constexpr Type kProvider = EnumType("StatsProvider", kProviders);
constexpr std::array kRequestMembers{Member{"provider", &kProvider, "whose"},
                                     Member{"names", &kStrings, "which; all if none is named", kOptional}};
constexpr Type kRequest = ObjectType("StatsRequest", kRequestMembers);
constexpr Type kRequests = ArrayType("array of StatsRequest", kRequest);
constexpr std::array kVcpuMembers{
    Member{"vcpus", &kStrings, "which, by their qom-path; all if none is named", kOptional}};
constexpr Type kVcpuFilter = ObjectType("StatsVCPUFilter", kVcpuMembers);
constexpr std::array kFilterVariants{Variant{"vcpu", &kVcpuFilter}};
constexpr std::array kFilterMembers{
    Member{"target", &kTarget, "of the VM as a whole, or of each vCPU"},
    Member{"providers", &kRequests, "whose; all if none is named", kOptional}};
constexpr Type kFilter{.kind = Type::Kind::kObject,
                       .name = "StatsFilter",
                       .members = kFilterMembers,
                       .tag = "target",
                       .variants = kFilterVariants};

constexpr Type kUnsignedList = ArrayType("array of unsigned integer", kUnsigned);
constexpr std::array<const Type*, 3> kValueChoices{&kUnsigned, &kBoolean, &kUnsignedList};
constexpr Type kValue{.kind = Type::Kind::kAlternate, .name = "StatsValue", .choices = kValueChoices};
constexpr std::array kStatsMembers{Member{"name", &kString}, Member{"value", &kValue}};
constexpr Type kStats = ObjectType("Stats", kStatsMembers);
constexpr Type kStatsList = ArrayType("array of Stats", kStats);
constexpr std::array kResultMembers{Member{"provider", &kProvider},
                                    Member{"qom-path", &kString, "of a vCPU", kOptional},
                                    Member{"stats", &kStatsList}};
constexpr Type kResult = ObjectType("StatsResult", kResultMembers);
constexpr Type kResults = ArrayType("array of StatsResult", kResult);

constexpr std::array<std::string_view, 5> kTypes{"cumulative", "instant", "peak", "linear-histogram",
                                                 "log2-histogram"};
constexpr Type kStatsType = EnumType("StatsType", kTypes);
constexpr std::array<std::string_view, 4> kUnits{"bytes", "seconds", "cycles", "boolean"};
constexpr Type kStatsUnit = EnumType("StatsUnit", kUnits);
constexpr std::array kSchemaValueMembers{
    Member{"name", &kString},
    Member{"type", &kStatsType},
    Member{"unit", &kStatsUnit, "", kOptional},
    Member{"base", &kInteger, "the value counts base^exponent units", kOptional},
    Member{"exponent", &kInteger},
    Member{"bucket-size", &kInteger, "of a linear histogram", kOptional}};
constexpr Type kSchemaValue = ObjectType("StatsSchemaValue", kSchemaValueMembers);
constexpr Type kSchemaValues = ArrayType("array of StatsSchemaValue", kSchemaValue);
constexpr std::array kSchemaMembers{Member{"provider", &kProvider}, Member{"target", &kTarget},
                                    Member{"stats", &kSchemaValues}};
constexpr Type kSchema = ObjectType("StatsSchema", kSchemaMembers);
constexpr Type kSchemas = ArrayType("array of StatsSchema", kSchema);
constexpr std::array kSchemasMembers{
    Member{"provider", &kProvider, "whose; all if none is named", kOptional}};
constexpr Type kSchemasArguments = ObjectType("query-stats-schemas arguments", kSchemasMembers);

Statistic Counter(std::string name, std::uint64_t value) {
  return {.name = std::move(name), .values = {value}};
}

std::vector<Statistic> OwnOfVm(machine::Machine& machine, const loop::MainLoop& loop) {
  const auto lock = loop.big_lock().stats();
  const auto main = loop.stats();
  const auto memory = machine.memory_space().counters();
  const auto io = machine.io_space().counters();
  std::vector<Statistic> all = {Counter("big_lock_acquired", lock.acquired),
                                Counter("big_lock_contended", lock.contended),
                                Counter("main_loop_iterations", main.iterations),
                                Counter("main_loop_sleeps", main.waits),
                                Counter("main_loop_wakeups", main.wakeups),
                                Counter("main_loop_operations", main.operations),
                                Counter("main_loop_slow_calls", main.slow_calls),
                                Counter("memory_unassigned_reads", memory.unassigned_reads),
                                Counter("memory_unassigned_writes", memory.unassigned_writes),
                                Counter("memory_readonly_writes", memory.readonly_writes),
                                Counter("memory_refused", memory.refused),
                                Counter("io_unassigned_reads", io.unassigned_reads),
                                Counter("io_unassigned_writes", io.unassigned_writes),
                                Counter("io_refused", io.refused)};
  for (const virtio::Nic* const nic : machine.nics()) {
    const auto carried = nic->counters();
    for (const auto& [way, of] : {std::pair("rx", carried.received), std::pair("tx", carried.sent)}) {
      all.push_back(Counter(format("{}_{}_packets", nic->id(), way), of.packets));
      all.push_back(Counter(format("{}_{}_bytes", nic->id(), way), of.bytes));
      all.push_back(Counter(format("{}_{}_dropped", nic->id(), way), of.dropped));
    }
  }
  return all;
}

std::vector<Statistic> OwnOfVcpu(const kvm::Vcpus& vcpus, VcpuIndex vcpu) {
  const auto exits = vcpus.counters(vcpu);
  return {Counter("exits_pio", exits.pio),
          Counter("exits_mmio", exits.mmio),
          Counter("exits_halt", exits.halt),
          Counter("exits_interrupted", exits.interrupted),
          Counter("exits_ioapic_eoi", exits.ioapic_eoi),
          Counter("exits_other", exits.other)};
}

// Opened at the first question: a vCPU leaves guest code for that, and never again.
Result<int> KvmStatisticsFd(Services& services, std::optional<unsigned> vcpu) {
  UniqueFd& fd = services.statistics[vcpu ? static_cast<int>(*vcpu) : -1];
  if (fd) {
    return fd.get();
  }
  machine::Machine& machine = *services.machine;
  Result<UniqueFd> opened;
  if (vcpu) {
    const VcpuIndex index(*vcpu);
    machine.vcpus().RunOn(index, [&] { opened = kvm::OpenStatistics(machine.vcpus().fd(index)); });
  } else {
    opened = kvm::OpenStatistics(machine.vm().fd());
  }
  fd = TRY(std::move(opened));
  return fd.get();
}

// Of the VM, or of a vCPU.
Result<std::vector<Statistic>> Read(Services& services, std::string_view provider,
                                    std::optional<unsigned> vcpu) {
  machine::Machine& machine = *services.machine;
  if (provider == "kvm") {
    return kvm::ReadStatistics(TRY(KvmStatisticsFd(services, vcpu)));
  }
  return vcpu ? OwnOfVcpu(machine.vcpus(), VcpuIndex(*vcpu)) : OwnOfVm(machine, services.loop);
}

Json ValueOf(const Statistic& statistic) {
  const bool histogram =
      statistic.type == Statistic::Type::kLinearHistogram || statistic.type == Statistic::Type::kLogHistogram;
  if (histogram || statistic.values.size() != 1) {
    return statistic.values;
  }
  return statistic.unit == Statistic::Unit::kBoolean ? Json(statistic.values[0] != 0)
                                                     : Json(statistic.values[0]);
}

// Null: the request leaves the provider out.
const Json* RequestOf(const Json& arguments, std::string_view provider) {
  static const Json kEverything = Json::object();
  const auto providers = arguments.find("providers");
  if (providers == arguments.end()) {
    return &kEverything;
  }
  const auto found = std::ranges::find_if(
      *providers, [provider](const Json& request) { return request.at("provider") == provider; });
  return found == providers->end() ? nullptr : &*found;
}

// Nothing: all of them.
using Wanted = std::optional<std::set<std::string, std::less<>>>;

Wanted WantedBy(const Json& arguments, const char* key) {
  const auto names = arguments.find(key);
  return names == arguments.end() ? Wanted() : names->get<std::set<std::string, std::less<>>>();
}

bool IsWanted(const Wanted& names, std::string_view name) { return !names || names->contains(name); }

Result<Json> ResultOf(Services& services, std::string_view provider, const Wanted& names,
                      std::optional<unsigned> vcpu) {
  const auto statistics = TRY(Read(services, provider, vcpu));
  Json values = Json::array();
  for (const auto& statistic : statistics) {
    if (IsWanted(names, statistic.name)) {
      values.push_back({{"name", statistic.name}, {"value", ValueOf(statistic)}});
    }
  }
  Json result{{"provider", provider}, {"stats", std::move(values)}};
  if (vcpu) {
    result["qom-path"] = VcpuPath(*vcpu);
  }
  return result;
}

// The VM as a whole, or each vCPU that is asked for.
std::vector<std::optional<unsigned>> Targets(const Call& call) {
  if (call.Text("target") == "vm") {
    return {std::nullopt};
  }
  const Wanted paths = WantedBy(call.arguments, "vcpus");
  std::vector<std::optional<unsigned>> targets;
  for (unsigned i = 0; i < call.services.machine->vcpus().count(); ++i) {
    if (IsWanted(paths, VcpuPath(i))) {
      targets.emplace_back(i);
    }
  }
  return targets;
}

Outcome QueryStats(Call& call) {
  std::vector<std::pair<std::string_view, Wanted>> requests;
  for (const std::string_view provider : kProviders) {
    if (const Json* const request = RequestOf(call.arguments, provider)) {
      requests.emplace_back(provider, WantedBy(*request, "names"));
    }
  }
  Json results = Json::array();
  for (const auto target : Targets(call)) {
    for (const auto& [provider, names] : requests) {
      auto result = ResultOf(call.services, provider, names, target);
      if (!result) {
        return Refuse(result.error());
      }
      if (!result->at("stats").empty()) {
        results.push_back(*std::move(result));
      }
    }
  }
  return results;
}

Json DescriptionOf(const Statistic& statistic) {
  Json description{{"name", statistic.name},
                   {"type", kTypes.at(static_cast<std::size_t>(statistic.type))},
                   {"exponent", statistic.exponent}};
  if (statistic.unit != Statistic::Unit::kNone) {
    description["unit"] = kUnits.at(static_cast<std::size_t>(statistic.unit) - 1);
  }
  if (statistic.exponent != 0) {
    description["base"] = statistic.base;
  }
  if (statistic.bucket_size != 0) {
    description["bucket-size"] = statistic.bucket_size;
  }
  return description;
}

Outcome QueryStatsSchemas(Call& call) {
  Json schemas = Json::array();
  for (const auto provider : kProviders) {
    if (call.Has("provider") && call.Text("provider") != provider) {
      continue;
    }
    for (const auto target : kTargets) {
      const auto statistics =
          Read(call.services, provider, target == "vm" ? std::nullopt : std::optional(0U));
      if (!statistics) {
        return Refuse(statistics.error());
      }
      Json described = Json::array();
      for (const auto& statistic : *statistics) {
        described.push_back(DescriptionOf(statistic));
      }
      schemas.push_back({{"provider", provider}, {"target", target}, {"stats", std::move(described)}});
    }
  }
  return schemas;
}

constexpr std::array kCommands{
    Command{.name = "query-stats",
            .help = "Statistics of the VM or of its vCPUs: KVM's and gyre's own.",
            .arguments = &kFilter,
            .result = &kResults,
            .run = QueryStats},
    Command{.name = "query-stats-schemas",
            .help = "What query-stats tells: names, kinds and units.",
            .arguments = &kSchemasArguments,
            .result = &kSchemas,
            .run = QueryStatsSchemas},
};

}  // namespace

std::span<const Command> StatsCommands() { return kCommands; }

}  // namespace gyre::control
