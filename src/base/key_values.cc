#include "gyre/base/key_values.h"

#include "gyre/base/format.h"

namespace gyre {

Result<std::vector<KeyValue>> SplitKeyValues(std::string_view text,
                                             const std::function<bool(std::string_view)>& is_word) {
  std::vector<KeyValue> all;
  while (true) {
    const auto comma = text.find(',');
    const auto item = text.substr(0, comma);
    const auto equals = item.find('=');
    const bool alone = equals == std::string_view::npos;
    const auto key = item.substr(0, equals);
    if (alone != (is_word && is_word(key))) {
      return Fail(Error::Usage(alone ? format("'{}' is not of the form key=value", item)
                                     : format("'{}': '{}' has no value", item, key)));
    }
    all.push_back({.key = key, .value = alone ? std::string_view() : item.substr(equals + 1)});
    if (comma == std::string_view::npos) {
      return all;
    }
    text.remove_prefix(comma + 1);
  }
}

}  // namespace gyre
