// This process's terminal and signals while bytes go through it: both are put back
// however that ends. One thread.
#pragma once

#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <termios.h>

#include <initializer_list>
#include <string_view>

#include "gyre/base/unique_fd.h"

namespace gyre::ctl {

// Standard input as it is typed, if it is a terminal.
class RawTerminal {
 public:
  RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  ~RawTerminal();
  bool is_terminal() const { return terminal_; }

 private:
  termios before_{};
  bool terminal_;
};

// Signals that are for whoever reads them from fd() meanwhile; the shell has its own after that.
class TakenSignals {
 public:
  explicit TakenSignals(std::initializer_list<int> signals);
  TakenSignals(const TakenSignals&) = delete;
  TakenSignals& operator=(const TakenSignals&) = delete;
  ~TakenSignals();
  int fd() const { return fd_.get(); }
  // The next one that has come; 0: none.
  int Next() const;

 private:
  sigset_t before_{};
  UniqueFd fd_;
};

// Waits where `fd` takes nothing; false with errno.
bool WriteAll(int fd, std::string_view text);

}  // namespace gyre::ctl
