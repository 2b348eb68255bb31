// vsock_peer serve SIDE PORT: echoes what each connection says, until it is killed; who ends his half gets
// the rest and its end. vsock_peer drive SIDE PORT COUNT MIB: opens so many connections to such a one at a
// time, talks on each and ends each by halves, then sends so much by one and compares what comes back. SIDE
// is "guest" (AF_VSOCK, to the host) or the path of a VM's --vsock socket (to the guest, from the host).
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr std::size_t kPiece = 64 << 10;
constexpr int kPatienceMs = 60'000;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

struct Address {
  sockaddr_storage bytes{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&bytes); }
};

Address Vsock(unsigned cid, unsigned port) {
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = cid;
  address.svm_port = port;
  Address result{.size = sizeof(address)};
  std::memcpy(&result.bytes, &address, sizeof(address));
  return result;
}

Address Unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(&address.sun_path[0], sizeof(address.sun_path) - 1);
  Address result{.size = sizeof(address)};
  std::memcpy(&result.bytes, &address, sizeof(address));
  return result;
}

bool InGuest(const std::string& side) { return side == "guest"; }

int Socket(const std::string& side) {
  const int fd = ::socket(InGuest(side) ? AF_VSOCK : AF_UNIX, SOCK_STREAM, 0);
  return fd < 0 ? (Die("socket"), -1) : fd;
}

int Listen(const std::string& side, unsigned port) {
  const int fd = Socket(side);
  const Address address =
      InGuest(side) ? Vsock(VMADDR_CID_ANY, port) : Unix(side + "_" + std::to_string(port));
  if (::bind(fd, address.get(), address.size) != 0 || ::listen(fd, 64) != 0) {
    Die("listen");
  }
  return fd;
}

// As a client of the host's socket says it.
bool ShakeHands(int fd, unsigned port) {
  const std::string line = "CONNECT " + std::to_string(port) + "\n";
  std::string answer;
  char byte = 0;
  if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return false;
  }
  while (byte != '\n' && ::read(fd, &byte, 1) == 1) {
    answer += byte;
  }
  return answer.starts_with("OK ") && answer.ends_with('\n');
}

int Connect(const std::string& side, unsigned port) {
  const int fd = Socket(side);
  const Address address = InGuest(side) ? Vsock(VMADDR_CID_HOST, port) : Unix(side);
  if (::connect(fd, address.get(), address.size) != 0) {
    Die("connect");
  }
  if (!InGuest(side) && !ShakeHands(fd, port)) {
    Die("no OK from the guest");
  }
  return fd;
}

// --- serve

struct Echo {
  int fd = -1;
  std::vector<char> kept;
};

// False at its end.
bool Serve(Echo& echo) {
  if (echo.kept.empty()) {
    echo.kept.resize(kPiece);
    const ssize_t got = ::recv(echo.fd, echo.kept.data(), kPiece, MSG_DONTWAIT);
    echo.kept.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got <= 0) {
      return false;
    }
  }
  const ssize_t sent = ::send(echo.fd, echo.kept.data(), echo.kept.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  echo.kept.erase(echo.kept.begin(), echo.kept.begin() + std::max<ssize_t>(sent, 0));
  return true;
}

