#include "src/control/type.h"

#include <algorithm>

#include "gyre/base/format.h"

namespace gyre::control {
namespace {

using Check = std::expected<void, std::string>;

std::unexpected<std::string> WrongType(const std::string& name, std::string_view expected) {
  return std::unexpected(format("Invalid parameter type for '{}', expected: {}", name, expected));
}

Check CheckInteger(const Json& value, const Type& type, const std::string& name) {
  if (!value.is_number_integer()) {
    return WrongType(name, "integer");
  }
  const bool negative = !value.is_number_unsigned() && value.get<std::int64_t>() < 0;
  const bool fits = negative ? value.get<std::int64_t>() >= type.least
                             : value.get<std::uint64_t>() <= type.most &&
                                   (type.least <= 0 ||
                                    value.get<std::uint64_t>() >= static_cast<std::uint64_t>(type.least));
  if (!fits) {
    return std::unexpected(
        format("Parameter '{}' expects a value from {} to {}", name, type.least, type.most));
  }
  return {};
}

// Names of files end at a zero byte, so none may be in a string that is used.
Check CheckString(const Json& value, const std::string& name) {
  if (!value.is_string()) {
    return WrongType(name, "string");
  }
  if (value.get_ref<const std::string&>().contains('\0')) {
    return std::unexpected(format("Parameter '{}' has a null character", name));
  }
  return {};
}

Check CheckEnum(const Json& value, const Type& type, const std::string& name) {
  if (!value.is_string()) {
    return WrongType(name, "string");
  }
  const auto& text = value.get_ref<const std::string&>();
  if (std::ranges::find(type.values, text) == type.values.end()) {
    return std::unexpected(format("Parameter '{}' does not accept value '{}'", name, text));
  }
  return {};
}

std::string Inner(const std::string& outer, std::string_view member) {
  return outer.empty() ? std::string(member) : format("{}.{}", outer, member);
}

const Type* ChosenVariant(const Json& value, const Type& type) {
  for (const auto& variant : type.variants) {
    if (value.at(type.tag) == variant.tag_value) {
      return variant.type;
    }
  }
  return nullptr;
}

Check CheckMembers(const Json& value, std::span<const Member> members,
                   const std::string& name) {  // NOLINT(misc-no-recursion): as deep as the types
  for (const auto& member : members) {
    const auto found = value.find(member.name);
    if (found == value.end()) {
      if (!member.optional) {
        return std::unexpected(format("Parameter '{}' is missing", Inner(name, member.name)));
      }
      continue;
    }
    if (auto checked = CheckValue(*found, *member.type, Inner(name, member.name)); !checked) {
      return checked;
    }
  }
  return {};
}

bool HasMember(std::span<const Member> members, std::string_view name) {
  return std::ranges::find(members, name, &Member::name) != members.end();
}

Check CheckObject(const Json& value, const Type& type,
                  const std::string& name) {  // NOLINT(misc-no-recursion)
  if (!value.is_object()) {
    return WrongType(name, "object");
  }
  if (auto checked = CheckMembers(value, type.members, name); !checked) {
    return checked;
  }
  const Type* const variant = type.tag.empty() ? nullptr : ChosenVariant(value, type);
  const auto more = variant != nullptr ? variant->members : std::span<const Member>();
  if (auto checked = CheckMembers(value, more, name); !checked) {
    return checked;
  }
  for (const auto& [key, ignored] : value.items()) {
    if (!HasMember(type.members, key) && !HasMember(more, key)) {
      return std::unexpected(format("Parameter '{}' is unexpected", Inner(name, key)));
    }
  }
  return {};
}

Check CheckArray(const Json& value, const Type& type, const std::string& name) {  // NOLINT(misc-no-recursion)
  if (!value.is_array()) {
    return WrongType(name, "array");
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (auto checked = CheckValue(value[i], *type.element, format("{}[{}]", name, i)); !checked) {
      return checked;
    }
  }
  return {};
}

Check CheckAlternate(const Json& value, const Type& type,
                     const std::string& name) {  // NOLINT(misc-no-recursion)
  for (const Type* const choice : type.choices) {
    if (CheckValue(value, *choice, name)) {
      return {};
    }
  }
  return WrongType(name, type.name);
}

}  // namespace

Check CheckValue(const Json& value, const Type& type, const std::string& name) {  // NOLINT(misc-no-recursion)
  switch (type.kind) {
    case Type::Kind::kString:
      return CheckString(value, name);
    case Type::Kind::kInteger:
      return CheckInteger(value, type, name);
    case Type::Kind::kNumber:
      return value.is_number() ? Check() : WrongType(name, "number");
    case Type::Kind::kBoolean:
      return value.is_boolean() ? Check() : WrongType(name, "boolean");
    case Type::Kind::kNull:
      return value.is_null() ? Check() : WrongType(name, "null");
    case Type::Kind::kAny:
      return {};
    case Type::Kind::kEnum:
      return CheckEnum(value, type, name);
    case Type::Kind::kArray:
      return CheckArray(value, type, name);
    case Type::Kind::kObject:
      return CheckObject(value, type, name);
    case Type::Kind::kAlternate:
      return CheckAlternate(value, type, name);
  }
  return {};
}

Check CheckArguments(const Json& arguments, const Type& type) { return CheckObject(arguments, type, {}); }

}  // namespace gyre::control
