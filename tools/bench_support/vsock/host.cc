// gyre-vsock-host WHERE receive|send|echo|connect MS PID: the outer end of `tools/bench vsock`, the same for
// every peer: what a connection, or one connection after the other, does in so many milliseconds, and what
// the threads of PID run meanwhile, as a line of JSON. WHERE is
//
//   plain:PATH     a Unix socket
//   line:PATH      one of a VMM, which wants to be told the port
//   vsock:CID      the kernel's own
//
// receive: reads; send: writes; echo: a byte there and back; connect: the same, each on a connection of its
// own. At the end it connects to the port that ends the guest.
#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../clock.h"
#include "../thread_times.h"

namespace gyre::bench {
namespace {

constexpr std::int64_t kWarmUp = 50 * kMillisecond;
constexpr unsigned kPort = 5000;
constexpr unsigned kEndPort = 5001;
constexpr std::size_t kAtOnce = 64 * std::size_t{1024};

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "gyre-vsock-host: %s: %s\n", what.c_str(), std::strerror(errno));
  std::_Exit(1);
}

// ---- Connections.

class Connection {
 public:
  explicit Connection(int fd) : fd_(fd) {
    constexpr timeval kPatience{.tv_sec = 5, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { ::close(fd_); }
  int fd() const { return fd_; }

  std::size_t Read(void* bytes, std::size_t size) const {
    const ssize_t got = ::recv(fd_, bytes, size, 0);
    if (got <= 0) {
      Die(got == 0 ? "the other end has gone" : "recv");
    }
    return static_cast<std::size_t>(got);
  }
  std::size_t Write(const void* bytes, std::size_t size) const {
    const ssize_t sent = ::send(fd_, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) {
      Die("send");
    }
    return static_cast<std::size_t>(sent);
  }
  void RoundTrip() const {
    char byte = 'x';
    Write(&byte, 1);
    Read(&byte, 1);
  }

 private:
  int fd_;
};

class Place {
 public:
  explicit Place(const std::string& where)
      : kind_(where.substr(0, where.find(':'))),
        name_(where.substr(std::min(where.size(), kind_.size() + 1))) {}
  bool known() const { return kind_ == "plain" || kind_ == "line" || kind_ == "vsock"; }
  bool has_ports() const { return kind_ != "plain"; }

  // A descriptor, or -1.
  int Connect(unsigned port) const {
    const int fd = kind_ == "vsock" ? ConnectVsock(port) : ConnectUnix();
    if (fd >= 0 && kind_ == "line") {
      SayPort(fd, port);
    }
    return fd;
  }

 private:
  int ConnectUnix() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, name_.c_str(), sizeof(address.sun_path) - 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      Die(name_);
    }
    return fd;
  }
  int ConnectVsock(unsigned port) const {
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = static_cast<unsigned>(std::strtoul(name_.c_str(), nullptr, 10));
    address.svm_port = port;
    const int fd = ::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      Die("vsock");
    }
    // The guest answers nobody who asks for its end.
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 && port == kPort) {
      Die("vsock");
    }
    return fd;
  }
  static void SayPort(int fd, unsigned port) {
    const std::string line = "CONNECT " + std::to_string(port) + "\n";
    if (::send(fd, line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
      Die("CONNECT");
    }
    // The answer ends with a newline and has nothing behind it but what the guest sends: a byte at a time.
    for (char letter = 0; port == kPort && letter != '\n';) {
      if (::recv(fd, &letter, 1, 0) != 1) {
        Die("no answer to CONNECT");
      }
    }
  }
  std::string kind_;
  std::string name_;
};

// ---- What is measured.

struct Result {
  std::uint64_t count = 0;  // bytes, round trips, connections
  std::int64_t time = 0;
  std::string threads;
  std::int64_t p50 = 0;
  std::int64_t p99 = 0;
};

class Measurement {
 public:
  Measurement(std::int64_t time, pid_t pid) : time_(time), pid_(pid) {}
  // `turn` gives what it has counted.
  template <typename Turn>
  Result Run(bool latencies, const Turn& turn) {
    for (const std::int64_t end = NowNs() + kWarmUp; NowNs() < end;) {
      turn();
    }
    Result result;
    const ThreadTimes before = ReadThreadTimes(pid_);
    const std::int64_t start = NowNs();
    std::int64_t now = start;
    while (now - start < time_) {
      result.count += turn();
      const std::int64_t then = NowNs();
      if (latencies) {
        samples_.push_back(then - now);
      }
      now = then;
    }
    result.time = now - start;
    result.threads = TimesSince(before, ReadThreadTimes(pid_));
    std::ranges::sort(samples_);
    if (!samples_.empty()) {
      result.p50 = samples_[samples_.size() / 2];
      result.p99 = samples_[samples_.size() * 99 / 100];
    }
    return result;
  }

 private:
  std::int64_t time_;
  pid_t pid_;
  std::vector<std::int64_t> samples_;
};

Result Measure(const Place& place, const std::string& operation, Measurement measurement) {
  if (operation == "connect") {
    return measurement.Run(true, [&] {
      Connection(place.Connect(kPort)).RoundTrip();
      return std::size_t{1};
    });
  }
  const Connection connection(place.Connect(kPort));
  std::vector<char> bytes(kAtOnce, 'x');
  if (operation == "receive") {
    return measurement.Run(false, [&] { return connection.Read(bytes.data(), bytes.size()); });
  }
  if (operation == "send") {
    return measurement.Run(false, [&] { return connection.Write(bytes.data(), bytes.size()); });
  }
  return measurement.Run(true, [&] {
    connection.RoundTrip();
    return std::size_t{1};
  });
}

int Main(const std::vector<std::string>& words) {
  static constexpr std::array kOperations = {"receive", "send", "echo", "connect"};
  const Place place(words.empty() ? "" : words[0]);
  if (words.size() != 4 || !place.known() || std::ranges::find(kOperations, words[1]) == kOperations.end()) {
    std::fputs("usage: gyre-vsock-host plain:PATH|line:PATH|vsock:CID receive|send|echo|connect MS PID\n",
               stderr);
    return 2;
  }
  const std::int64_t time = std::strtol(words[2].c_str(), nullptr, 10) * kMillisecond;
  const auto pid = static_cast<pid_t>(std::strtol(words[3].c_str(), nullptr, 10));
  const Result result = Measure(place, words[1], Measurement(time, pid));
  std::printf("{\"count\": %" PRIu64 ", \"ns\": %" PRId64 ", \"p50\": %" PRId64 ", \"p99\": %" PRId64
              ", \"threads\": %s}\n",
              result.count, result.time, result.p50, result.p99, result.threads.c_str());
  if (place.has_ports()) {
    ::close(place.Connect(kEndPort));
  }
  return 0;
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) { return gyre::bench::Main({argv + 1, argv + argc}); }
