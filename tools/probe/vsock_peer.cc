// vsock_peer serve SIDE PORT: echoes what each connection says, until it is killed; who ends his half gets
// the rest and its end. vsock_peer drive SIDE PORT COUNT MIB: opens so many connections to such a one at a
// time, talks on each and ends each by halves, then sends so much by one and compares what comes back. SIDE
// is "guest" (AF_VSOCK, to the host) or, to the guest from the host, "cid=N" (AF_VSOCK) or the path of a VM's
// --vsock socket.
// vsock_peer hear SIDE PORT: says something that no protocol has, and prints how many bytes come back until
// the end.
// serve-messages and drive-messages do the same by sockets of type SOCK_SEQPACKET: what is sent are messages
// of many sizes, each of which has to come back as it was.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::size_t kPiece = 64 << 10;
constexpr std::size_t kLongest = 100'000;  // of messages; less than what any socket holds
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

constexpr const char* kCid = "cid=";

bool ByVsock(const std::string& side) { return side == "guest" || side.starts_with(kCid); }

// Of who is at the other side's end.
unsigned CidOf(const std::string& side) {
  return side == "guest" ? VMADDR_CID_HOST
                         : static_cast<unsigned>(std::stoul(side.substr(std::strlen(kCid))));
}

int Socket(const std::string& side, int type) {
  const int fd = ::socket(ByVsock(side) ? AF_VSOCK : AF_UNIX, type, 0);
  return fd < 0 ? (Die("socket"), -1) : fd;
}

int Listen(const std::string& side, unsigned port, int type) {
  const int fd = Socket(side, type);
  const Address address =
      ByVsock(side) ? Vsock(VMADDR_CID_ANY, port) : Unix(side + "_" + std::to_string(port));
  if (::bind(fd, address.get(), address.size) != 0 || ::listen(fd, 64) != 0) {
    Die("listen");
  }
  return fd;
}

// As a client of the host's socket says it.
bool ShakeHands(int fd, unsigned port, int type) {
  const std::string line = "CONNECT " + std::to_string(port) + "\n";
  std::string answer;
  char byte = 0;
  if (::write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return false;
  }
  if (type == SOCK_SEQPACKET) {
    answer.resize(100);
    answer.resize(static_cast<std::size_t>(std::max<ssize_t>(::read(fd, answer.data(), answer.size()), 0)));
  }
  while (type == SOCK_STREAM && byte != '\n' && ::read(fd, &byte, 1) == 1) {
    answer += byte;
  }
  return answer.starts_with("OK ") && answer.ends_with('\n');
}

int Connect(const std::string& side, unsigned port, int type) {
  const int fd = Socket(side, type);
  const Address address =
      ByVsock(side) ? Vsock(CidOf(side), port) : Unix(side + (type == SOCK_SEQPACKET ? ".seqpacket" : ""));
  if (::connect(fd, address.get(), address.size) != 0) {
    Die("connect");
  }
  if (!ByVsock(side) && !ShakeHands(fd, port, type)) {
    Die("no OK from the guest");
  }
  return fd;
}

// --- serve

struct Echo {
  int fd = -1;
  int type = SOCK_STREAM;
  std::vector<char> kept;
};

// False at its end.
bool Serve(Echo& echo) {
  if (echo.kept.empty()) {
    echo.kept.resize(echo.type == SOCK_STREAM ? kPiece : kLongest);
    const ssize_t got = ::recv(echo.fd, echo.kept.data(), echo.kept.size(), MSG_DONTWAIT);
    echo.kept.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got <= 0) {
      return got < 0 && errno == EAGAIN;
    }
  }
  // Linux, when it does not wait, leaves a part of a message behind.
  const int wait = echo.type == SOCK_STREAM ? MSG_DONTWAIT : 0;
  const ssize_t sent = ::send(echo.fd, echo.kept.data(), echo.kept.size(), wait | MSG_NOSIGNAL);
  echo.kept.erase(echo.kept.begin(), echo.kept.begin() + std::max<ssize_t>(sent, 0));
  return true;
}

