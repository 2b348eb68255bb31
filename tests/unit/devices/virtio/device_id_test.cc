// What devices are called where clients name them.
#include <gtest/gtest.h>

#include <array>
#include <set>
#include <string>

#include "gyre/base/format.h"
#include "gyre/devices/virtio/registry.h"

namespace gyre::virtio {
namespace {

std::string IdOf(const Module& module, std::string_view options, unsigned number = 0) {
  const auto properties = Properties::Parse(options, module.properties);
  EXPECT_TRUE(properties.has_value()) << module.option << ": " << properties.error().message();
  const auto id = DeviceId(module, *properties, number);
  return id ? *id : id.error().message();
}

TEST(DeviceId, WithoutAName_IsItsKindAndItsNumber) {
  constexpr std::array<PropertySpec, 1> kSpecs = {{{.name = "id", .values = "ID"}}};
  std::set<std::string> ids;
  for (const Module* const module : Modules()) {
    Module plain = *module;
    plain.properties = kSpecs;  // nothing is required
    EXPECT_TRUE(ids.insert(IdOf(plain, "on", 7)).second) << module->option << " is another one's name";
    EXPECT_EQ(IdOf(plain, "id=a-b_c.9"), "a-b_c.9");
  }
  EXPECT_TRUE(ids.contains("disk7"));
  EXPECT_TRUE(ids.contains("mem7"));
}

// They are parts of paths.
TEST(DeviceId, NameThatNoPathCouldHave_IsRefused) {
  const Module& module = **Modules().begin();
  for (const std::string& id :
       {std::string(), std::string("a/b"), std::string("a b"), std::string(65, 'x')}) {
    EXPECT_EQ(IdOf(module, format("path=/x,id={}", id)),
              format("id={}: is not 1 to 64 letters, digits, '-', '_' and '.'", id));
  }
  EXPECT_EQ(IdOf(module, format("path=/x,id={}", std::string(64, 'x'))), std::string(64, 'x'));
}

}  // namespace
}  // namespace gyre::virtio
