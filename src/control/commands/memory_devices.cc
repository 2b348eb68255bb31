// Devices that have memory of their own.
#include <algorithm>
#include <array>
#include <string>

#include "gyre/base/format.h"
#include "src/control/commands/families.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

using virtio::MemoryDevice;
using virtio::MemoryDeviceInfo;
using virtio::MemoryKind;

constexpr std::array<std::string_view, 2> kKinds{"virtio-mem", "virtio-pmem"};
constexpr Type kKind = EnumType("MemoryDeviceInfoKind", kKinds);
constexpr std::array kMemMembers{Member{"id", &kString, "the device's", kOptional},
                                 Member{"memaddr", &kUnsigned, "guest-physical address of its part"},
                                 Member{"requested-size", &kUnsigned, "bytes that the guest is to have"},
                                 Member{"size", &kUnsigned, "bytes that it has"},
                                 Member{"max-size", &kUnsigned, "bytes that it can have"},
                                 Member{"block-size", &kUnsigned, "bytes that come and go together"},
                                 Member{"node", &kInteger, "NUMA node: 0"},
                                 Member{"memdev", &kString, "its memory's name"}};
constexpr Type kMem = ObjectType("VirtioMEMDeviceInfo", kMemMembers);
constexpr std::array kMemDataMembers{Member{"data", &kMem}};
constexpr Type kMemData = ObjectType("VirtioMEMDeviceInfoWrapper", kMemDataMembers);
constexpr std::array kPmemMembers{Member{"id", &kString, "the device's", kOptional},
                                  Member{"memaddr", &kUnsigned, "guest-physical address of its image"},
                                  Member{"size", &kUnsigned, "bytes"},
                                  Member{"memdev", &kString, "its memory's name"}};
constexpr Type kPmem = ObjectType("VirtioPMEMDeviceInfo", kPmemMembers);
constexpr std::array kPmemDataMembers{Member{"data", &kPmem}};
constexpr Type kPmemData = ObjectType("VirtioPMEMDeviceInfoWrapper", kPmemDataMembers);
constexpr std::array kVariants{Variant{"virtio-mem", &kMemData}, Variant{"virtio-pmem", &kPmemData}};
constexpr std::array kDeviceMembers{Member{"type", &kKind}};
constexpr Type kDevice{.kind = Type::Kind::kObject,
                       .name = "MemoryDeviceInfo",
                       .members = kDeviceMembers,
                       .tag = "type",
                       .variants = kVariants};
constexpr Type kDevices = ArrayType("array of MemoryDeviceInfo", kDevice);

constexpr std::array kResizeMembers{
    Member{"id", &kString, "the device's"},
    Member{"size", &kUnsigned, "bytes, whole blocks, that the guest is to have of it"}};
constexpr Type kResizeArguments = ObjectType("memory-device-resize arguments", kResizeMembers);

Json Describe(const MemoryDeviceInfo& info) {
  const bool persistent = info.kind == MemoryKind::kPmem;
  Json data{{"id", info.id},
            {"memaddr", info.address},
            {"size", info.size},
            {"memdev", format("{}/{}", MemoryDevicePath(info.kind, info.id), kDeviceMemory)}};
  if (!persistent) {
    data.update({{"requested-size", info.requested},
                 {"max-size", info.most},
                 {"block-size", info.block_size},
                 {"node", 0}});
  }
  return {{"type", persistent ? "virtio-pmem" : "virtio-mem"}, {"data", std::move(data)}};
}

Outcome QueryMemoryDevices(Call& call) {
  Json list = Json::array();
  for (const MemoryDevice* const device : call.services.machine->memory_devices()) {
    list.push_back(Describe(device->info()));
  }
  return list;
}

Outcome ResizeMemoryDevice(Call& call) {
  const std::string& id = call.Text("id");
  const auto devices = call.services.machine->memory_devices();
  const auto found =
      std::ranges::find(devices, id, [](const MemoryDevice* device) { return device->info().id; });
  if (found == devices.end()) {
    return Refuse(format("Device '{}' not found", id), ErrorClass::kDeviceNotFound);
  }
  return AsOutcome((*found)->Resize(call.Unsigned("size")));
}

constexpr std::array kCommands{
    Command{.name = "query-memory-devices",
            .help = "The devices that have memory of their own, and how much.",
            .result = &kDevices,
            .run = QueryMemoryDevices},
    Command{.name = "memory-device-resize",
            .help = "How much memory the guest is to have of a virtio-mem device: it takes and gives blocks "
                    "in its own time, which MEMORY_DEVICE_SIZE_CHANGE tells.",
            .arguments = &kResizeArguments,
            .run = ResizeMemoryDevice},
};

}  // namespace

std::span<const Command> MemoryDeviceCommands() { return kCommands; }

}  // namespace gyre::control
