// A device's options as one text, "key=value,key=value", by a description that the
// command line, the configuration file and the help share. Pure. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"

namespace gyre::virtio {

struct PropertySpec {
  std::string_view name;
  std::string_view values{};  // for the help: "PATH", "on|off"; empty: a word without a value
  bool required = false;
  std::string_view instead{};  // where this one is given, the other is not required, and not allowed
  bool repeated = false;       // may come several times
};

// Every mistake is one Error of kind kUsage, which does not name the option.
class Properties {
 public:
  // Refuses what is not described, what comes twice and may not, and what is missing. A text
  // without any '=' that is not a described word is the value of the first property; "on" alone means all
  // defaults where nothing is required. No value has a comma.
  static Result<Properties> Parse(std::string_view text, std::span<const PropertySpec> specs);

  // Nothing where it was not given.
  std::optional<std::string_view> Get(std::string_view name) const;
  // Every one that was given, by name.
  const std::multimap<std::string, std::string, std::less<>>& all() const { return values_; }
  // The first of `specs` that was given and is none of these; nothing if there is none.
  std::optional<std::string_view> OtherThan(std::span<const std::string_view> names,
                                            std::span<const PropertySpec> specs) const;
  // All values of one that may come several times, in the order given.
  std::vector<std::string_view> All(std::string_view name) const;
  Result<bool> OnOff(std::string_view name, bool otherwise) const;
  // A number between `least` and `most`; with a suffix K, M, G or T times 1024 to its power.
  Result<std::uint64_t> Number(std::string_view name, std::uint64_t otherwise, std::uint64_t least,
                               std::uint64_t most) const;

 private:
  std::multimap<std::string, std::string, std::less<>> values_;
};

// "path=PATH[,readonly=on|off]"
std::string Describe(std::span<const PropertySpec> specs);

}  // namespace gyre::virtio
