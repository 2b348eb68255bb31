// gyrectl's command line, made from the table of subcommands. Pure.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {

struct Invocation {
  const Subcommand* command = nullptr;
  std::map<std::string, std::string, std::less<>> values;
  Lists lists;
  std::string name;    // the VM's
  std::string socket;  // of -s
  bool json = false;
  double timeout = -1;  // seconds; negative: the subcommand's own
};

// What --help or --version print.
struct HelpText {
  std::string text;
};

// The options that stand before or after any subcommand.
const std::vector<Flag>& GlobalOptions();

// The words after the program's name. Every mistake is one kUsage, or kOwn.
Outcome<std::variant<Invocation, HelpText>> ParseCommandLine(std::vector<std::string> words);

// The deadline that an invocation asks for.
Deadline DeadlineOf(const Invocation& invocation);

}  // namespace gyre::ctl
