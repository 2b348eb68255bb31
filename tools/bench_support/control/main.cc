// A QMP client that measures: gyre-control-bench SOCKET ROUNDS. Prints lines "name value".
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kQuery = "{\"execute\": \"query-status\"}\n";

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: gyre-control-bench SOCKET ROUNDS\n");
    return 2;
  }
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::size_t rounds = std::stoul(arguments[1]);
  Client client(arguments[0]);
  RoundTrips(client, rounds);
  Pipelined(client, std::max<std::size_t>(rounds / 50, 1));
  return 0;
}
