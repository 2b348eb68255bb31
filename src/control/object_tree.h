// The VM as a tree of named objects with properties, as QEMU's clients look at one: made anew each time that
// somebody asks, of what the machine has. Big lock's holder.
//
//   /machine                the board
//   /machine/cpu[N]         a vCPU
//   /machine/OPTION/ID      a device, by the option that asked for it (DevicePath): /machine/disk/disk0
//   /objects/ID             I/O threads, and RAM as "ram"
//   /chardevs/LABEL         where serial ports' and consoles' bytes go
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/control/json.h"
#include "src/control/services.h"

namespace gyre::control {

struct Object {
  struct Property {
    std::string name;
    std::string type;  // "string", "uint64", "bool"
    Json value;
  };
  std::string name;
  std::string type;
  std::vector<Property> properties{};
  std::vector<Object> children{};
  std::string path{};
};

Object BuildObjectTree(const Services& services);
// "/": the root itself. Null if there is none of that path; a path without a leading slash is the one object
// that has it as its end.
const Object* FindObject(const Object& root, std::string_view path);
// What an object of a device's module is called.
std::string DeviceType(const virtio::Module& module);

}  // namespace gyre::control
