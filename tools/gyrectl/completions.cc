// The shells' completion scripts, made from the table of subcommands.
#include "tools/gyrectl/completions.h"

#include "gyre/base/format.h"
#include "tools/gyrectl/command_line.h"

namespace gyre::ctl {
namespace {

std::string Joined(const std::vector<std::string_view>& words) {
  std::string text;
  for (const auto word : words) {
    text += text.empty() ? "" : " ";
    text += word;
  }
  return text;
}

std::string FlagsOf(const Subcommand& command) {
  std::string text;
  for (const Flag& flag : command.flags) {
    text += format("--{} ", flag.name);
    text += flag.letter == 0 ? "" : format("-{} ", flag.letter);
  }
  return text;
}

std::string GlobalFlags() {
  std::string text;
  for (const Flag& flag : GlobalOptions()) {
    text += format("--{} ", flag.name);
  }
  return text + "-s";
}

std::string Names() {
  std::vector<std::string_view> names;
  for (const Subcommand& command : Subcommands()) {
    names.emplace_back(command.name);
  }
  return Joined(names);
}

Values ValuesOf(const Subcommand& command) {
  return command.arguments.empty() ? Values::kAny : command.arguments.front().values;
}

// In single quotes, for a shell.
std::string Quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char byte : text) {
    quoted += byte == '\'' ? R"('\'')" : std::string(1, byte);
  }
  return quoted + "'";
}

std::string Bash() {
  std::string text = format(R"sh(# bash completion of gyrectl; made by `gyrectl completions bash`.
_gyrectl() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} word command= words=
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case " {} " in *" $word "*) command=$word ;; esac
  done
  case $previous in -s | --socket | --serial) COMPREPLY=($(compgen -f -- "$current")); return ;; esac
  case $command in
)sh",
                            Names());
  for (const Subcommand& command : Subcommands()) {
    const Values values = ValuesOf(command);
    const char* const files = values == Values::kFile ? "COMPREPLY=($(compgen -f -- \"$current\")); " : "";
    text += format("    {}) {}words='{}{}' ;;\n", command.name, files, FlagsOf(command),
                   Joined(KnownValues(values)));
  }
  return text + format(R"sh(    '') words="{} $(gyrectl list --names 2>/dev/null)" ;;
  esac
  case $current in -*) words="$words {}" ;; esac
  COMPREPLY+=($(compgen -W "$words" -- "$current"))
}}
complete -F _gyrectl gyrectl
)sh",
                       Names(), GlobalFlags());
}

std::string Zsh() {
  std::string text =
      "#compdef gyrectl\n# zsh completion of gyrectl; made by `gyrectl completions zsh`.\n"
      "_gyrectl() {\n  local word command=\n  local -a commands vms\n  commands=(\n";
  for (const Subcommand& command : Subcommands()) {
    text += format("    {}\n", Quoted(format("{}:{}", command.name, command.help)));
  }
  text += format(R"sh(  )
  for word in ${{words[2,CURRENT-1]}}; do
    case " {} " in *" $word "*) command=$word ;; esac
  done
  case ${{words[CURRENT-1]}} in -s | --socket | --serial) _files; return ;; esac
  if [[ ${{words[CURRENT]}} == -* ]]; then compadd -- {}; fi
  case $command in
)sh",
                 Names(), GlobalFlags());
  for (const Subcommand& command : Subcommands()) {
    const Values values = ValuesOf(command);
    const std::string words = FlagsOf(command) + Joined(KnownValues(values));
    text += format("    {}) {}{} ;;\n", command.name, words.empty() ? ":" : "compadd -- " + words,
                   values == Values::kFile ? "; _files" : "");
  }
  return text + R"sh(    '') vms=(${(f)"$(gyrectl list --names 2>/dev/null)"})
      compadd -a vms
      _describe command commands ;;
  esac
}
if [[ ${funcstack[1]} == _gyrectl ]]; then _gyrectl "$@"; else compdef _gyrectl gyrectl; fi
)sh";
}

std::string Fish() {
  std::string text =
      "# fish completion of gyrectl; made by `gyrectl completions fish`.\ncomplete -c gyrectl -f\n";
  const std::string none = format("-n {}", Quoted("not __fish_seen_subcommand_from " + Names()));
  text += format("complete -c gyrectl {} -a '(gyrectl list --names 2>/dev/null)' -d VM\n", none);
  for (const Flag& flag : GlobalOptions()) {
    text += format("complete -c gyrectl -l {}{} -d {}\n", flag.name, flag.value != nullptr ? " -r" : "",
                   Quoted(flag.help));
  }
  text += "complete -c gyrectl -s s -rF\n";
  for (const Subcommand& command : Subcommands()) {
    text += format("complete -c gyrectl {} -a {} -d {}\n", none, command.name, Quoted(command.help));
    const std::string seen = format("-n '__fish_seen_subcommand_from {}'", command.name);
    for (const Flag& flag : command.flags) {
      const std::string letter = flag.letter == 0 ? "" : format(" -s {}", flag.letter);
      text += format("complete -c gyrectl {} -l {}{}{} -d {}\n", seen, flag.name, letter,
                     flag.value != nullptr ? " -r" : "", Quoted(flag.help));
    }
    const Values values = ValuesOf(command);
    if (const auto words = Joined(KnownValues(values)); !words.empty()) {
      text += format("complete -c gyrectl {} -a {}\n", seen, Quoted(words));
    } else if (values == Values::kFile) {
      text += format("complete -c gyrectl {} -F\n", seen);
    }
  }
  return text;
}

}  // namespace

std::string CompletionScript(std::string_view shell) {
  if (shell == "bash") {
    return Bash();
  }
  return shell == "zsh" ? Zsh() : shell == "fish" ? Fish() : "";
}

Outcome<void> RunCompletions(Call& call) {
  const std::string script = CompletionScript(call.Value("SHELL"));
  if (script.empty()) {
    return Fail(Exit::kUsage, format("'{}' is not one of bash, zsh, fish", call.Value("SHELL")));
  }
  call.output.Print(script);
  return {};
}

}  // namespace gyre::ctl
