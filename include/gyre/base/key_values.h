// "key=value,key=value": how an option says several things. Pure. Any thread.
#pragma once

#include <string_view>
#include <vector>

#include "gyre/base/result.h"

namespace gyre {

struct KeyValue {
  std::string_view key;
  std::string_view value;  // all behind the first '='; has no comma
};

// In their order, pointing into `text`; at least one. What is known and what may come twice is the caller's
// to say. The error, of kind kUsage, names the part that has no '='.
Result<std::vector<KeyValue>> SplitKeyValues(std::string_view text);

}  // namespace gyre
