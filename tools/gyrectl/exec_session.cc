#include "tools/gyrectl/exec_session.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <system_error>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/non_blocking.h"
#include "gyre/base/unique_fd.h"

namespace gyre::ctl {
namespace {

using exec::FrameType;
using exec::Link;

constexpr std::size_t kMostPending = std::size_t{64} << 10;  // of an output of ours, until the agent waits
constexpr std::size_t kMostTyped = std::size_t{64} << 10;
constexpr int kSignalled = 128;       // and the signal's number, as a shell says it
constexpr unsigned kMostUnheard = 2;  // signals; who sends a third means us
// A pipe that has room at all has it for so many, if nobody else writes there; a file has always.
constexpr std::size_t kPiece = 4096;

// A pipe or a terminal opened once more: another description, so that who shares ours is not changed.
UniqueFd OpenedAgain(int stream, mode_t mode) {
  const bool possible = S_ISFIFO(mode) || (S_ISCHR(mode) && ::isatty(stream) == 1);
  const std::string name = format("/proc/self/fd/{}", stream);
  return UniqueFd(possible ? ::open(name.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1);
}

pollfd Entry(bool wanted, int fd, short events) {
  return {.fd = wanted ? fd : -1, .events = events, .revents = 0};
}

}  // namespace

exec::WindowSize OwnWindowSize() {
  winsize size = {};
  for (const int fd : {STDOUT_FILENO, STDIN_FILENO}) {
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0) {
      break;
    }
  }
  return {.rows = size.ws_row, .columns = size.ws_col};
}

ExecSession::Output::Output(int stream) : fd(stream), most(kPiece) {
  struct stat status = {};
  if (::fstat(stream, &status) == 0) {
    own = OpenedAgain(stream, status.st_mode);
    most = own || S_ISREG(status.st_mode) ? kMostPending : kPiece;
  }
  fd = own ? own.get() : stream;
}

ExecSession::ExecSession(Link& link, bool on_terminal, Input input)
    : link_(link),
      on_terminal_(on_terminal),
      kind_(input),
      signals_{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH},
      outputs_{Output(STDOUT_FILENO), Output(STDERR_FILENO)} {
  if (on_terminal_) {  // it may be another than before we listened for that
    link_.Put(FrameType::kResize, exec::ToPayload(OwnWindowSize()));
  }
  if (kind_ == Input::kNone) {
    EndInput();
  }
}

Outcome<ExecSession::End> ExecSession::Run(const Deadline& deadline) {
  while (!failure_) {
    TakeFrames();
    if (end_ && outputs_[0].left() == 0 && outputs_[1].left() == 0) {
      return *std::move(end_);
    }
    if (failure_) {
      break;
    }
    if (deadline.passed()) {
      return Fail(Exit::kTimeout, "the time is up");
    }
    Poll(deadline);
  }
  return std::unexpected(*std::move(failure_));
}

void ExecSession::Poll(const Deadline& deadline) {
  sends_ = sends_ && link_.Send();  // whoever takes nothing may have said why
  const auto events = static_cast<short>((MayTake() ? POLLIN : 0) | (sends_ ? link_.events() & POLLOUT : 0));
  std::array<pollfd, 5> fds = {Entry(MayRead(), STDIN_FILENO, POLLIN), Entry(events != 0, link_.fd(), events),
                               Entry(true, signals_.fd(), POLLIN),
                               Entry(outputs_[0].left() != 0, outputs_[0].fd, POLLOUT),
                               Entry(outputs_[1].left() != 0, outputs_[1].fd, POLLOUT)};
  if (::poll(fds.data(), fds.size(), deadline.poll_ms()) <= 0) {
    return;
  }
  if (fds[2].revents != 0) {
    ServeSignals();
  }
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (fds[3 + i].revents != 0) {
      ServeOutput(outputs_[i]);
    }
  }
  if (fds[1].revents != 0) {
    ServeLink(fds[1].revents);
  }
  if (fds[0].revents != 0) {
    ServeInput();
  }
}

bool ExecSession::MayRead() const {
  return ours_open_ && (kind_ == Input::kKeys ||
                        (input_open_ && !end_ && input_.empty() && credit_ != 0 && link_.HasRoom()));
}

bool ExecSession::OutputsHaveRoom() const {
  return std::ranges::all_of(outputs_, [](const Output& output) { return output.left() < kMostPending; });
}

bool ExecSession::MayTake() const { return !peer_ended_ && !end_ && OutputsHaveRoom(); }

void ExecSession::ServeSignals() {
  while (const int signal = signals_.Next()) {
    // Beside what the streams may have put there, there is room for many.
    const bool room = sends_ && link_.pending() < 2 * Link::kMuch;
    if (signal == SIGWINCH) {
      if (on_terminal_ && room) {
        link_.Put(FrameType::kResize, exec::ToPayload(OwnWindowSize()));
      }
    } else if ((signal == SIGINT || signal == SIGTERM) && room && !end_ && unheard_ < kMostUnheard) {
      ++unheard_;
      link_.Put(FrameType::kSignal, exec::NumberPayload(static_cast<std::uint32_t>(signal)));
    } else {
      EndBy(signal);
    }
  }
}

