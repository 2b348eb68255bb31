// startup_order PROGRAM [ARGUMENT...]: steps through a program and its threads, one
// instruction at a time, and prints its functions in the order in which each was
// first executed: what a linker's --symbol-ordering-file wants, so that a start
// touches few pages. Symbols come from `nm` on standard input (address, type, name).
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

std::map<std::uint64_t, std::string> ReadSymbols() {
  std::map<std::uint64_t, std::string> symbols;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream fields(line);
    std::string address;
    std::string type;
    std::string name;
    if (fields >> address >> type >> name && std::string_view("TtWwi").contains(type[0])) {
      symbols.emplace(std::stoull(address, nullptr, 16), name);
    }
  }
  return symbols;
}

class Stepper {
 public:
  explicit Stepper(std::map<std::uint64_t, std::string> symbols) : symbols_(std::move(symbols)) {}

  void Run(pid_t pid) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
    ::ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr);
    for (pid_t stopped = 0; (stopped = ::waitpid(-1, &status, __WALL)) > 0;) {
      if (WIFSTOPPED(status)) {
        Note(stopped);
        const int signal = WSTOPSIG(status);
        const bool ours = signal == SIGTRAP || signal == SIGSTOP;
        ::ptrace(PTRACE_SINGLESTEP, stopped, nullptr, ours ? 0L : static_cast<long>(signal));
      }
    }
  }

 private:
  void Note(pid_t thread) {
    user_regs_struct registers{};
    if (::ptrace(PTRACE_GETREGS, thread, nullptr, &registers) != 0) {
      return;
    }
    auto next = symbols_.upper_bound(registers.rip);
    if (next == symbols_.begin()) {
      return;
    }
    const std::string& name = std::prev(next)->second;
    if (seen_.insert(name).second) {
      std::printf("%s\n", name.c_str());
    }
  }

  std::map<std::uint64_t, std::string> symbols_;
  std::set<std::string> seen_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: nm PROGRAM | startup_order PROGRAM [ARGUMENT...]\n");
    return 2;
  }
  Stepper stepper(ReadSymbols());
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(STDERR_FILENO, STDOUT_FILENO);
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::execv(argv[1], argv + 1);
    std::perror(argv[1]);
    ::_exit(127);
  }
  stepper.Run(pid);
  return 0;
}
