// A session of the agent's in a process of its own, and the client that talks to it.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "tools/agent/session.h"
#include "tools/exec/link.h"

namespace gyre::exec {

// What came until the end of it.
struct Told {
  std::string out;
  std::string err;
  std::optional<ExitReport> end;
  std::optional<ErrorReport> error;
  std::uint32_t credit = 0;
  bool stdin_closed = false;
};

class SessionClient {
 public:
  static constexpr std::chrono::milliseconds kPatience{20'000};

  SessionClient() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::close(ends[0]);
      {
        Session(UniqueFd(ends[1])).Run();
      }
      ::_exit(0);
    }
    ::close(ends[1]);
    link_.emplace(UniqueFd(ends[0]), Side::kAgent);
  }
  SessionClient(const SessionClient&) = delete;
  SessionClient& operator=(const SessionClient&) = delete;
  ~SessionClient() {
    link_.reset();
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  pid_t pid() const { return pid_; }
  Link& link() { return *link_; }
  void HangUp() { link_.reset(); }
  void Start(const StartRequest& request) {
    link_->Put(FrameType::kHello, HelloPayload(kVersion));
    link_->Put(FrameType::kStart, ToPayload(request));
  }
  void Shell(const std::string& script) { Start({.words = {"sh", "-c", script}}); }
  void Signal(int signal) {
    link_->Put(FrameType::kSignal, NumberPayload(static_cast<std::uint32_t>(signal)));
  }
  // Keeps to the credit that it has; the rest goes during the waits.
  void Write(std::string_view bytes, bool end = true) {
    input_ += bytes;
    ends_input_ = end;
  }

  // Until the command's end or an error, or what `enough` says.
  template <typename Enough>
  const Told& WaitFor(Enough enough) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    bool there = true;
    while (there && !told_.end && !told_.error && !enough(told_)) {
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "nothing comes";
        break;
      }
      SendInput();
      link_->Send();
      pollfd entry = {.fd = link_->fd(), .events = link_->events(), .revents = 0};
      ::poll(&entry, 1, 50);
      there = link_->Receive();
      TakeFrames();
    }
    return told_;
  }
  const Told& Wait() {
    return WaitFor([](const Told&) { return false; });
  }
  const Told& WaitForOutput(const std::string& text) {
    return WaitFor([&text](const Told& told) { return told.out.contains(text); });
  }
  // Whether the session's process ends by itself, and well.
  bool Ends(std::chrono::milliseconds within = kPatience) {
    const auto deadline = std::chrono::steady_clock::now() + within;
    int status = 0;
    while (::waitpid(pid_, &status, WNOHANG) != pid_) {
      if (std::chrono::steady_clock::now() > deadline) {
        return false;
      }
      ::poll(nullptr, 0, 10);
    }
    pid_ = -1;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  // The time that the session's process has had of a CPU, in ticks.
  long CpuTicks() const {
    std::ifstream stat("/proc/" + std::to_string(pid_) + "/stat");
    const std::vector<std::string> words{std::istream_iterator<std::string>(stat), {}};
    return words.size() < 15 ? -1 : std::stol(words[13]) + std::stol(words[14]);
  }

 private:
  void SendInput() {
    while (!input_.empty() && told_.credit != 0 && link_->HasRoom()) {
      const std::size_t size = std::min({input_.size(), std::size_t{told_.credit}, kMostData});
      link_->Put(FrameType::kStdin, std::string_view(input_).substr(0, size));
      input_.erase(0, size);
      told_.credit -= static_cast<std::uint32_t>(size);
    }
    if (input_.empty() && ends_input_) {
      link_->Put(FrameType::kStdinEnd);
      ends_input_ = false;
    }
  }
  void TakeFrames() {
    for (auto frame = link_->Next(); frame && *frame; frame = link_->Next()) {
      const std::string_view payload = (*frame)->payload;
      switch ((*frame)->type) {
        case FrameType::kStdout:
          told_.out += payload;
          break;
        case FrameType::kStderr:
          told_.err += payload;
          break;
        case FrameType::kCredit:
          told_.credit += ParseCredit(payload).value();
          break;
        case FrameType::kStdinClosed:
          told_.stdin_closed = true;
          break;
        case FrameType::kExit:
          told_.end = ParseExit(payload).value();
          break;
        case FrameType::kError:
          told_.error = ParseError(payload).value();
          break;
        default:
          EXPECT_EQ((*frame)->type, FrameType::kHello);
      }
    }
  }

  pid_t pid_ = -1;
  std::optional<Link> link_;
  std::string input_;
  bool ends_input_ = false;
  Told told_;
};

}  // namespace gyre::exec
