// The devices that a machine can have: each a module of its own, which one line in
// registry.cc lists. From its description come the command line's option and that of the
// configuration file. `tools/new-device` makes a new one. Any thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "gyre/base/result.h"
#include "gyre/devices/virtio/device.h"
#include "gyre/devices/virtio/properties.h"

namespace gyre::virtio {

// Of a module whose devices any thread may serve: which do. The machine reads it.
inline constexpr PropertySpec kIoThreadProperty{.name = "iothread", .values = "ID[:ID...]"};

struct Module {
  std::string_view option;  // "entropy": --entropy
  std::string_view help;
  std::span<const PropertySpec> properties;
  // Big lock held. Errors of kind kUsage are about the properties.
  Result<std::unique_ptr<VirtioDevice>> (*create)(const DeviceContext& context, const Properties& properties);
  // Whether another process has to have the guest's memory for it; null: never.
  bool (*shares_memory)(const Properties& properties) = nullptr;
  // What its devices are called where they are not given a name: "mem" for mem0, mem1; empty: as the option.
  std::string_view stem{};
};

// In the order in which a machine's devices are numbered.
std::span<const Module* const> Modules();

// The name (`id`) of the module's device of that number, counted from 0: what the user calls it, or a
// numbered one. Letters, digits, '-', '_' and '.', so that it can be a part of a path; else kUsage.
Result<std::string> DeviceId(const Module& module, const Properties& properties, unsigned number);

// What the user asked for: one device.
struct DeviceConfig {
  const Module* module = nullptr;
  Properties properties;
};

}  // namespace gyre::virtio
