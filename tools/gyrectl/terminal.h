// This process's terminal while bytes go through it: it is put back however that
// ends. One thread.
#pragma once

#include <termios.h>

#include <string_view>

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

// Waits where `fd` takes nothing; false with errno.
bool WriteAll(int fd, std::string_view text);

}  // namespace gyre::ctl
