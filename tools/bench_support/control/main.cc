// A QMP client that measures: gyre-control-bench SOCKET ROUNDS; or --ready PROGRAM ARGUMENT...: the time from
// exec to READY=1 as a service manager gets it. Prints lines "name value".
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kQuery = "{\"execute\": \"query-status\"}\n";
// An event each, which no server limits in their rate, and which ours and QEMU's guest do nothing about.
constexpr std::string_view kPowerdown = "{\"execute\": \"system_powerdown\"}\n";
constexpr int kReadyMs = 10'000;

class Client {
 public:
  explicit Client(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(&address.sun_path[0], path.data(), std::min(path.size(), sizeof(address.sun_path) - 1));
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      Die("connect");
    }
    Lines(1);
    Put("{\"execute\": \"qmp_capabilities\"}\n");
    Lines(1);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { ::close(fd_); }

  void Put(std::string_view text) const {
    if (::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
      Die("send");
    }
  }
  // Reads until so many lines have come.
  void Lines(std::size_t count) {
    std::array<char, 65536> bytes;  // NOLINT
    while (count != 0) {
      const ssize_t got = ::recv(fd_, bytes.data(), bytes.size(), 0);
      if (got <= 0) {
        Die("recv");
      }
      const auto lines = std::count(bytes.begin(), bytes.begin() + got, '\n');
      count -= std::min(count, static_cast<std::size_t>(lines));
    }
  }

 private:
  [[noreturn]] static void Die(const char* what) {
    std::perror(what);
    std::exit(1);  // NOLINT(concurrency-mt-unsafe)
  }
  int fd_;
};

double Us(Clock::duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

void RoundTrips(Client& client, std::size_t rounds) {
  std::vector<double> times;
  for (std::size_t i = 0; i < rounds; ++i) {
    const auto start = Clock::now();
    client.Put(kQuery);
    client.Lines(1);
    times.push_back(Us(Clock::now() - start));
  }
  std::ranges::sort(times);
  std::printf("p50_us %.1f\np99_us %.1f\n", times[times.size() / 2], times[times.size() * 99 / 100]);
}

void Pipelined(Client& client, std::size_t rounds) {
  constexpr std::size_t kBatch = 50;
  std::string batch;
  for (std::size_t i = 0; i < kBatch; ++i) {
    batch += kQuery;
  }
  const auto start = Clock::now();
  for (std::size_t i = 0; i < rounds; ++i) {
    client.Put(batch);
    client.Lines(kBatch);
  }
  std::printf("commands_per_s %.0f\n", static_cast<double>(rounds * kBatch) * 1e6 / Us(Clock::now() - start));
}

// QEMU's sockets take one client each: SOCKET.0, SOCKET.1, ... One asks, and goes on when its own event has
// come; all the others get theirs. Until everybody has all.
void Events(const std::string& socket, std::size_t clients, std::size_t rounds) {
  std::vector<std::unique_ptr<Client>> all;
  for (std::size_t i = 0; i < clients; ++i) {
    const std::string own = socket + "." + std::to_string(i);
    all.push_back(std::make_unique<Client>(::access(own.c_str(), F_OK) == 0 ? own : socket));
  }
  const auto start = Clock::now();
  for (std::size_t i = 0; i < rounds; ++i) {
    all.front()->Put(kPowerdown);
    all.front()->Lines(2);  // the reply and the event
    if (i % 100 == 99 || i + 1 == rounds) {
      for (std::size_t other = 1; other < clients; ++other) {
        all[other]->Lines((i % 100) + 1);
      }
    }
  }
  std::printf("events_per_s_%zu %.0f\n", clients,
              static_cast<double>(rounds * clients) * 1e6 / Us(Clock::now() - start));
}

void Ready(char** program) {
  const int manager = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socklen_t size = sizeof(address);
  if (manager < 0 || ::bind(manager, reinterpret_cast<const sockaddr*>(&address), sizeof(sa_family_t)) != 0 ||
      ::getsockname(manager, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::perror("NOTIFY_SOCKET");
    std::exit(1);  // NOLINT(concurrency-mt-unsafe)
  }
  const std::string name(&address.sun_path[1], size - offsetof(sockaddr_un, sun_path) - 1);
  ::setenv("NOTIFY_SOCKET", ("@" + name).c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
  auto* const started = static_cast<volatile std::int64_t*>(
      ::mmap(nullptr, sizeof(std::int64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t child = ::fork();
  if (child == 0) {
    *started = Clock::now().time_since_epoch().count();
    ::execv(program[0], program);
    std::_Exit(127);
  }
  double us = -1;
  pollfd entry{.fd = manager, .events = POLLIN, .revents = 0};
  while (us < 0 && ::poll(&entry, 1, kReadyMs) == 1) {
    std::array<char, 4096> text{};
    const ssize_t got = ::recv(manager, text.data(), text.size(), 0);
    if (got > 0 && std::string_view(text.data(), static_cast<std::size_t>(got)).contains("READY=1")) {
      us = Us(Clock::now().time_since_epoch() - Clock::duration(*started));
    }
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  std::printf("ready_us %.0f\n", us);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[1], "--ready") == 0) {
    Ready(argv + 2);
    return 0;
  }
  if (argc == 5 && std::strcmp(argv[1], "--events") == 0) {
    Events(argv[2], std::stoul(argv[3]), std::stoul(argv[4]));
    return 0;
  }
  if (argc != 3) {
    std::fprintf(
        stderr,
        "usage: gyre-control-bench SOCKET ROUNDS | --events SOCKET CLIENTS ROUNDS | --ready PROGRAM...\n");
    return 2;
  }
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::size_t rounds = std::stoul(arguments[1]);
  Client client(arguments[0]);
  RoundTrips(client, rounds);
  Pipelined(client, std::max<std::size_t>(rounds / 50, 1));
  return 0;
}
