// gyre-bench-run [--rss BYTES | --signal N] [--timeout SECONDS] -- PROGRAM ARGUMENT...: starts a VMM
// once and measures it from outside. A small static program of its own, because a
// fork out of an interpreter costs as much as what is measured and varies more.
//
// Prints one line of JSON: nanoseconds from just before exec to the first byte on the
// program's stdout and to its end, CPU time of the whole process (wait4), its exit
// status, and its output in hex. With --rss, for a guest that says one byte and waits,
// the line has the resident bytes of all mappings, but for those of at least BYTES,
// which are taken for guest memory: the most of two samples, at the first byte and
// when the program has settled. Then it is killed. With --signal, for such a guest, the
// line has the nanoseconds from that signal, sent when the program has settled, to the
// return of wait4, by when the kernel has closed its files and freed its memory.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;
constexpr int kExecFailed = 127;
constexpr timespec kSettled = {.tv_sec = 0, .tv_nsec = 100'000'000};

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::_Exit(2);
}

// What tools/bench reads. Not std::print: g++ 12 has none.
__attribute__((format(printf, 1, 2))) void Print(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
}

std::int64_t Now() {
  timespec now = {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

struct Options {
  std::uint64_t guest_bytes = 0;  // 0: measure time, not memory
  int signal = 0;                 // 0: let it end by itself
  std::int64_t timeout_ns = 20 * kNsPerSecond;
  char** program = nullptr;
};

struct Child {
  pid_t pid = -1;
  int pid_fd = -1;
  int output = -1;
  volatile std::int64_t* started = nullptr;  // shared page, written by the child before exec
};

struct Output {
  std::int64_t first_byte = 0;
  std::size_t size = 0;
  unsigned char bytes[64] = {};
};

// Its stdin is a pipe on which nothing comes and which does not end.
Child Start(char** program) {
  int in[2];
  int out[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) {
    Die("pipe");
  }
  void* const shared = ::mmap(nullptr, sizeof(std::int64_t), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (shared == MAP_FAILED) {
    Die("mmap");
  }
  Child child;
  child.started = static_cast<volatile std::int64_t*>(shared);
  child.output = out[0];
  child.pid = ::fork();
  if (child.pid < 0) {
    Die("fork");
  }
  if (child.pid == 0) {
    ::dup2(in[0], STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    *child.started = Now();
    ::execv(program[0], program);
    std::perror(program[0]);
    std::_Exit(kExecFailed);
  }
  ::close(out[1]);
  child.pid_fd = static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0));
  if (child.pid_fd < 0 || ::fcntl(child.output, F_SETFL, O_NONBLOCK) != 0) {
    Die("pidfd_open");
  }
  return child;
}

// False at the pipe's end.
bool Drain(const Child& child, Output& output) {
  unsigned char bytes[4096];
  for (;;) {
    const ssize_t count = ::read(child.output, bytes, sizeof(bytes));
    if (count <= 0) {
      return count < 0 && errno == EAGAIN;
    }
    if (output.first_byte == 0) {
      output.first_byte = Now();
    }
    const auto size = static_cast<std::size_t>(count);
    const std::size_t kept = std::min(output.size, sizeof(output.bytes));
    std::memcpy(output.bytes + kept, bytes, std::min(size, sizeof(output.bytes) - kept));
    output.size += size;
  }
}

int MillisecondsLeft(std::int64_t deadline) {
  return static_cast<int>(std::max<std::int64_t>(0, (deadline - Now()) / 1'000'000));
}

// Reads until the process has ended; one that does not is killed.
bool AwaitEnd(const Child& child, std::int64_t timeout_ns, Output& output) {
  const std::int64_t deadline = Now() + timeout_ns;
  pollfd fds[2] = {{.fd = child.output, .events = POLLIN, .revents = 0},
                   {.fd = child.pid_fd, .events = POLLIN, .revents = 0}};
  while (fds[1].revents == 0) {
    const int ready = ::poll(fds, 2, MillisecondsLeft(deadline));
    if (ready == 0) {
      ::kill(child.pid, SIGKILL);
      return false;
    }
    if (ready > 0 && fds[0].revents != 0 && !Drain(child, output)) {
      fds[0].fd = -1;
    }
  }
  return true;
}

void MeasureTime(const Options& options) {
  const Child child = Start(options.program);
  Output output;
  const bool ended = AwaitEnd(child, options.timeout_ns, output);
  int status = 0;
  rusage usage = {};
  if (::wait4(child.pid, &status, 0, &usage) != child.pid) {
    Die("wait4");
  }
  const std::int64_t end = Now();
  Drain(child, output);
  const auto nanoseconds = [](const timeval& time) {
    return time.tv_sec * kNsPerSecond + time.tv_usec * 1000;
  };
  Print(
      R"({"timed_out": %s, "first_byte_ns": %lld, "exit_ns": %lld, "cpu_ns": %lld, "status": %d, "signal": %d, "output": ")",
      ended ? "false" : "true",
      static_cast<long long>(output.first_byte == 0 ? -1 : output.first_byte - *child.started),
      static_cast<long long>(end - *child.started),
      static_cast<long long>(nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime)),
      WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  for (std::size_t i = 0; i < std::min(output.size, sizeof(output.bytes)); ++i) {
    Print("%02x", output.bytes[i]);
  }
  std::puts("\"}");
}

struct Resident {
  std::uint64_t own = 0;
  std::uint64_t guest = 0;
};

Resident ReadResident(pid_t pid, std::uint64_t guest_bytes) {
  char path[32];
  std::snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
  std::FILE* const file = std::fopen(path, "re");
  if (file == nullptr) {
    Die(path);
  }
  Resident resident;
  char line[4352];  // a path may be long
  std::uint64_t size = 0;
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    unsigned long long start = 0;
    unsigned long long end = 0;
    unsigned long long kib = 0;
    if (std::sscanf(line, "%llx-%llx ", &start, &end) == 2) {  // NOLINT(cert-err34-c): the kernel's text
      size = end - start;
    } else if (std::sscanf(line, "Rss: %llu kB", &kib) == 1) {  // NOLINT(cert-err34-c): the kernel's text
      (size >= guest_bytes ? resident.guest : resident.own) += kib * 1024;
    }
  }
  std::fclose(file);
  return resident;
}

