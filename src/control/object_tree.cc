#include "src/control/object_tree.h"

#include <algorithm>
#include <utility>

#include "gyre/base/format.h"

namespace gyre::control {
namespace {

constexpr std::string_view kContainer = "container";

Object::Property Text(std::string name, std::string value) {
  return {.name = std::move(name), .type = "string", .value = std::move(value)};
}
Object::Property Number(std::string name, std::uint64_t value) {
  return {.name = std::move(name), .type = "uint64", .value = value};
}
Object::Property Truth(std::string name, bool value) {
  return {.name = std::move(name), .type = "bool", .value = value};
}

Object& Add(Object& parent, Object child) {
  child.properties.insert(child.properties.begin(), Text("type", child.type));
  return parent.children.emplace_back(std::move(child));
}

Object& Container(Object& parent, std::string_view name) {
  const auto found = std::ranges::find(parent.children, name, &Object::name);
  return found != parent.children.end()
             ? *found
             : Add(parent, {.name = std::string(name), .type = std::string(kContainer)});
}

void AddVcpus(const kvm::Vcpus& vcpus, Object& board) {
  for (unsigned i = 0; i < vcpus.count(); ++i) {
    Add(board,
        {.name = format("cpu[{}]", i),
         .type = "host-x86_64-cpu",
         .properties = {Number("apic-id", i), Truth("realized", true),
                        Number("thread-id", static_cast<std::uint64_t>(vcpus.thread_id(VcpuIndex(i))))}});
  }
}

// Memory of a device's own is an object below it.
void AddMemory(const machine::VirtioBus::Plugged& plugged, Object& device) {
  const auto* const memory = dynamic_cast<const virtio::MemoryDevice*>(&plugged.transport.device());
  if (memory != nullptr) {
    Add(device, {.name = std::string(kDeviceMemory),
                 .type = "memory-backend",
                 .properties = {Number("size", memory->info().size)}});
  }
}

// Who serves its queues: gyred, or the kernel's vhost.
void AddServer(const machine::VirtioBus::Plugged& plugged, Object& device) {
  if (const auto* const nic = dynamic_cast<const virtio::Nic*>(&plugged.transport.device())) {
    device.properties.push_back(Text("served-by", nic->served_by_kernel() ? "kernel" : "gyred"));
  }
  if (const auto* const vsock = dynamic_cast<const virtio::Vsock*>(&plugged.transport.device())) {
    device.properties.push_back(Text("served-by", std::string(ToText(vsock->server()))));
  }
}

void AddDevices(const machine::VirtioBus& bus, Object& board) {
  for (const auto& plugged : bus.plugged()) {
    const auto& [id, config, where, transport] = plugged;
    Object device{.name = id,
                  .type = DeviceType(*config.module),
                  .properties = {Number("address", where.address), Number("interrupt", where.gsi),
                                 Truth("realized", true)}};
    for (const auto& [property, value] : config.properties.all()) {
      if (std::ranges::find(device.properties, property, &Object::Property::name) ==
          device.properties.end()) {
        device.properties.push_back(Text(property, value));
      }
    }
    AddServer(plugged, device);
    AddMemory(plugged, device);
    Add(Container(board, config.module->option), std::move(device));
  }
}

void AddObjects(const machine::Machine& machine, Object& objects) {
  for (const auto& [config, thread] : machine.io_threads().all()) {
    Add(objects, {.name = config.id,
                  .type = "iothread",
                  .properties = {Number("poll-grow", config.poll.grow),
                                 Number("poll-max-ns", static_cast<std::uint64_t>(config.poll.max_ns)),
                                 Number("poll-shrink", config.poll.shrink),
                                 Number("thread-id", static_cast<std::uint64_t>(thread->tid()))}});
  }
  Add(objects,
      {.name = "ram", .type = "memory-backend", .properties = {Number("size", machine.ram().size())}});
}

void SetPaths(Object& object, const std::string& path) {
  object.path = path.empty() ? "/" : path;
  for (Object& child : object.children) {
    SetPaths(child, format("{}/{}", path, child.name));
  }
}

}  // namespace

std::string DeviceType(const virtio::Module& module) { return format("virtio-{}", module.option); }

Object BuildObjectTree(const Services& services) {
  machine::Machine& machine = *services.machine;
  Object root{.name = "", .type = std::string(kContainer), .properties = {Text("type", "container")}};
  Object& chardevs = Container(root, "chardevs");
  for (const auto& chardev : machine.chardevs().all()) {
    Add(chardevs,
        {.name = chardev->label(),
         .type = "chardev",
         .properties = {Truth("connected", chardev->open()), Text("filename", chardev->filename())}});
  }
  Object board{.name = "machine",
               .type = "gyre-machine",
               .properties = {Truth("acpi", machine.config().acpi), Number("memory", machine.ram().size()),
                              Text("name", services.identity.name)}};
  AddVcpus(machine.vcpus(), board);
  AddDevices(machine.virtio(), board);
  Add(root, std::move(board));
  AddObjects(machine, Container(root, "objects"));
  SetPaths(root, "");
  return root;
}

namespace {

const Object* Below(const Object& from, std::string_view path) {
  const Object* at = &from;
  while (at != nullptr && !path.empty()) {
    const auto slash = path.find('/');
    const std::string_view name = path.substr(0, slash);
    path = slash == std::string_view::npos ? "" : path.substr(slash + 1);
    if (!name.empty()) {
      const auto found = std::ranges::find(at->children, name, &Object::name);
      at = found == at->children.end() ? nullptr : &*found;
    }
  }
  return at;
}

void FindAll(const Object& from, std::string_view path, std::vector<const Object*>& found) {
  if (const Object* const here = Below(from, path); here != nullptr) {
    found.push_back(here);
  }
  for (const Object& child : from.children) {
    FindAll(child, path, found);
  }
}

}  // namespace

const Object* FindObject(const Object& root, std::string_view path) {
  if (path.starts_with('/')) {
    return Below(root, path);
  }
  std::vector<const Object*> found;
  if (!path.empty()) {
    FindAll(root, path, found);
  }
  return found.size() == 1 ? found.front() : nullptr;
}

}  // namespace gyre::control
