// What the VM is made of.
#include <array>

#include "src/control/commands/families.h"
#include "src/control/services.h"
#include "src/machine/layout.h"

namespace gyre::control {
namespace {

constexpr std::array kNameMembers{Member{"name", &kString, "as --name says", kOptional}};
constexpr Type kName = ObjectType("NameInfo", kNameMembers);
constexpr std::array kUuidMembers{Member{"UUID", &kString, "as --uuid says, or zeros"}};
constexpr Type kUuid = ObjectType("UuidInfo", kUuidMembers);
constexpr std::array kKvmMembers{Member{"enabled", &kBoolean, "it is used"},
                                 Member{"present", &kBoolean, "it is there"}};
constexpr Type kKvm = ObjectType("KvmInfo", kKvmMembers);
constexpr std::array<std::string_view, 1> kArchitectures{"x86_64"};
constexpr Type kArchitecture = EnumType("SysEmuTarget", kArchitectures);
constexpr std::array kTargetMembers{Member{"arch", &kArchitecture}};
constexpr Type kTarget = ObjectType("TargetInfo", kTargetMembers);

constexpr std::array kMachineMembers{Member{"name", &kString, "the board"},
                                     Member{"is-default", &kBoolean, "it is what one gets", kOptional},
                                     Member{"cpu-max", &kInteger, "vCPUs at most"},
                                     Member{"hotpluggable-cpus", &kBoolean},
                                     Member{"numa-mem-supported", &kBoolean},
                                     Member{"deprecated", &kBoolean},
                                     Member{"default-cpu-type", &kString, "", kOptional},
                                     Member{"default-ram-id", &kString, "", kOptional}};
constexpr Type kMachine = ObjectType("MachineInfo", kMachineMembers);
constexpr Type kMachines = ArrayType("array of MachineInfo", kMachine);
constexpr std::array kCurrentMembers{
    Member{"wakeup-suspend-support", &kBoolean, "the guest can sleep and be woken"}};
constexpr Type kCurrent = ObjectType("CurrentMachineParams", kCurrentMembers);
constexpr std::array kMemoryMembers{Member{"base-memory", &kUnsigned, "bytes of RAM"},
                                    Member{"plugged-memory", &kUnsigned, "bytes added later", kOptional}};
constexpr Type kMemory = ObjectType("MemoryInfo", kMemoryMembers);

constexpr std::array kPropsMembers{Member{"socket-id", &kInteger, "", kOptional},
                                   Member{"core-id", &kInteger, "", kOptional},
                                   Member{"thread-id", &kInteger, "", kOptional}};
constexpr Type kProps = ObjectType("CpuInstanceProperties", kPropsMembers);
constexpr std::array kCpuMembers{
    Member{"cpu-index", &kInteger}, Member{"qom-path", &kString, "its name for query-stats"},
    Member{"thread-id", &kInteger, "of its thread on the host"},
    Member{"props", &kProps, "where it stands in the topology", kOptional}, Member{"target", &kArchitecture}};
constexpr Type kCpu = ObjectType("CpuInfoFast", kCpuMembers);
constexpr Type kCpus = ArrayType("array of CpuInfoFast", kCpu);

constexpr std::array kIoThreadMembers{Member{"id", &kString},           Member{"thread-id", &kInteger},
                                      Member{"poll-max-ns", &kInteger}, Member{"poll-grow", &kInteger},
                                      Member{"poll-shrink", &kInteger}, Member{"aio-max-batch", &kInteger}};
constexpr Type kIoThread = ObjectType("IOThreadInfo", kIoThreadMembers);
constexpr Type kIoThreads = ArrayType("array of IOThreadInfo", kIoThread);

constexpr std::string_view kNoUuid = "00000000-0000-0000-0000-000000000000";

Outcome QueryName(Call& call) {
  const auto& name = call.services.identity.name;
  return name.empty() ? Nothing() : Outcome(Json{{"name", name}});
}

Outcome QueryUuid(Call& call) {
  const auto& uuid = call.services.identity.uuid;
  return Json{{"UUID", uuid.empty() ? kNoUuid : std::string_view(uuid)}};
}

Outcome QueryKvm(Call& /*call*/) { return Json{{"enabled", true}, {"present", true}}; }

Outcome QueryTarget(Call& /*call*/) { return Json{{"arch", "x86_64"}}; }

Outcome QueryMachines(Call& /*call*/) {
  return Json::array({{{"name", "gyre"},
                       {"is-default", true},
                       {"cpu-max", machine::layout::kMaxVcpus},
                       {"hotpluggable-cpus", false},
                       {"numa-mem-supported", false},
                       {"deprecated", false},
                       {"default-cpu-type", "host"},
                       {"default-ram-id", "ram"}}});
}

Outcome QueryCurrentMachine(Call& call) {
  return Json{{"wakeup-suspend-support", call.services.machine->config().acpi}};
}

Outcome QueryMemorySize(Call& call) {
  const std::uint64_t base = call.services.machine->ram().size();
  return Json{{"base-memory", base}, {"plugged-memory", call.services.machine->all_ram().size() - base}};
}

Outcome QueryCpus(Call& call) {
  const kvm::Vcpus& vcpus = call.services.machine->vcpus();
  Json list = Json::array();
  for (unsigned i = 0; i < vcpus.count(); ++i) {
    list.push_back({{"cpu-index", i},
                    {"qom-path", VcpuPath(i)},
                    {"thread-id", vcpus.thread_id(VcpuIndex(i))},
                    {"props", {{"socket-id", i}, {"core-id", 0}, {"thread-id", 0}}},
                    {"target", "x86_64"}});
  }
  return list;
}

Outcome QueryIoThreads(Call& call) {
  Json list = Json::array();
  if (const loop::IoThread* const thread = call.services.monitor_thread()) {
    list.push_back({{"id", thread->name()},
                    {"thread-id", thread->tid()},
                    {"poll-max-ns", 0},
                    {"poll-grow", 0},
                    {"poll-shrink", 0},
                    {"aio-max-batch", 0}});
  }
  for (const auto& [config, thread] : call.services.machine->io_threads().all()) {
    list.push_back({{"id", config.id},
                    {"thread-id", thread->tid()},
                    {"poll-max-ns", config.poll.max_ns},
                    {"poll-grow", config.poll.grow},
                    {"poll-shrink", config.poll.shrink},
                    {"aio-max-batch", 0}});
  }
  return list;
}

constexpr std::array kCommands{
    Command{.name = "query-name",
            .help = "The VM's name.",
            .result = &kName,
            .flags = Command::kAllowOob,
            .run = QueryName},
    Command{.name = "query-uuid",
            .help = "The VM's UUID.",
            .result = &kUuid,
            .flags = Command::kAllowOob,
            .run = QueryUuid},
    Command{.name = "query-kvm",
            .help = "Whether KVM is used: always.",
            .result = &kKvm,
            .flags = Command::kAllowOob,
            .run = QueryKvm},
    Command{.name = "query-target",
            .help = "The guest's architecture.",
            .result = &kTarget,
            .flags = Command::kAllowOob,
            .run = QueryTarget},
    Command{.name = "query-machines",
            .help = "The boards there are: one.",
            .result = &kMachines,
            .run = QueryMachines},
    Command{.name = "query-current-machine",
            .help = "What this VM can do.",
            .result = &kCurrent,
            .run = QueryCurrentMachine},
    Command{.name = "query-memory-size-summary",
            .help = "How much RAM the guest has.",
            .result = &kMemory,
            .run = QueryMemorySize},
    Command{.name = "query-cpus-fast",
            .help = "The vCPUs and their threads; none is disturbed.",
            .result = &kCpus,
            .run = QueryCpus},
    Command{.name = "query-iothreads",
            .help = "Threads with a loop of their own besides the main one.",
            .result = &kIoThreads,
            .run = QueryIoThreads},
};

}  // namespace

std::span<const Command> MachineCommands() { return kCommands; }

}  // namespace gyre::control
