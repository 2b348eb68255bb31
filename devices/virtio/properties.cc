#include "gyre/devices/virtio/properties.h"

#include <algorithm>
#include <iterator>

#include "gyre/base/format.h"
#include "gyre/base/key_values.h"
#include "gyre/base/numbers.h"

namespace gyre::virtio {
namespace {

std::string Known(std::span<const PropertySpec> specs) {
  std::string text;
  for (const PropertySpec& spec : specs) {
    text += text.empty() ? "" : ", ";
    text += spec.name;
  }
  return text;
}

}  // namespace

Result<Properties> Properties::Parse(std::string_view text, std::span<const PropertySpec> specs) {
  Properties properties;
  const auto is_word = [specs](std::string_view item) {
    return std::ranges::any_of(
        specs, [item](const PropertySpec& spec) { return spec.name == item && spec.values.empty(); });
  };
  const bool plain = text.find('=') == std::string_view::npos && !is_word(text.substr(0, text.find(',')));
  if (plain && (text != "on" || std::ranges::any_of(specs, &PropertySpec::required))) {
    properties.values_.emplace(specs.front().name, text);
    return properties;
  }
  for (const auto& [name, value] : plain ? std::vector<KeyValue>() : TRY(SplitKeyValues(text, is_word))) {
    const auto spec = std::ranges::find(specs, name, &PropertySpec::name);
    if (spec == specs.end()) {
      return Fail(Error::Usage(format("'{}' is not one of {}", name, Known(specs))));
    }
    if (!spec->repeated && properties.values_.contains(name)) {
      return Fail(Error::Usage(format("'{}' comes twice", name)));
    }
    properties.values_.emplace(name, value);
  }
  for (const PropertySpec& spec : specs) {
    const bool instead = !spec.instead.empty() && properties.Get(spec.instead);
    if (spec.required && !instead && !properties.Get(spec.name)) {
      return Fail(Error::Usage(format("{}={} is missing", spec.name, spec.values)));
    }
    if (instead && properties.Get(spec.name)) {
      return Fail(Error::Usage(format("{} and {} do not go together", spec.name, spec.instead)));
    }
  }
  return properties;
}

std::optional<std::string_view> Properties::Get(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? std::nullopt : std::optional<std::string_view>(found->second);
}

std::optional<std::string_view> Properties::OtherThan(std::span<const std::string_view> names,
                                                      std::span<const PropertySpec> specs) const {
  const auto other = std::ranges::find_if(specs, [&](const PropertySpec& spec) {
    return Get(spec.name) && std::ranges::find(names, spec.name) == names.end();
  });
  return other == specs.end() ? std::nullopt : std::optional(other->name);
}

std::vector<std::string_view> Properties::All(std::string_view name) const {
  const auto [first, last] = values_.equal_range(name);
  std::vector<std::string_view> all;
  std::transform(first, last, std::back_inserter(all),
                 [](const auto& entry) { return std::string_view(entry.second); });
  return all;
}

Result<bool> Properties::OnOff(std::string_view name, bool otherwise) const {
  const auto value = Get(name);
  if (value && *value != "on" && *value != "off") {
    return Fail(Error::Usage(format("{}={}: is neither on nor off", name, *value)));
  }
  return value ? *value == "on" : otherwise;
}

Result<std::uint64_t> Properties::Number(std::string_view name, std::uint64_t otherwise, std::uint64_t least,
                                         std::uint64_t most) const {
  const auto text = Get(name);
  if (!text) {
    return otherwise;
  }
  const auto value = ParseAmount(*text);
  if (!value || *value < least || *value > most) {
    return Fail(Error::Usage(format("{}={}: must be a number from {} to {}", name, *text, least, most)));
  }
  return *value;
}

std::string Describe(std::span<const PropertySpec> specs) {
  std::string text;
  for (const PropertySpec& spec : specs) {
    if (std::ranges::any_of(specs, [&](const PropertySpec& other) { return other.instead == spec.name; })) {
      continue;  // told with the other
    }
    std::string one = spec.values.empty() ? std::string(spec.name) : format("{}={}", spec.name, spec.values);
    if (const auto other = std::ranges::find(specs, spec.instead, &PropertySpec::name);
        !spec.instead.empty() && other != specs.end()) {
      one += format("|{}={}", other->name, other->values);
    }
    if (text.empty()) {
      text = spec.required ? one : format("on, or {}", one);
    } else {
      text += spec.required ? format(",{}", one) : format("[,{}]{}", one, spec.repeated ? "..." : "");
    }
  }
  return text;
}

}  // namespace gyre::virtio
