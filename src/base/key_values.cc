#include "gyre/base/key_values.h"

#include "gyre/base/format.h"

namespace gyre {

Result<std::vector<KeyValue>> SplitKeyValues(std::string_view text) {
  std::vector<KeyValue> all;
  while (true) {
    const auto comma = text.find(',');
    const auto item = text.substr(0, comma);
    const auto equals = item.find('=');
    if (equals == std::string_view::npos) {
      return Fail(Error::Usage(format("'{}' is not of the form key=value", item)));
    }
    all.push_back({.key = item.substr(0, equals), .value = item.substr(equals + 1)});
    if (comma == std::string_view::npos) {
      return all;
    }
    text.remove_prefix(comma + 1);
  }
}

}  // namespace gyre
