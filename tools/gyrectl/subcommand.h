// A subcommand of gyrectl as data: the parser, the help, the completions and the
// shell are made from the one table of them (subcommands.cc), which is the place
// to add one.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tools/gyrectl/client.h"
#include "tools/gyrectl/output.h"
#include "tools/gyrectl/runtime.h"

namespace gyre::ctl {

// kRest: all the words that follow, whatever they look like, as one text. kWords: the same, each for itself;
// they may stand behind "--".
enum class Values : std::uint8_t { kAny, kFile, kRunState, kLogLevel, kShell, kRest, kWords };

struct Argument {
  const char* name;  // as the help shows it: STATE
  const char* help;
  bool required = true;
  Values values = Values::kAny;
};

struct Flag {
  const char* name;   // without its dashes
  const char* value;  // as the help shows it; null: takes none
  const char* help;
  char letter = 0;       // its short form; 0: it has none
  bool repeats = false;  // its values are a list
};

using Lists = std::map<std::string, std::vector<std::string>, std::less<>>;

// What a subcommand's function gets.
struct Call {
  const Vm& vm;
  Client* client;  // null unless it needs one and, for kClientIfThere, there is one
  const Output& output;
  Deadline deadline;
  std::map<std::string, std::string, std::less<>> values;  // by the argument's or flag's name
  const Failure* absence = nullptr;                        // why there is no client, for kClientIfThere
  Lists lists = {};                                        // of kWords, and of flags that repeat
  int status = 0;                                          // the exit status of what has been done

  bool Has(std::string_view name) const { return values.contains(name); }
  std::string Value(std::string_view name) const {
    const auto found = values.find(name);
    return found == values.end() ? "" : found->second;
  }
  std::vector<std::string> List(std::string_view name) const {
    const auto found = lists.find(name);
    return found == lists.end() ? std::vector<std::string>() : found->second;
  }
};

struct Subcommand {
  enum class Needs : std::uint8_t { kNothing, kVm, kClient, kClientIfThere };
  // kPatient: no time limit unless one is asked for.
  enum class Patience : std::uint8_t { kBounded, kPatient };

  const char* name;
  const char* help;
  Outcome<void> (*run)(Call& call);
  std::vector<Argument> arguments = {};
  std::vector<Flag> flags = {};
  Needs needs = Needs::kClient;
  Patience patience = Patience::kBounded;
  bool has_status = false;  // of its own, so that our failures are Exit::kOwn
};

const std::vector<Subcommand>& Subcommands();
const Subcommand* FindSubcommand(std::string_view name);  // null: none
// The words that an argument can be, where they are known.
std::vector<std::string_view> KnownValues(Values values);

// The functions behind the table, by family.
Outcome<void> RunStatus(Call& call);  // life.cc
Outcome<void> RunStop(Call& call);
Outcome<void> RunCont(Call& call);
Outcome<void> RunReset(Call& call);
Outcome<void> RunPowerdown(Call& call);
Outcome<void> RunWakeup(Call& call);
Outcome<void> RunNmi(Call& call);
Outcome<void> RunQuit(Call& call);
Outcome<void> RunEvents(Call& call);  // watch.cc
Outcome<void> RunWait(Call& call);
Outcome<void> RunDisks(Call& call);  // disks.cc
Outcome<void> RunCpus(Call& call);   // query.cc
Outcome<void> RunMemory(Call& call);
Outcome<void> RunMtree(Call& call);
Outcome<void> RunMonitor(Call& call);
Outcome<void> RunStats(Call& call);
Outcome<void> RunLogLevel(Call& call);
Outcome<void> RunCommands(Call& call);
Outcome<void> RunRaw(Call& call);
Outcome<void> RunDump(Call& call);         // dump.cc
Outcome<void> RunConsole(Call& call);      // console.cc
Outcome<void> RunExec(Call& call);         // exec.cc
Outcome<void> RunShell(Call& call);        // shell.cc
Outcome<void> RunList(Call& call);         // list.cc
Outcome<void> RunCompletions(Call& call);  // completions.cc

// What several of them say: an event on one line, and a run state in its colour.
std::string EventLine(const Json& event);
std::string StateText(const Output& output, std::string_view state);
Outcome<std::string> QueryState(Client& client, const Deadline& deadline);
// Until the server hangs up; kTimeout at the deadline.
Outcome<void> WaitForEnd(Call& call);

}  // namespace gyre::ctl
