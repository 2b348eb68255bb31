#include "src/control/introspection.h"

#include <map>

#include "gyre/base/format.h"
#include "src/control/event_sender.h"

namespace gyre::control {
namespace {

class Schema {
 public:
  Json Take() { return std::move(entries_); }

  void AddCommand(const Command& command) {
    Json entry{{"name", command.name},
               {"meta-type", "command"},
               {"arg-type", NameOf(*command.arguments)},
               {"ret-type", NameOf(*command.result)}};
    if ((command.flags & Command::kAllowOob) != 0) {
      entry["allow-oob"] = true;
    }
    entries_.push_back(std::move(entry));
  }

  void AddEvent(const EventKind& event) {
    entries_.push_back({{"name", event.name}, {"meta-type", "event"}, {"arg-type", NameOf(*event.data)}});
  }

 private:
  // The type's name; its entry is made when it is first asked for.
  std::string NameOf(const Type& type) {  // NOLINT(misc-no-recursion): as deep as the types
    switch (type.kind) {
      case Type::Kind::kString:
        return Builtin("str", "string");
      case Type::Kind::kInteger:
        return Builtin("int", "int");
      case Type::Kind::kNumber:
        return Builtin("number", "number");
      case Type::Kind::kBoolean:
        return Builtin("bool", "boolean");
      case Type::Kind::kNull:
        return Builtin("null", "null");
      case Type::Kind::kAny:
        return Builtin("any", "value");
      case Type::Kind::kArray:
        return Array(*type.element);
      case Type::Kind::kEnum:
      case Type::Kind::kObject:
      case Type::Kind::kAlternate:
        break;
    }
    if (const auto known = names_.find(&type); known != names_.end()) {
      return known->second;
    }
    const std::string name = std::to_string(names_.size());
    names_[&type] = name;
    Json entry = type.kind == Type::Kind::kEnum     ? Enum(type)
                 : type.kind == Type::Kind::kObject ? Object(type)
                                                    : Alternate(type);
    entry["name"] = name;
    entries_.push_back(std::move(entry));
    return name;
  }

  std::string Builtin(const std::string& name, std::string_view json_type) {
    if (!known_.contains(name)) {
      known_[name] = true;
      entries_.push_back({{"name", name}, {"meta-type", "builtin"}, {"json-type", json_type}});
    }
    return name;
  }

  std::string Array(const Type& element) {  // NOLINT(misc-no-recursion)
    const std::string inner = NameOf(element);
    std::string name = "[" + inner + "]";
    if (!known_.contains(name)) {
      known_[name] = true;
      entries_.push_back({{"name", name}, {"meta-type", "array"}, {"element-type", inner}});
    }
    return name;
  }

  static Json Enum(const Type& type) {
    Json members = Json::array();
    Json values = Json::array();
    for (const auto value : type.values) {
      members.push_back({{"name", value}});
      values.push_back(value);
    }
    return {{"meta-type", "enum"}, {"members", std::move(members)}, {"values", std::move(values)}};
  }

  Json Object(const Type& type) {  // NOLINT(misc-no-recursion)
    Json members = Json::array();
    for (const auto& member : type.members) {
      Json entry{{"name", member.name}, {"type", NameOf(*member.type)}};
      if (member.optional) {
        entry["default"] = nullptr;
      }
      members.push_back(std::move(entry));
    }
    Json object{{"meta-type", "object"}, {"members", std::move(members)}};
    if (!type.tag.empty()) {
      object["tag"] = type.tag;
      object["variants"] = Json::array();
      for (const auto& variant : type.variants) {
        object["variants"].push_back({{"case", variant.tag_value}, {"type", NameOf(*variant.type)}});
      }
    }
    return object;
  }

  Json Alternate(const Type& type) {  // NOLINT(misc-no-recursion)
    Json members = Json::array();
    for (const Type* const choice : type.choices) {
      members.push_back({{"type", NameOf(*choice)}});
    }
    return {{"meta-type", "alternate"}, {"members", std::move(members)}};
  }

  Json entries_ = Json::array();
  std::map<const Type*, std::string> names_;
  std::map<std::string, bool> known_;
};

void WriteMembers(std::string& out, std::span<const Member> members, std::string_view title) {
  if (members.empty()) {
    return;
  }
  out += format("\n| {} | type | |\n| --- | --- | --- |\n", title);
  for (const auto& member : members) {
    std::string type(member.type->name);
    for (const auto value : member.type->values) {
      type += format("{}`{}`", value == member.type->values.front() ? ": " : ", ", value);
    }
    out += format("| `{}`{} | {} | {} |\n", member.name, member.optional ? " (optional)" : "", type,
                  member.help);
  }
}

// The run states' names, of which `in` or not.
std::vector<std::string_view> StateNames(const AllowedIn& allowed, bool in) {
  std::vector<std::string_view> names;
  for (unsigned i = 0; i < machine::kRunStates; ++i) {
    if (const auto state = static_cast<machine::RunState>(i); allowed.states.Has(state) == in) {
      names.push_back(machine::Name(state));
    }
  }
  return names;
}

// A sentence for each thing that is not so of every command.
std::string Restrictions(const Command& command) {
  std::string text;
  if ((command.flags & Command::kAllowOob) != 0) {
    text += " May be executed out of band.";
  }
  if (!command.allowed.Everywhere()) {
    const auto in = StateNames(command.allowed, true);
    const auto out = StateNames(command.allowed, false);
    const bool few = in.size() < out.size();
    text += few ? " Only in run state" : " Not in run state";
    for (const auto name : few ? in : out) {
      text += format("{} `{}`", name == (few ? in : out).front() ? "" : " or", name);
    }
    text += ".";
  }
  if ((command.flags & Command::kNotInDump) != 0) {
    text += " Refused while memory is being dumped.";
  }
  return text;
}

}  // namespace

std::vector<std::string_view> AllowedStates(const Command& command) {
  return StateNames(command.allowed, true);
}

Json DescribeSchema(std::span<const Command* const> commands) {
  Schema schema;
  for (const Command* const command : commands) {
    schema.AddCommand(*command);
  }
  for (const auto& event : AllEvents()) {
    schema.AddEvent(event);
  }
  return schema.Take();
}

std::string WriteReference(std::span<const Command* const> commands) {
  std::string out =
      "# The control socket\n\n"
      "`gyred --qmp unix:PATH` speaks QMP: one JSON object a line. This page is written by `gyred "
      "--qmp-reference`\n"
      "from the table that the commands are executed by.\n\n"
      "## Commands\n";
  for (const Command* const command : commands) {
    out += format("\n### {}\n\n{}{}\n", command->name, command->help, Restrictions(*command));
    WriteMembers(out, command->arguments->members, "argument");
    for (const auto& variant : command->arguments->variants) {
      WriteMembers(out, variant.type->members,
                   format("with {} `{}`", command->arguments->tag, variant.tag_value));
    }
    if (command->result != &kNothing) {
      const Type* const of = command->result->element != nullptr ? command->result->element : command->result;
      out += format("\nReturns: {}.\n", command->result->name);
      WriteMembers(out, of->members, "member");
    }
  }
  out += "\n## Events\n";
  for (const auto& event : AllEvents()) {
    out += format("\n### {}\n\n{}\n", event.name, event.help);
    WriteMembers(out, event.data->members, "data");
  }
  return out;
}

}  // namespace gyre::control
