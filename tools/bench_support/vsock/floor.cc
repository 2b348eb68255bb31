// gyre-vsock-floor PATH send|receive|echo: the inner end of `tools/bench vsock` as a process of its own with
// a plain Unix socket: what the guest vsock_bench does to a connection, one after the other. It says "begin",
// and goes on until somebody ends it.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kAtOnce = 64 * std::size_t{1024};

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::_Exit(2);
}

int Listen(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(fd, 1024) != 0) {
    Die("gyre-vsock-floor: the socket");
  }
  return fd;
}

bool WriteAll(int fd, const char* bytes, std::size_t size) {
  while (size != 0) {
    const ssize_t sent = ::send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    bytes += sent;
    size -= static_cast<std::size_t>(sent);
  }
  return true;
}

void Serve(int fd, std::string_view operation, std::vector<char>& bytes) {
  if (operation == "send") {
    while (WriteAll(fd, bytes.data(), bytes.size())) {
    }
    return;
  }
  for (ssize_t got = 1; got > 0;) {
    got = ::recv(fd, bytes.data(), bytes.size(), 0);
    if (got > 0 && operation == "echo" && !WriteAll(fd, bytes.data(), static_cast<std::size_t>(got))) {
      return;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: gyre-vsock-floor PATH send|receive|echo\n", stderr);
    return 2;
  }
  const int listener = Listen(argv[1]);
  std::puts("begin");
  std::fflush(stdout);
  std::vector<char> bytes(kAtOnce, 'x');
  for (;;) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) {
      Die("gyre-vsock-floor: accept");
    }
    Serve(fd, argv[2], bytes);
    ::close(fd);
  }
}
