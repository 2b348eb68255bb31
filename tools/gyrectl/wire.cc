#include "tools/gyrectl/wire.h"

#include "gyre/base/format.h"
#include "tools/gyrectl/output.h"

namespace gyre::ctl {

Outcome<bool> MessageReader::Scan() {
  for (; at_ < buffer_.size(); ++at_) {
    const char byte = buffer_[at_];
    if (in_string_) {
      in_string_ = escaped_ || byte != '"';
      escaped_ = !escaped_ && byte == '\\';
    } else if (byte == '{' || byte == '[') {
      if (++depth_ > kMaxDepth) {
        return Fail(Exit::kBroken, format("the server's message is nested deeper than {}", kMaxDepth));
      }
    } else if (byte == '}' || byte == ']') {
      if (depth_ == 0) {
        return Fail(Exit::kBroken, "the server does not speak QMP");
      }
      if (--depth_ == 0) {
        ++at_;
        return true;
      }
    } else if (depth_ == 0) {
      const bool space = byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
      if (!space) {
        return Fail(Exit::kBroken, "the server does not speak QMP");
      }
    } else {
      in_string_ = byte == '"';
    }
  }
  return false;
}

Outcome<std::optional<Json>> MessageReader::Next() {
  const bool whole = TRY(Scan());
  if (at_ > kMaxMessage) {
    return Fail(Exit::kBroken, format("the server's message is longer than {} MiB", kMaxMessage >> 20));
  }
  if (!whole) {
    if (depth_ == 0) {
      buffer_.clear();
      at_ = 0;
    }
    return std::nullopt;
  }
  const auto first = buffer_.begin();
  Json message = Json::parse(first, first + static_cast<std::ptrdiff_t>(at_), nullptr, false);
  buffer_.erase(0, at_);
  at_ = 0;
  if (!message.is_object()) {
    return Fail(Exit::kBroken, "the server sent something that is no JSON object");
  }
  return message;
}

std::string ToText(const Json& json) { return json.dump(-1, ' ', true, Json::error_handler_t::replace); }

std::string ToReadable(const Json& json) {
  std::string text = json.is_string() ? Harmless(json.get<std::string>(), true)
                                      : json.dump(2, ' ', true, Json::error_handler_t::replace);
  return text.empty() || text.ends_with('\n') ? text : text + "\n";
}

const Json& MemberOf(const Json& object, const char* key) {
  static const Json null;
  if (!object.is_object()) {
    return null;
  }
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

std::string TextOf(const Json& object, const char* key, std::string_view fallback) {
  const Json& member = MemberOf(object, key);
  return member.is_string() ? member.get<std::string>() : std::string(fallback);
}

std::optional<std::int64_t> IntegerOf(const Json& object, const char* key) {
  const Json& member = MemberOf(object, key);
  return member.is_number_integer() ? std::optional(member.get<std::int64_t>()) : std::nullopt;
}

}  // namespace gyre::ctl