void ServeAll(int listener, int type) {
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
      echoes.push_back({.fd = ::accept(listener, nullptr, nullptr), .type = type, .kept = {}});
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
unsigned TalkOnMany(const std::string& side, unsigned port, unsigned count, int type) {
  std::vector<int> all;
  all.reserve(count);
  for (unsigned i = 0; i < count; ++i) {
    all.push_back(Connect(side, port, type));
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

struct Numbers {
  std::uint64_t state = 0x9e37'79b9'7f4a'7c15;
  std::uint64_t Next() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  }
};

struct Sum {
  std::uint64_t value = 0xcbf2'9ce4'8422'2325;
  void Add(const char* bytes, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      value = (value ^ static_cast<std::uint8_t>(bytes[i])) * 0x100'0000'01b3;
    }
  }
};

// So many bytes that only who makes them again can know.
class Outgoing {
 public:
  explicit Outgoing(std::uint64_t size) : left_(size) {}
  bool done() const { return left_ == 0; }
  const Sum& sum() const { return sum_; }
  // As many as the other end takes now.
  void Send(int fd) {
    if (start_ == kPiece) {
      MakePiece();
    }
    const ssize_t count = ::send(fd, piece_.data() + start_, kPiece - start_, MSG_DONTWAIT | MSG_NOSIGNAL);
    const auto sent = static_cast<std::size_t>(std::max<ssize_t>(count, 0));
    start_ += sent;
    left_ -= sent;
    if (left_ == 0) {
      ::shutdown(fd, SHUT_WR);
    }
  }

 private:
  void MakePiece() {
    for (char& byte : piece_) {
      byte = static_cast<char>(numbers_.Next());
    }
    sum_.Add(piece_.data(), kPiece);
    start_ = 0;
  }

  std::uint64_t left_;
  Numbers numbers_;
  Sum sum_;
  std::vector<char> piece_ = std::vector<char>(kPiece);
  std::size_t start_ = kPiece;  // of what has not gone
};

void SendMuch(int fd, std::uint64_t size) {
  Outgoing out(size);
  Sum got;
  std::uint64_t received = 0;
  for (;;) {
    pollfd wait{.fd = fd, .events = static_cast<short>(POLLIN | (out.done() ? 0 : POLLOUT)), .revents = 0};
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
    if ((wait.revents & POLLOUT) != 0 && !out.done()) {
      out.Send(fd);
    }
  }
  std::printf("%llu bytes %s\n", static_cast<unsigned long long>(received),
              out.sum().value == got.value ? "same" : "differ");
}

std::string Message(Numbers& numbers) {
  const std::uint64_t choice = numbers.Next();
  std::string message(1 + choice % (choice >> 32 & 3 ? 5000 : kLongest), '\0');
  for (std::size_t i = 0; i < message.size(); i += 100) {
    message[i] = static_cast<char>(numbers.Next());
  }
  message.back() = static_cast<char>(numbers.Next());
  return message;
}

// Sends until so much has gone, with some messages under way at a time: no more than all on the way can hold,
// for neither side reads while it sends.
void SendMessages(int fd, std::uint64_t size) {
  constexpr std::size_t kUnderWay = 3;
  Numbers numbers;
  std::deque<std::string> sent;
  std::uint64_t to_send = size;
  std::uint64_t received = 0;
  unsigned count = 0;
  unsigned differ = 0;
  for (;;) {
    while (to_send != 0 && sent.size() < kUnderWay) {
      const std::string& message = sent.emplace_back(Message(numbers));
      if (::send(fd, message.data(), message.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(message.size())) {
        Die("send");
      }
      to_send -= std::min<std::uint64_t>(to_send, message.size());
      if (to_send == 0) {
        ::shutdown(fd, SHUT_WR);
      }
    }
    const std::string got = ReadSome(fd, kLongest + 1);
    if (got.empty()) {
      break;
    }
    received += got.size();
    ++count;
    differ += sent.empty() || got != sent.front() ? 1U : 0U;
    if (!sent.empty()) {
      sent.pop_front();
    }
  }
  std::printf("%s, %s\n", received >= size && sent.empty() ? "all messages" : "too few messages",
              differ == 0 ? "same" : "differ");
  if (differ != 0 || received < size) {
    std::printf("%u messages, %u differ, %llu bytes\n", count, differ,
                static_cast<unsigned long long>(received));
  }
}

// --- hear

int Hear(int fd) {
  constexpr std::string_view kNonsense = "nonsense\r\n\r\n";
  (void)::send(fd, kNonsense.data(), kNonsense.size(), MSG_NOSIGNAL);  // it may be nobody's by now
  std::size_t heard = 0;
  std::vector<char> bytes(kPiece);
  for (pollfd entry{.fd = fd, .events = POLLIN, .revents = 0}; ::poll(&entry, 1, kPatienceMs) == 1;) {
    const ssize_t got = ::read(fd, bytes.data(), bytes.size());
    if (got <= 0) {
      std::printf("%zu bytes\n", heard);
      return 0;
    }
    heard += static_cast<std::size_t>(got);
  }
  std::printf("%zu bytes and no end\n", heard);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const bool messages = !words.empty() && words[0].ends_with("-messages");
  const int type = messages ? SOCK_SEQPACKET : SOCK_STREAM;
  if (words.size() == 3 && words[0] == "hear") {
    return Hear(Connect(words[1], static_cast<unsigned>(std::stoul(words[2])), type));
  }
  if (words.size() == 3 && words[0].starts_with("serve")) {
    ServeAll(Listen(words[1], static_cast<unsigned>(std::stoul(words[2])), type), type);
  }
  if (words.size() == 5 && words[0].starts_with("drive")) {
    const auto port = static_cast<unsigned>(std::stoul(words[2]));
    std::printf("%u talked, ", TalkOnMany(words[1], port, static_cast<unsigned>(std::stoul(words[3])), type));
    const int fd = Connect(words[1], port, type);
    const std::uint64_t size = std::stoull(words[4]) << 20;
    messages ? SendMessages(fd, size) : SendMuch(fd, size);
    return 0;
  }
  std::fputs(
      "usage: vsock_peer serve[-messages] SIDE PORT | drive[-messages] SIDE PORT COUNT MIB | hear SIDE "
      "PORT\n",
      stderr);
  return 2;
}
