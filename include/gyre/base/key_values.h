// "key=value,key=value": how an option says several things. Pure. Any thread.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"

namespace gyre {

struct KeyValue {
  std::string_view key;
  std::string_view value;  // all behind the first '='; has no comma
};

// In their order, pointing into `text`; at least one. What is known and what may come twice is the caller's
// to say. A part that `is_word` stands alone, and has an empty value. The error, of kind kUsage, names the
// part that has no '=', or one too many.
Result<std::vector<KeyValue>> SplitKeyValues(std::string_view text,
                                             const std::function<bool(std::string_view)>& is_word = {});

}  // namespace gyre
