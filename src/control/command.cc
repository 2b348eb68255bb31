#include "src/control/command.h"

#include <algorithm>
#include <array>

#include "gyre/base/format.h"
#include "src/control/services.h"

namespace gyre::control {

std::string_view Name(ErrorClass error_class) {
  static constexpr std::array<std::string_view, 5> kNames{
      "GenericError", "CommandNotFound", "DeviceNotActive", "DeviceNotFound", "KVMMissingCap"};
  return kNames.at(static_cast<std::size_t>(error_class));
}

std::unexpected<CommandError> Refuse(std::string text, ErrorClass error_class) {
  return std::unexpected(CommandError{.error_class = error_class, .text = std::move(text)});
}

std::unexpected<CommandError> Refuse(const Error& error) { return Refuse(error.message()); }

Outcome Nothing() { return Json::object(); }

Outcome AsOutcome(const Status& status) { return status ? Nothing() : Outcome(Refuse(status.error())); }

const std::string& Call::Text(std::string_view name) const {
  return arguments.at(name).get_ref<const std::string&>();
}

std::uint64_t Call::Unsigned(std::string_view name) const { return arguments.at(name).get<std::uint64_t>(); }

std::int64_t Call::Integer(std::string_view name) const { return arguments.at(name).get<std::int64_t>(); }

bool Call::Flag(std::string_view name, bool otherwise) const {
  const auto found = arguments.find(name);
  return found == arguments.end() ? otherwise : found->get<bool>();
}

std::uint64_t Call::Unsigned(std::string_view name, std::uint64_t otherwise) const {
  return Has(name) ? Unsigned(name) : otherwise;
}

const Command* FindCommand(const Services& services, std::string_view name) {
  const auto commands = services.commands();
  const auto found = std::ranges::lower_bound(commands, name, {}, &Command::name);
  return found != commands.end() && (*found)->name == name ? *found : nullptr;
}

Outcome AdmitNow(const Services& services, const Command& command) {
  if ((command.flags & Command::kNotInDump) != 0 && services.dump.active()) {
    return Refuse("There is a dump in process, please wait.");
  }
  if (services.machine != nullptr && !command.allowed.states.Has(services.machine->lifecycle().state())) {
    return Refuse(std::string(command.allowed.refusal));
  }
  return Nothing();
}

std::string VcpuPath(unsigned index) { return format("/machine/cpu[{}]", index); }
std::string DevicePath(std::string_view option, std::string_view id) {
  return format("/machine/{}/{}", option, id);
}
std::string DiskPath(std::string_view id) { return DevicePath("disk", id); }
std::string DiskNode(std::string_view id) { return format("#{}", id); }
std::string MemoryDevicePath(virtio::MemoryKind kind, std::string_view id) {
  return DevicePath(kind == virtio::MemoryKind::kPmem ? "pmem" : "mem-device", id);
}

}  // namespace gyre::control
