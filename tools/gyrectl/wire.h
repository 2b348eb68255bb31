// QMP's byte stream, from a server that may be hostile: whole JSON objects are
// taken out of it, with bounds on their size and depth, before anything parses
// them. The server may put them on one line each or, as with QEMU's pretty=on, on
// several. Any thread; one owner.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "tools/gyrectl/outcome.h"

namespace gyre::ctl {

// Keys are sorted, and a look-up costs a logarithm whatever the server sends.
using Json = nlohmann::json;

inline constexpr std::size_t kMaxMessage = std::size_t{32} << 20;
inline constexpr unsigned kMaxDepth = 200;

class MessageReader {
 public:
  void Feed(std::string_view bytes) { buffer_ += bytes; }
  // The next whole object, or nothing yet. An error (kBroken) ends the stream.
  Outcome<std::optional<Json>> Next();

 private:
  // Goes on where it stopped; true at the end of an object.
  Outcome<bool> Scan();

  std::string buffer_;
  std::size_t at_ = 0;
  unsigned depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

// One line, ASCII; bytes that are no UTF-8 are replaced.
std::string ToText(const Json& json);
// For a person: a text is itself, made harmless for a terminal, with an end of line; else several lines.
std::string ToReadable(const Json& json);
// Members of an object of which nothing is known; the fallback if it is not there or not of that type.
std::string TextOf(const Json& object, const char* key, std::string_view fallback = {});
std::optional<std::int64_t> IntegerOf(const Json& object, const char* key);
const Json& MemberOf(const Json& object, const char* key);  // null if there is none

}  // namespace gyre::ctl