void MeasureRelease(const Options& options) {
  const Child child = Start(options.program);
  Output output;
  pollfd fd = {.fd = child.output, .events = POLLIN, .revents = 0};
  if (::poll(&fd, 1, MillisecondsLeft(Now() + options.timeout_ns)) == 1) {
    Drain(child, output);
  }
  ::nanosleep(&kSettled, nullptr);
  const std::int64_t begin = Now();
  ::kill(child.pid, options.signal);
  const bool ended = AwaitEnd(child, options.timeout_ns, output);
  int status = 0;
  ::waitpid(child.pid, &status, 0);
  const std::int64_t end = Now();
  Print("{\"missed\": %s, \"timed_out\": %s, \"release_ns\": %lld, \"status\": %d, \"signal\": %d}\n",
        output.size == 0 ? "true" : "false", ended ? "false" : "true", static_cast<long long>(end - begin),
        WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

void MeasureMemory(const Options& options) {
  const Child child = Start(options.program);
  Output output;
  pollfd fd = {.fd = child.output, .events = POLLIN, .revents = 0};
  if (::poll(&fd, 1, MillisecondsLeft(Now() + options.timeout_ns)) == 1) {
    Drain(child, output);
  }
  const Resident first = output.size == 0 ? Resident{} : ReadResident(child.pid, options.guest_bytes);
  if (first.own == 0) {
    std::puts(R"({"missed": true})");  // said nothing, or has ended
  } else {
    ::nanosleep(&kSettled, nullptr);
    const Resident settled = ReadResident(child.pid, options.guest_bytes);
    Print("{\"missed\": false, \"own_bytes\": %llu, \"guest_bytes\": %llu}\n",
          static_cast<unsigned long long>(std::max(first.own, settled.own)),
          static_cast<unsigned long long>(std::max(first.guest, settled.guest)));
  }
  ::kill(child.pid, SIGKILL);
  ::waitpid(child.pid, nullptr, 0);
}

Options Parse(int argc, char** argv) {
  Options options;
  int i = 1;
  for (; i + 1 < argc && std::strcmp(argv[i], "--") != 0; i += 2) {
    const auto number = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--rss") == 0) {
      options.guest_bytes = number;
    } else if (std::strcmp(argv[i], "--signal") == 0) {
      options.signal = static_cast<int>(number);
    } else if (std::strcmp(argv[i], "--timeout") == 0) {
      options.timeout_ns = static_cast<std::int64_t>(number) * kNsPerSecond;
    } else {
      break;
    }
  }
  if (i + 1 < argc && std::strcmp(argv[i], "--") == 0) {
    options.program = argv + i + 1;
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  if (options.program == nullptr) {
    std::fputs(
        "usage: gyre-bench-run [--rss BYTES | --signal N] [--timeout SECONDS] -- PROGRAM ARGUMENT...\n",
        stderr);
    return 2;
  }
  if (options.guest_bytes != 0) {
    MeasureMemory(options);
  } else if (options.signal != 0) {
    MeasureRelease(options);
  } else {
    MeasureTime(options);
  }
  return 0;
}