// As if the signal had ended us: nothing more is written.
void ExecSession::EndBy(int signal) {
  for (Output& output : outputs_) {
    output.Clear();
  }
  end_ = kSignalled + signal;
}

void ExecSession::ServeInput() {
  std::array<char, exec::kMostData> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  const bool typed = kind_ == Input::kKeys;
  const std::size_t most = typed ? buffer.size() : std::min<std::size_t>(buffer.size(), credit_);
  const ssize_t got = ::read(STDIN_FILENO, buffer.data(), most);
  if (got < 0 && IsTransient(errno)) {
    return;
  }
  if (got <= 0) {
    EndInput();
    return;
  }
  const std::string_view bytes(buffer.data(), static_cast<std::size_t>(got));
  if (!typed) {
    input_ = bytes;
  } else {
    const auto taken = escape_.Take(bytes);
    input_ += input_open_ && input_.size() < kMostTyped ? taken.bytes : "";
    if (taken.help) {
      outputs_[1].pending += EscapeFilter::kHelp;
    }
    if (taken.ends) {
      Abort(Exit::kRefused, "you have left the command, and it ends");
    }
  }
  SendInput();
}

void ExecSession::EndInput() {
  ours_open_ = false;
  input_ended_ = std::exchange(input_open_, false);
  SendInput();
}

void ExecSession::SendInput() {
  while (!input_.empty() && credit_ != 0 && link_.HasRoom()) {
    const std::size_t size = std::min({input_.size(), std::size_t{credit_}, exec::kMostData});
    link_.Put(FrameType::kStdin, std::string_view(input_).substr(0, size));
    input_.erase(0, size);
    credit_ -= static_cast<std::uint32_t>(size);
  }
  if (input_.empty() && std::exchange(input_ended_, false)) {
    link_.Put(FrameType::kStdinEnd);
  }
}

void ExecSession::ServeOutput(Output& output) {
  pollfd entry = Entry(true, output.fd, POLLOUT);  // the other stream may be the same, and full by now
  if (::poll(&entry, 1, 0) <= 0) {
    return;
  }
  const ssize_t wrote =
      ::write(output.fd, output.pending.data() + output.written, std::min(output.left(), output.most));
  if (wrote > 0) {
    output.written += static_cast<std::size_t>(wrote);
    if (output.left() == 0 || output.written >= kMostPending) {
      output.pending.erase(0, std::exchange(output.written, 0));
    }
  } else if (wrote < 0 && errno == EPIPE) {
    EndBy(SIGPIPE);
  } else if (wrote < 0 && !IsTransient(errno)) {
    Abort(Exit::kRefused, format("{}: {}", &output == outputs_.data() ? "standard output" : "standard error",
                                 std::generic_category().message(errno)));
  }
}

void ExecSession::ServeLink(short events) {
  if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && MayTake()) {
    peer_ended_ = !link_.Receive();
  }
}

void ExecSession::TakeFrames() {
  while (!end_ && !failure_) {
    if (!OutputsHaveRoom()) {
      return;
    }
    const auto frame = link_.Next();
    if (frame && !*frame) {
      if (peer_ended_) {
        Abort(Exit::kBroken, "the VM has closed the connection before the command's end");
      }
      break;
    }
    const auto taken = frame ? Take(**frame) : std::unexpected(frame.error());
    if (!taken || !*taken) {
      Abort(Exit::kBroken, format("the agent breaks the rules: {}",
                                  taken ? "an unexpected frame" : taken.error().message()));
    }
  }
  SendInput();
}

Result<bool> ExecSession::Take(const exec::Frame& frame) {
  unheard_ = 0;
  switch (frame.type) {
    case FrameType::kStdout:
      outputs_[0].pending += frame.payload;
      return true;
    case FrameType::kStderr:
      outputs_[1].pending += frame.payload;
      return true;
    case FrameType::kCredit:
      return TakeCredit(TRY(exec::ParseCredit(frame.payload)));
    case FrameType::kStdinClosed:
      CloseInput();
      return true;
    case FrameType::kExit:
      return TakeEnd(TRY(exec::ParseExit(frame.payload)));
    case FrameType::kError:
      end_ = TRY(exec::ParseError(frame.payload));
      return true;
    default:
      return false;
  }
}

bool ExecSession::TakeCredit(std::uint32_t given) {
  credit_ += given;
  return credit_ <= exec::kMostCredit;
}

bool ExecSession::TakeEnd(const exec::ExitReport& report) {
  end_ = static_cast<int>(report.value) + (report.by_signal ? kSignalled : 0);
  return true;
}

void ExecSession::CloseInput() {
  input_open_ = false;
  input_ended_ = false;
  input_.clear();
  if (kind_ != Input::kOwn || ::isatty(STDIN_FILENO) == 1) {
    return;
  }
  if (const UniqueFd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC)); nothing) {
    ::dup2(nothing.get(), STDIN_FILENO);  // who writes to us is told in turn
  }
}

void ExecSession::Abort(Exit exit, std::string why) {
  failure_ = Failure{.exit = exit, .message = std::move(why)};
}

}  // namespace gyre::ctl
