// The shell's lines: words, completion, and QMP commands as KEY=VALUE. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tools/gyrectl/outcome.h"
#include "tools/gyrectl/wire.h"

namespace gyre::ctl {

// Words at spaces; '...' and "..." keep what is in them, a backslash the next character. {...}, and
// KEY= with {...} or [...], are taken as they stand up to the closing bracket.
Outcome<std::vector<std::string>> SplitWords(std::string_view line);

// NAME KEY=VALUE...: a value is JSON or Python's way to write that, where it can be read as such, else text.
// a.b=1 is a member of a member.
Outcome<Json> ArgumentsOf(const std::vector<std::string>& words);

struct Completion {
  std::string insert;                   // what to add at the cursor
  std::vector<std::string> candidates;  // to be shown, if there are several
};
// `line` up to the cursor; `commands`: the QMP commands.
Completion Complete(std::string_view line, const std::vector<std::string>& commands);

}  // namespace gyre::ctl
