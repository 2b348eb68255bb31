// A program on a terminal of its own. One thread.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/unique_fd.h"

namespace gyre::ctl {

// Killed with the object.
class OnTerminal {
 public:
  static constexpr auto kPatience = std::chrono::seconds(20);

  explicit OnTerminal(std::vector<std::string> words) {
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (auto& word : words) {
      argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    int master = -1;
    pid_ = ::forkpty(&master, nullptr, nullptr, nullptr);
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    master_ = UniqueFd(master);
  }
  OnTerminal(const OnTerminal&) = delete;
  OnTerminal& operator=(const OnTerminal&) = delete;
  ~OnTerminal() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }

  void Type(std::string_view text) const {
    EXPECT_EQ(::write(master_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void Signal(int signal) const { ::kill(pid_, signal); }
  bool WaitFor(std::string_view text) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!shown_.contains(text) && std::chrono::steady_clock::now() < deadline) {
      Read(50);
    }
    return shown_.contains(text);
  }
  // As WaitFor, and then for `next` behind the last of it.
  bool WaitFor(std::string_view text, std::string_view next) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    const auto seen = [&] {
      const auto at = shown_.rfind(text);
      return at != std::string::npos && shown_.find(next, at) != std::string::npos;
    };
    while (!seen() && std::chrono::steady_clock::now() < deadline) {
      Read(50);
    }
    return seen();
  }
  // The exit status; -1 if it does not end or a signal ends it.
  int Wait() {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    int status = 0;
    while (::waitpid(pid_, &status, WNOHANG) != pid_) {
      if (std::chrono::steady_clock::now() > deadline) {
        return -1;
      }
      Read(20);
    }
    pid_ = -1;
    for (std::size_t before = SIZE_MAX; before != shown_.size();) {  // what it said last
      before = shown_.size();
      Read(20);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  bool raw() const {
    termios state = {};
    EXPECT_EQ(::tcgetattr(master_.get(), &state), 0);
    return (state.c_lflag & ICANON) == 0;
  }
  // Somebody reads keys: what is typed before, the terminal may still take for lines, and Ctrl-C throws it
  // away.
  bool AwaitRaw() const {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!raw() && std::chrono::steady_clock::now() < deadline) {
      ::poll(nullptr, 0, 1);
    }
    return raw();
  }
  void Resize(unsigned short rows, unsigned short columns) const {
    winsize size = {};
    size.ws_row = rows;
    size.ws_col = columns;
    EXPECT_EQ(::ioctl(master_.get(), TIOCSWINSZ, &size), 0);
  }
  const std::string& shown() const { return shown_; }
  void Forget() { shown_.clear(); }

 private:
  void Read(int ms) {
    pollfd entry = {.fd = master_.get(), .events = POLLIN, .revents = 0};
    std::array<char, 4096> buffer{};
    if (::poll(&entry, 1, ms) > 0) {
      const ssize_t got = ::read(master_.get(), buffer.data(), buffer.size());
      if (got > 0) {
        shown_.append(buffer.data(), static_cast<std::size_t>(got));
      } else {
        ::poll(nullptr, 0, ms);  // nobody at the other end now
      }
    }
  }
  pid_t pid_ = -1;
  UniqueFd master_;
  std::string shown_;
};

}  // namespace gyre::ctl
