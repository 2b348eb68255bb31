// gyre-bench-fleet COUNT AT_ONCE TIMEOUT -- PROGRAM ARGUMENT...: starts a VMM so often, so
// many at a time, and the next when one ends. The guest says hello and ends.
//
// Prints one line of JSON: nanoseconds from just before exec to wait4's return of each start,
// in the order of starting, and from the first to the last of all; the processes' CPU time; how
// many lines the guests said, which tells whether they ran; how often each exit status came.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <vector>

namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;
constexpr int kExecFailed = 127;
constexpr int kSignalled = -1;
constexpr int kPipeBytes = 1 << 20;  // what all guests say fits in, so nobody needs to read meanwhile

volatile std::sig_atomic_t late = 0;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::_Exit(2);
}

std::int64_t Now() {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

class Fleet {
 public:
  Fleet(std::size_t count, std::size_t at_once, char** program)
      : count_(count), at_once_(at_once), program_(program), ends_(count) {
    void* const shared = ::mmap(nullptr, count * sizeof(std::int64_t), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (shared == MAP_FAILED || ::pipe2(in_, O_CLOEXEC) != 0 || ::pipe2(out_, O_CLOEXEC | O_NONBLOCK) != 0 ||
        ::fcntl(out_[1], F_SETPIPE_SZ, kPipeBytes) < 0) {
      Die("set-up");
    }
    // The VMMs' side blocks as a pipe to a reader does.
    ::fcntl(out_[1], F_SETFL, 0);
    starts_ = static_cast<std::int64_t*>(shared);
  }

  void Run() {
    while (next_ < count_ || !running_.empty()) {
      if (late != 0) {
        KillAll();
        next_ = count_;
      }
      if (next_ < count_ && running_.size() < at_once_) {
        StartNext();
      } else {
        Reap();
      }
    }
  }

  void Report() {
    std::printf(R"({"starts_ns": [)");
    for (std::size_t i = 0; i < count_; ++i) {
      std::printf("%s%lld", i == 0 ? "" : ", ",
                  static_cast<long long>(ends_[i] == 0 ? -1 : ends_[i] - starts_[i]));
    }
    rusage usage = {};
    ::getrusage(RUSAGE_CHILDREN, &usage);
    const auto nanoseconds = [](const timeval& time) {
      return time.tv_sec * kNsPerSecond + time.tv_usec * 1000;
    };
    std::printf(R"(], "wall_ns": %lld, "cpu_ns": %lld, "lines": %zu, "timed_out": %s, "statuses": {)",
                static_cast<long long>(last_ - starts_[0]),
                static_cast<long long>(nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime)),
                CountLines(), late != 0 ? "true" : "false");
    const char* separator = "";
    for (const auto& [status, times] : statuses_) {
      std::printf(R"(%s"%d": %zu)", separator, status, times);
      separator = ", ";
    }
    std::puts("}}");
  }

 private:
  void StartNext() {
    const pid_t pid = ::fork();
    if (pid < 0) {
      Die("fork");
    }
    if (pid == 0) {
      ::dup2(in_[0], STDIN_FILENO);
      ::dup2(out_[1], STDOUT_FILENO);
      starts_[next_] = Now();
      ::execv(program_[0], program_);
      std::perror(program_[0]);
      std::_Exit(kExecFailed);
    }
    running_[pid] = next_++;
  }

  void Reap() {
    int status = 0;
    const pid_t pid = ::wait4(-1, &status, 0, nullptr);
    if (pid < 0 && errno == EINTR) {
      return;
    }
    const auto found = running_.find(pid);
    if (found == running_.end()) {
      Die("wait4");
    }
    last_ = ends_[found->second] = Now();
    ++statuses_[WIFEXITED(status) ? WEXITSTATUS(status) : kSignalled];
    running_.erase(found);
  }

  void KillAll() {
    for (const auto& [pid, index] : running_) {
      ::kill(pid, SIGKILL);
    }
  }

  std::size_t CountLines() const {
    std::size_t lines = 0;
    char bytes[4096];
    for (;;) {
      const ssize_t size = ::read(out_[0], bytes, sizeof(bytes));
      if (size <= 0) {
        return lines;
      }
      for (ssize_t i = 0; i < size; ++i) {
        lines += bytes[i] == '\n' ? 1 : 0;
      }
    }
  }

  std::size_t count_;
  std::size_t at_once_;
  char** program_;
  std::int64_t* starts_ = nullptr;  // shared with the children, which write them before exec
  std::vector<std::int64_t> ends_;
  std::size_t next_ = 0;
  std::map<pid_t, std::size_t> running_;
  std::map<int, std::size_t> statuses_;
  std::int64_t last_ = 0;
  int in_[2] = {};
  int out_[2] = {};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6 || std::strcmp(argv[4], "--") != 0) {
    std::fputs("usage: gyre-bench-fleet COUNT AT_ONCE TIMEOUT -- PROGRAM ARGUMENT...\n", stderr);
    return 2;
  }
  const auto number = [argv](int index) { return std::strtoul(argv[index], nullptr, 10); };
  struct sigaction action{};
  action.sa_handler = [](int) { late = 1; };
  ::sigaction(SIGALRM, &action, nullptr);
  Fleet fleet(number(1), number(2), argv + 5);
  ::alarm(static_cast<unsigned>(number(3)));
  fleet.Run();
  fleet.Report();
  return 0;
}