void ServeAll(int listener) {
  std::vector<Echo> echoes;
  for (;;) {
    std::vector<pollfd> waits = {{.fd = listener, .events = POLLIN, .revents = 0}};
    for (const Echo& echo : echoes) {
      waits.push_back(
          {.fd = echo.fd, .events = static_cast<short>(echo.kept.empty() ? POLLIN : POLLOUT), .revents = 0});
    }
    if (::poll(waits.data(), waits.size(), -1) < 0) {
      Die("poll");
    }
    for (std::size_t i = echoes.size(); i-- > 0;) {
      if (waits[i + 1].revents != 0 && !Serve(echoes[i])) {
        ::shutdown(echoes[i].fd, SHUT_WR);
        ::close(echoes[i].fd);
        echoes.erase(echoes.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    if (waits[0].revents != 0) {
      echoes.push_back({.fd = ::accept(listener, nullptr, nullptr), .kept = {}});
    }
  }
}

// --- drive

std::string ReadSome(int fd, std::size_t most) {
  pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
  if (::poll(&wait, 1, kPatienceMs) != 1) {
    Die("nothing comes");
  }
  std::string data(most, '\0');
  const ssize_t got = ::read(fd, data.data(), most);
  data.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return data;
}

// How many said what they were told, and ended once they were to.
unsigned TalkOnMany(const std::string& side, unsigned port, unsigned count) {
  std::vector<int> all;
  for (unsigned i = 0; i < count; ++i) {
    all.push_back(Connect(side, port));
  }
  unsigned good = 0;
  for (unsigned i = 0; i < count; ++i) {
    const std::string text = "connection " + std::to_string(i);
    if (::write(all[i], text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
        ::shutdown(all[i], SHUT_WR) != 0) {
      Die("write");
    }
  }
  for (unsigned i = 0; i < count; ++i) {
    std::string got;
    for (std::string part = ReadSome(all[i], 100); !part.empty(); part = ReadSome(all[i], 100)) {
      got += part;
    }
    good += got == "connection " + std::to_string(i) ? 1U : 0U;
    ::close(all[i]);
  }
  return good;
}

struct Sum {
  std::uint64_t value = 0xcbf2'9ce4'8422'2325;
  void Add(const char* bytes, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      value = (value ^ static_cast<std::uint8_t>(bytes[i])) * 0x100'0000'01b3;
    }
  }
};

void SendMuch(int fd, std::uint64_t size) {
  Sum sent;
  Sum got;
  std::uint64_t to_send = size;
  std::uint64_t received = 0;
  std::uint64_t state = 0x9e37'79b9'7f4a'7c15;
  std::vector<char> piece(kPiece);
  for (std::size_t start = kPiece;;) {
    pollfd wait{.fd = fd, .events = static_cast<short>(POLLIN | (to_send != 0 ? POLLOUT : 0)), .revents = 0};
    if (::poll(&wait, 1, kPatienceMs) != 1) {
      Die("it stands");
    }
    if ((wait.revents & POLLIN) != 0) {
      const std::string part = ReadSome(fd, kPiece);
      if (part.empty()) {
        break;
      }
      got.Add(part.data(), part.size());
      received += part.size();
    }
    if ((wait.revents & POLLOUT) != 0 && to_send != 0) {
      if (start == kPiece) {
        for (char& byte : piece) {
          state ^= state << 13;
          state ^= state >> 7;
          state ^= state << 17;
          byte = static_cast<char>(state);
        }
        sent.Add(piece.data(), kPiece);
        start = 0;
      }
      const ssize_t count = ::send(fd, piece.data() + start, kPiece - start, MSG_DONTWAIT | MSG_NOSIGNAL);
      start += static_cast<std::size_t>(std::max<ssize_t>(count, 0));
      to_send -= static_cast<std::uint64_t>(std::max<ssize_t>(count, 0));
      if (to_send == 0) {
        ::shutdown(fd, SHUT_WR);
      }
    }
  }
  std::printf("%llu bytes %s\n", static_cast<unsigned long long>(received),
              sent.value == got.value ? "same" : "differ");
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 3 && words[0] == "serve") {
    ServeAll(Listen(words[1], static_cast<unsigned>(std::stoul(words[2]))));
  }
  if (words.size() == 5 && words[0] == "drive") {
    const auto port = static_cast<unsigned>(std::stoul(words[2]));
    std::printf("%u talked, ", TalkOnMany(words[1], port, static_cast<unsigned>(std::stoul(words[3]))));
    SendMuch(Connect(words[1], port), std::stoull(words[4]) << 20);
    return 0;
  }
  std::fputs("usage: vsock_peer serve SIDE PORT | drive SIDE PORT COUNT MIB\n", stderr);
  return 2;
}
