// Every command of the table, with every one of its arguments missing, of another type, and beside one that
// it does not know: refused before it runs.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "src/control/command.h"
#include "src/control/type.h"

namespace gyre::control {
namespace {

Json ObjectOf(const Type& type);

// Some value of that type.
Json ValueOf(const Type& type) {
  switch (type.kind) {
    case Type::Kind::kString:
      return "x";
    case Type::Kind::kInteger:
      return std::max<std::int64_t>(type.least, 1);
    case Type::Kind::kNumber:
      return 1.5;
    case Type::Kind::kBoolean:
      return true;
    case Type::Kind::kNull:
    case Type::Kind::kAny:
      return nullptr;
    case Type::Kind::kEnum:
      return type.values.front();
    case Type::Kind::kArray:
      return Json::array({ValueOf(*type.element)});
    case Type::Kind::kAlternate:
      return ValueOf(*type.choices.front());
    case Type::Kind::kObject:
      return ObjectOf(type);
  }
  return nullptr;
}

// With what it must have.
Json ObjectOf(const Type& type) {
  Json object = Json::object();
  for (const Member& member : type.members) {
    if (!member.optional) {
      object[std::string(member.name)] = ValueOf(*member.type);
    }
  }
  if (!type.variants.empty()) {
    const Variant& variant = type.variants.front();
    object[std::string(type.tag)] = variant.tag_value;
    object.update(ObjectOf(*variant.type));
  }
  return object;
}

// Of a kind that `type` is not.
Json WrongFor(const Type& type) {
  const bool takes_objects =
      type.kind == Type::Kind::kObject ||
      (type.kind == Type::Kind::kAlternate &&
       std::ranges::any_of(type.choices, [](const Type* each) { return each->kind == Type::Kind::kObject; }));
  return takes_objects ? Json(true) : Json::object();
}

class EachCommand : public testing::TestWithParam<const Command*> {
 protected:
  const Type& type() const { return *GetParam()->arguments; }
  Json Good() const { return ObjectOf(type()); }
  std::string Refusal(const Json& arguments) const {
    const auto checked = CheckArguments(arguments, type());
    return checked ? "" : checked.error();
  }
};

TEST_P(EachCommand, TakesWhatItMustHave) { EXPECT_EQ(Refusal(Good()), "") << Good(); }

TEST_P(EachCommand, MissesEachArgumentThatMustBeThere) {
  for (const Member& member : type().members) {
    if (!member.optional) {
      Json arguments = Good();
      arguments.erase(std::string(member.name));
      EXPECT_NE(Refusal(arguments).find(member.name), std::string::npos) << member.name << Refusal(arguments);
    }
  }
}

TEST_P(EachCommand, RefusesEachArgumentOfAnotherType) {
  for (const Member& member : type().members) {
    if (member.type->kind != Type::Kind::kAny) {
      Json arguments = Good();
      arguments[std::string(member.name)] = WrongFor(*member.type);
      EXPECT_NE(Refusal(arguments).find(member.name), std::string::npos) << member.name << Refusal(arguments);
    }
  }
}

TEST_P(EachCommand, RefusesAnArgumentThatItDoesNotKnow) {
  Json arguments = Good();
  arguments["nonsense"] = 1;
  EXPECT_NE(Refusal(arguments).find("nonsense"), std::string::npos) << Refusal(arguments);
}

TEST_P(EachCommand, RefusesValuesOutsideOfAnEnumeration) {
  for (const Member& member : type().members) {
    if (member.type->kind == Type::Kind::kEnum) {
      Json arguments = Good();
      arguments[std::string(member.name)] = "no such value";
      EXPECT_NE(Refusal(arguments), "") << member.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, EachCommand, testing::ValuesIn(AllCommands().begin(), AllCommands().end()),
                         [](const auto& made) {
                           std::string name(made.param->name);
                           std::ranges::replace_if(
                               name, [](char byte) { return byte == '-' || byte == '_'; }, 'X');
                           return name;
                         });

}  // namespace
}  // namespace gyre::control
