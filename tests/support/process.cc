#include "tests/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gyre/base/format.h"

namespace gyre::test {
namespace {

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

Result<Pipe> NewPipe() {
  std::array<int, 2> fds{};
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) {
    return Fail(Error::Sys("pipe2", errno));
  }
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void MakeNonBlocking(const UniqueFd& fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK);
}

// In the child, between fork and exec: system calls only.
[[noreturn]] void Exec(char* const* argv, int in, int out, int err, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  if (::getppid() == parent && ::dup2(in, 0) == 0 && ::dup2(out, 1) == 1 && ::dup2(err, 2) == 2) {
    ::execvp(argv[0], argv);
  }
  const char* const reason = ::strerrordesc_np(errno);
  const std::string_view text = reason != nullptr ? reason : "exec failed";
  [[maybe_unused]] const auto written = ::write(err, text.data(), text.size());
  ::_exit(127);
}

std::size_t Count(const std::string& text, std::string_view part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

std::string_view Tail(std::string_view text) {
  constexpr std::size_t kMost = 4000;
  return text.size() > kMost ? text.substr(text.size() - kMost) : text;
}

}  // namespace

std::string ProcessResult::Describe() const {
  std::string how = timed_out ? "killed: its time was up" : format("signal {}", signal);
  if (exit_status) {
    how = format("exit status {}", *exit_status);
  }
  return format("{} after {} ms\n--- stdout\n{}\n--- stderr\n{}\n---", how,
                std::chrono::duration_cast<std::chrono::milliseconds>(duration).count(), Tail(out),
                Tail(err));
}

Result<Process> Process::Start(std::vector<std::string> argv) {
  Pipe in = TRY(NewPipe());
  Pipe out = TRY(NewPipe());
  Pipe err = TRY(NewPipe());
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (auto& argument : argv) {
    arguments.push_back(argument.data());
  }
  arguments.push_back(nullptr);

  Process process;
  process.started_ = Clock::now();
  const pid_t parent = ::getpid();
  process.pid_ = ::fork();
  if (process.pid_ < 0) {
    return Fail(Error::Sys("fork", errno));
  }
  if (process.pid_ == 0) {
    Exec(arguments.data(), in.read.get(), out.write.get(), err.write.get(), parent);
  }
  process.pidfd_ = UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid_, 0)));
  if (!process.pidfd_) {
    return Fail(Error::Sys("pidfd_open", errno));
  }
  process.in_ = std::move(in.write);
  process.out_ = std::move(out.read);
  process.err_ = std::move(err.read);
  MakeNonBlocking(process.in_);
  MakeNonBlocking(process.out_);
  MakeNonBlocking(process.err_);
  return process;
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pidfd_(std::move(other.pidfd_)),
      in_(std::move(other.in_)),
      out_(std::move(other.out_)),
      err_(std::move(other.err_)),
      pending_(std::move(other.pending_)),
      close_input_(other.close_input_),
      reaped_(other.reaped_),
      started_(other.started_),
      result_(std::move(other.result_)) {}

Process::~Process() {
  if (pid_ > 0 && !reaped_) {
    // Our unreaped child: the number cannot have become another's.
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

void Process::Signal(int signal) {
  if (!reaped_) {
    ::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
  }
}

void Process::WriteSome() {
  // A reader that is gone is an error here, not our death.
  struct sigaction ignore{};
  struct sigaction before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &before);
  const auto written = ::write(in_.get(), pending_.data(), pending_.size());
  const int error = errno;
  ::sigaction(SIGPIPE, &before, nullptr);
  if (written >= 0) {
    pending_.erase(0, static_cast<std::size_t>(written));
  } else if (error != EAGAIN && error != EINTR) {
    in_.Reset();
  }
}

void Process::ReadSome(UniqueFd& fd, std::string& text) {
  std::array<char, 16384> buffer;
  const auto size = ::read(fd.get(), buffer.data(), buffer.size());
  if (size > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(size));
  } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
    fd.Reset();
  }
}

void Process::Reap() {
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) {
    return;
  }
  reaped_ = true;
  result_.duration = Clock::now() - started_;
  if (WIFEXITED(status)) {
    result_.exit_status = WEXITSTATUS(status);
  } else {
    result_.signal = WTERMSIG(status);
  }
}

bool Process::Step(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  if (left <= 0) {
    return false;
  }
  if (close_input_ && pending_.empty()) {
    in_.Reset();
  }
  // poll() passes over negative descriptors.
  std::array<pollfd, 4> fds = {pollfd{reaped_ ? -1 : pidfd_.get(), POLLIN, 0}, pollfd{out_.get(), POLLIN, 0},
                               pollfd{err_.get(), POLLIN, 0},
                               pollfd{pending_.empty() ? -1 : in_.get(), POLLOUT, 0}};
  const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(std::min<long>(left, 60'000)));
  if (ready <= 0) {
    return ready == 0 ? Clock::now() < deadline : errno == EINTR;
  }
  if (fds[1].revents != 0) {
    ReadSome(out_, result_.out);
  }
  if (fds[2].revents != 0) {
    ReadSome(err_, result_.err);
  }
  if (fds[3].revents != 0) {
    WriteSome();
  }
  if (fds[0].revents != 0) {
    Reap();
  }
  return true;
}

bool Process::WaitFor(const std::string& stream, std::string_view text, std::size_t count,
                      Duration patience) {
  const auto deadline = Clock::now() + patience;
  while (Count(stream, text) < count) {
    if (Finished() || !Step(deadline)) {
      return false;
    }
  }
  return true;
}

bool Process::WaitForOutputs(std::string_view text, std::size_t count, Duration patience) {
  return WaitFor(result_.out, text, count, patience);
}

bool Process::WaitForErrors(std::string_view text, std::size_t count, Duration patience) {
  return WaitFor(result_.err, text, count, patience);
}

bool Process::WaitForOutput(std::string_view text, Duration patience) {
  return WaitForOutputs(text, 1, patience);
}

bool Process::WaitForError(std::string_view text, Duration patience) {
  return WaitForErrors(text, 1, patience);
}

bool Process::StaysAlive(Duration time) {
  const auto deadline = Clock::now() + time;
  while (!reaped_ && Step(deadline)) {
  }
  return !reaped_;
}

ProcessResult Process::Wait(Duration patience) {
  auto deadline = Clock::now() + patience;
  while (!Finished()) {
    if (Step(deadline)) {
      continue;
    }
    if (result_.timed_out) {
      break;  // a grandchild holds the pipes
    }
    result_.timed_out = !reaped_;
    Signal(SIGKILL);
    deadline = Clock::now() + std::chrono::seconds(5);
    if (reaped_) {
      break;
    }
  }
  return std::move(result_);
}

ProcessResult RunProcess(std::vector<std::string> argv, std::string_view input, Process::Duration patience) {
  auto process = Process::Start(std::move(argv));
  if (!process) {
    ProcessResult failed;
    failed.err = process.error().message();
    return failed;
  }
  process->Write(input);
  process->CloseInput();
  return process->Wait(patience);
}

}  // namespace gyre::test
