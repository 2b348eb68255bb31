// console: this terminal on the VM's serial port. The terminal is raw meanwhile
// and is put back however it ends.
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

#include "gyre/base/format.h"
#include "gyre/base/non_blocking.h"
#include "gyre/base/unique_fd.h"
#include "tools/exec/taken_signals.h"
#include "tools/gyrectl/escape.h"
#include "tools/gyrectl/serial.h"
#include "tools/gyrectl/subcommand.h"
#include "tools/gyrectl/terminal.h"

namespace gyre::ctl {
namespace {

constexpr std::size_t kMostPending = 65536;  // typed, and not yet taken by the guest

class Session {
 public:
  Session(int port, int signals, bool terminal) : port_(port), signals_(signals), terminal_(terminal) {}

  // Until the user, a signal or the other side ends it; says which.
  Outcome<std::string> Run(const Deadline& deadline) {
    while (end_.empty()) {
      // A person must be able to leave even if the guest takes nothing; a pipe can wait.
      const bool room = terminal_ || pending_.size() < kMostPending;
      std::array<pollfd, 3> fds = {
          pollfd{.fd = input_open_ && room ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0},
          pollfd{.fd = port_,
                 .events = static_cast<short>(pending_.empty() ? POLLIN : POLLIN | POLLOUT),
                 .revents = 0},
          pollfd{.fd = signals_, .events = POLLIN, .revents = 0}};
      ::poll(fds.data(), fds.size(), deadline.poll_ms());
      if (deadline.passed()) {
        return Fail(Exit::kTimeout, "the time is up");
      }
      if (fds[2].revents != 0) {
        end_ = "a signal";
      }
      if (fds[1].revents != 0) {
        ServePort();
      }
      if (fds[0].revents != 0) {
        ServeInput();
      }
    }
    return output_error_ == 0
               ? Outcome<std::string>(end_)
               : Fail(Exit::kRefused, "standard output: " + std::generic_category().message(output_error_));
  }

 private:
  void ServeInput() {
    std::array<char, 4096> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got <= 0) {
      input_open_ = got < 0 && IsTransient(errno);  // a pipe's end: what is to come is still shown
      return;
    }
    const auto typed = escape_.Take({buffer.data(), static_cast<std::size_t>(got)});
    pending_ += pending_.size() < kMostPending ? typed.bytes : "";
    if (typed.help) {
      WriteAll(STDOUT_FILENO, EscapeFilter::kHelp);
    }
    if (typed.ends) {
      end_ = "you";
    }
  }

  void ServePort() {
    if (!pending_.empty()) {
      const ssize_t wrote = ::write(port_, pending_.data(), pending_.size());
      if (wrote > 0) {
        pending_.erase(0, static_cast<std::size_t>(wrote));
      }
    }
    std::array<char, 16384> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    const ssize_t got = ::read(port_, buffer.data(), buffer.size());
    if (got > 0) {
      if (!WriteAll(STDOUT_FILENO, {buffer.data(), static_cast<std::size_t>(got)})) {
        output_error_ = errno == EPIPE ? 0 : errno;
        end_ = "the output's end";
      }
    } else if (got == 0 || !IsTransient(errno)) {
      end_ = "the VM";
    }
  }

  int port_;
  int signals_;
  bool terminal_;
  EscapeFilter escape_;
  std::string pending_;
  std::string end_;
  bool input_open_ = true;
  int output_error_ = 0;  // but for a reader that has gone
};

}  // namespace

Outcome<void> RunConsole(Call& call) {
  const UniqueFd port = TRY(OpenSerial(call));
  ::signal(SIGPIPE, SIG_IGN);
  const exec::TakenSignals signals{SIGTERM, SIGHUP, SIGINT, SIGQUIT};
  Outcome<std::string> end;
  bool terminal = false;
  {
    const RawTerminal raw;
    terminal = raw.is_terminal();
    if (terminal) {
      WriteAll(STDERR_FILENO, "connected; Ctrl-] . ends, Ctrl-] ? helps\r\n");
    }
    end = Session(port.get(), signals.fd(), terminal).Run(call.deadline);
  }
  if (terminal && end) {
    WriteAll(STDERR_FILENO, format("\ngyrectl: ended by {}\n", *end));
  }
  return end ? Outcome<void>() : std::unexpected(std::move(end).error());
}

}  // namespace gyre::ctl
