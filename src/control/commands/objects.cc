// What the VM is made of, as objects with properties.
#include <algorithm>
#include <array>
#include <bit>

#include "gyre/base/format.h"
#include "gyre/devices/virtio/registry.h"
#include "src/control/commands/families.h"
#include "src/control/object_tree.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

constexpr std::array kPathMembers{
    Member{"path", &kString, "of an object; without a leading slash, the end of one that no other has"}};
constexpr Type kPathArguments = ObjectType("qom-list arguments", kPathMembers);
constexpr std::array kGetMembers{Member{"path", &kString, "of an object"},
                                 Member{"property", &kString, "as qom-list names it"}};
constexpr Type kGetArguments = ObjectType("qom-get arguments", kGetMembers);
constexpr std::array kTypesMembers{
    Member{"implements", &kString, "only this type and what is made of it: device or object", kOptional},
    Member{"abstract", &kBoolean, "types that nothing is of by itself, too (false)", kOptional}};
constexpr Type kTypesArguments = ObjectType("qom-list-types arguments", kTypesMembers);
constexpr std::array kTypeNameMembers{Member{"typename", &kString, "as qom-list-types names it"}};
constexpr Type kTypeNameArguments = ObjectType("device-list-properties arguments", kTypeNameMembers);

constexpr std::array kPropertyMembers{
    Member{"name", &kString}, Member{"type", &kString, "child<TYPE>: an object below"},
    Member{"description", &kString, "its values", kOptional}, Member{"default-value", &kAny, "", kOptional}};
constexpr Type kProperty = ObjectType("ObjectPropertyInfo", kPropertyMembers);
constexpr Type kProperties = ArrayType("array of ObjectPropertyInfo", kProperty);
constexpr std::array kTypeMembers{Member{"name", &kString}, Member{"abstract", &kBoolean, "", kOptional},
                                  Member{"parent", &kString, "what it is made of", kOptional}};
constexpr Type kTypeInfo = ObjectType("ObjectTypeInfo", kTypeMembers);
constexpr Type kTypes = ArrayType("array of ObjectTypeInfo", kTypeInfo);

constexpr std::array kVirtioMembers{Member{"path", &kString}, Member{"name", &kString, "its type"}};
constexpr Type kVirtio = ObjectType("VirtioInfo", kVirtioMembers);
constexpr Type kVirtios = ArrayType("array of VirtioInfo", kVirtio);
constexpr std::array kDeviceStatusMembers{
    Member{"statuses", &kStrings, "bits that are set"},
    Member{"unknown-statuses", &kInteger, "bits that have no name", kOptional}};
constexpr Type kDeviceStatus = ObjectType("VirtioDeviceStatus", kDeviceStatusMembers);
constexpr std::array kStatusMembers{
    Member{"name", &kString, "its type"},
    Member{"device-id", &kInteger, "as the specification numbers it"},
    Member{"num-vqs", &kInteger, "queues"},
    Member{"isr", &kInteger, "causes of interrupts that are not acknowledged"},
    Member{"vm-running", &kBoolean},
    Member{"broken", &kBoolean, "it waits to be reset"},
    Member{"started", &kBoolean, "the driver has set it up"},
    Member{"host-features", &kUnsigned, "bits that it offers"},
    Member{"guest-features", &kUnsigned, "bits that the driver has taken"},
    Member{"status", &kDeviceStatus}};
constexpr Type kStatus = ObjectType("VirtioStatus", kStatusMembers);

std::unexpected<CommandError> NotFound(std::string_view what, std::string_view name) {
  return Refuse(format("{} '{}' not found", what, name), ErrorClass::kDeviceNotFound);
}

Outcome List(Call& call) {
  const Object root = BuildObjectTree(call.services);
  const Object* const object = FindObject(root, call.Text("path"));
  if (object == nullptr) {
    return NotFound("Device", call.Text("path"));
  }
  Json list = Json::array();
  for (const auto& property : object->properties) {
    list.push_back({{"name", property.name}, {"type", property.type}});
  }
  for (const auto& child : object->children) {
    list.push_back({{"name", child.name}, {"type", format("child<{}>", child.type)}});
  }
  return list;
}

Outcome Get(Call& call) {
  const Object root = BuildObjectTree(call.services);
  const Object* const object = FindObject(root, call.Text("path"));
  if (object == nullptr) {
    return NotFound("Device", call.Text("path"));
  }
  const std::string& name = call.Text("property");
  const auto property = std::ranges::find(object->properties, name, &Object::Property::name);
  if (property != object->properties.end()) {
    return property->value;
  }
  const auto child = std::ranges::find(object->children, name, &Object::name);
  if (child == object->children.end()) {
    return Refuse(format("Property '{}.{}' not found", object->type, name));
  }
  return child->path;
}

