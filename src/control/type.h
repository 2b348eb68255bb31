// The types of commands' arguments and results, and of events' data, as constant
// data: from them arguments are checked, and query-qmp-schema and the reference
// page are written. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>

#include "src/control/json.h"

namespace gyre::control {

struct Member;
struct Variant;

struct Type {
  enum class Kind : std::uint8_t {
    kString,
    kInteger,
    kNumber,
    kBoolean,
    kNull,
    kAny,
    kEnum,
    kArray,
    kObject,
    kAlternate
  };
  Kind kind = Kind::kAny;
  std::string_view name;                       // for people; on the wire it has none
  const Type* element = nullptr;               // of an array
  std::span<const std::string_view> values{};  // of an enumeration
  std::span<const Member> members{};           // of an object
  std::string_view tag{};                      // the member that chooses among `variants`
  std::span<const Variant> variants{};         // what else the object then has
  std::span<const Type* const> choices{};      // of an alternate: no two of one JSON type
  std::int64_t least = INT64_MIN;              // of an integer
  std::uint64_t most = INT64_MAX;
};

struct Member {
  std::string_view name;
  const Type* type = nullptr;
  std::string_view help{};
  bool optional = false;
};
struct Variant {
  std::string_view tag_value;
  const Type* type = nullptr;  // an object
};
inline constexpr bool kOptional = true;

inline constexpr Type kString{.kind = Type::Kind::kString, .name = "string"};
inline constexpr Type kInteger{.kind = Type::Kind::kInteger, .name = "integer"};
inline constexpr Type kUnsigned{
    .kind = Type::Kind::kInteger, .name = "unsigned integer", .least = 0, .most = UINT64_MAX};
inline constexpr Type kBoolean{.kind = Type::Kind::kBoolean, .name = "boolean"};
inline constexpr Type kNumber{.kind = Type::Kind::kNumber, .name = "number"};
inline constexpr Type kAny{.kind = Type::Kind::kAny, .name = "any"};
inline constexpr Type kNothing{.kind = Type::Kind::kObject, .name = "nothing"};
inline constexpr Type kStrings{.kind = Type::Kind::kArray, .name = "array of string", .element = &kString};

constexpr Type ObjectType(std::string_view name, std::span<const Member> members) {
  return {.kind = Type::Kind::kObject, .name = name, .members = members};
}
constexpr Type EnumType(std::string_view name, std::span<const std::string_view> values) {
  return {.kind = Type::Kind::kEnum, .name = name, .values = values};
}
constexpr Type ArrayType(std::string_view name, const Type& element) {
  return {.kind = Type::Kind::kArray, .name = name, .element = &element};
}

// Whether `value` is of the type; the error names the parameter and what is wrong with it,
// in the words that QMP's clients know.
std::expected<void, std::string> CheckValue(const Json& value, const Type& type, const std::string& name);
// The same of a command's arguments.
std::expected<void, std::string> CheckArguments(const Json& arguments, const Type& type);

}  // namespace gyre::control
