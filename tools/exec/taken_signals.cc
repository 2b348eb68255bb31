#include "tools/exec/taken_signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

namespace gyre::exec {

TakenSignals::TakenSignals(std::initializer_list<int> signals) {
  sigset_t taken;
  sigemptyset(&taken);
  for (const int signal : signals) {
    struct sigaction action = {};
    ::sigaction(signal, nullptr, &action);
    if (action.sa_handler != SIG_IGN) {
      sigaddset(&taken, signal);
    }
  }
  ::sigprocmask(SIG_BLOCK, &taken, &before_);
  fd_ = UniqueFd(::signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK));
}

TakenSignals::~TakenSignals() {
  while (Next() != 0) {
  }
  ::sigprocmask(SIG_SETMASK, &before_, nullptr);
}

int TakenSignals::Next() const {
  signalfd_siginfo taken = {};
  return ::read(fd_.get(), &taken, sizeof(taken)) > 0 ? static_cast<int>(taken.ssi_signo) : 0;
}

}  // namespace gyre::exec