Outcome ListTypes(Call& call) {
  const std::string of = call.Has("implements") ? call.Text("implements") : "object";
  Json list = Json::array();
  const auto add = [&](std::string_view name, std::string_view parent, bool abstract) {
    const bool wanted = of == name || of == "object" || (of == "device" && parent == "device");
    if (wanted && (!abstract || call.Flag("abstract"))) {
      list.push_back({{"name", name}, {"parent", parent}});
      if (abstract) {
        list.back()["abstract"] = true;
      }
    }
  };
  add("device", "object", true);
  add("gyre-machine", "object", false);
  add("host-x86_64-cpu", "device", false);
  add("iothread", "object", false);
  for (const virtio::Module* const module : virtio::Modules()) {
    add(DeviceType(*module), "device", false);
  }
  return list;
}

Outcome PropertiesOf(const Call& call, std::string_view what) {
  const std::string& name = call.Text("typename");
  const auto modules = virtio::Modules();
  const auto found = std::ranges::find(modules, name, [](const auto* each) { return DeviceType(*each); });
  if (found == modules.end()) {
    return NotFound(what, name);
  }
  Json list = Json::array();
  for (const virtio::PropertySpec& property : (*found)->properties) {
    list.push_back({{"name", property.name}, {"type", "string"}});
    if (!property.values.empty()) {
      list.back()["description"] = property.values;
    }
  }
  return list;
}

Outcome ListDeviceProperties(Call& call) { return PropertiesOf(call, "Device"); }
Outcome ListTypeProperties(Call& call) { return PropertiesOf(call, "Class"); }

// Calls visit(path, a plugged device), in their order.
template <typename Visit>
void ForEachVirtio(const Call& call, const Visit& visit) {
  for (const auto& plugged : call.services.machine->virtio().plugged()) {
    visit(DevicePath(plugged.config.module->option, plugged.id), plugged);
  }
}

Outcome QueryVirtio(Call& call) {
  Json list = Json::array();
  ForEachVirtio(call, [&](const std::string& path, const auto& plugged) {
    list.push_back({{"path", path}, {"name", DeviceType(*plugged.config.module)}});
  });
  return list;
}

// 2.1.
constexpr std::uint8_t kDriverOk = 1U << 2U;
constexpr std::uint8_t kNeedsReset = 1U << 6U;

// By bit.
Json StatusJson(std::uint8_t status) {
  static constexpr std::array<std::string_view, 8> kNames = {
      "acknowledge", "driver", "driver-ok", "features-ok", "", "", "needs-reset", "failed"};
  Json names = Json::array();
  unsigned unknown = 0;
  for (unsigned bit = 0; bit < kNames.size(); ++bit) {
    if ((status & (1U << bit)) == 0) {
      continue;
    }
    if (kNames.at(bit).empty()) {
      unknown |= 1U << bit;
    } else {
      names.push_back(kNames.at(bit));
    }
  }
  Json json{{"statuses", std::move(names)}};
  if (unknown != 0) {
    json["unknown-statuses"] = unknown;
  }
  return json;
}

Json DescribeVirtio(const machine::VirtioBus::Plugged& plugged) {
  const virtio::MmioTransport& transport = plugged.transport;
  const virtio::VirtioDevice& device = transport.device();
  const std::uint8_t status = transport.status();
  return {{"name", DeviceType(*plugged.config.module)},
          {"device-id", device.traits().id},
          {"num-vqs", device.traits().queues},
          {"isr", transport.interrupt_status()},
          {"vm-running", device.running()},
          {"broken", (status & kNeedsReset) != 0},
          {"started", (status & kDriverOk) != 0},
          {"host-features", device.features()},
          {"guest-features", transport.driver_features()},
          {"status", StatusJson(status)}};
}

Outcome QueryVirtioStatus(Call& call) {
  Json found;
  ForEachVirtio(call, [&](const std::string& path, const auto& plugged) {
    if (path == call.Text("path")) {
      found = DescribeVirtio(plugged);
    }
  });
  return found.is_null()
             ? Outcome(Refuse(format("Path '{}' is not a realized VirtIODevice", call.Text("path"))))
             : Outcome(std::move(found));
}

constexpr std::array kCommands{
    Command{.name = "qom-list",
            .help = "An object's properties, and the objects below it. The root is \"/\".",
            .arguments = &kPathArguments,
            .result = &kProperties,
            .run = List},
    Command{.name = "qom-get",
            .help = "A property of an object.",
            .arguments = &kGetArguments,
            .result = &kAny,
            .run = Get},
    Command{.name = "qom-list-types",
            .help = "The types of objects that there can be.",
            .arguments = &kTypesArguments,
            .result = &kTypes,
            .run = ListTypes},
    Command{.name = "qom-list-properties",
            .help = "The options of a type of devices.",
            .arguments = &kTypeNameArguments,
            .result = &kProperties,
            .run = ListTypeProperties},
    Command{.name = "device-list-properties",
            .help = "The options of a type of devices, as the command line takes them.",
            .arguments = &kTypeNameArguments,
            .result = &kProperties,
            .run = ListDeviceProperties},
    Command{.name = "x-query-virtio", .help = "The virtio devices.", .result = &kVirtios, .run = QueryVirtio},
    Command{.name = "x-query-virtio-status",
            .help = "How a virtio device and its driver stand.",
            .arguments = &kPathArguments,
            .result = &kStatus,
            .run = QueryVirtioStatus},
};

}  // namespace

std::span<const Command> ObjectCommands() { return kCommands; }

}  // namespace gyre::control
