// gyre-net-floor INTERFACE calls|ring OP:SIZE: what a program that does nothing else does with a tap, as the
// guest net_bench would through a VMM. calls: a read(2) or write(2) a frame; ring: batches of io_uring. It
// says "begin", and goes on until somebody ends it.
#include <fcntl.h>
#include <liburing.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "frame.h"

namespace gyre::bench {
namespace {

constexpr unsigned kBatch = 32;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::_Exit(2);
}

int OpenTap(const char* name) {
  const int fd = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  const int header = sizeof(NetHeader);
  if (fd < 0 || ::ioctl(fd, TUNSETIFF, &request) != 0 || ::ioctl(fd, TUNSETVNETHDRSZ, &header) != 0 ||
      ::ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) != 0) {
    Die("gyre-net-floor: the tap");
  }
  return fd;
}

constexpr std::size_t kPage = 4096;
// Where in their pages the guest has its frames: copies take several times as long on some processors for
// some distances between the two places within their pages.
constexpr std::size_t kSentAt =
    kPage - sizeof(NetHeader) - kLeastFrame;  // what is behind the headers starts a page
constexpr std::size_t kReceivedAt = 0;

// A frame with its header in front, which begins at `offset` of a page.
class Packet {
 public:
  Packet(std::size_t size, std::size_t offset)
      : size_(sizeof(NetHeader) + size), offset_(offset), pages_((offset_ + size_) / kPage + 1) {
    const NetHeader header = HeaderOf(size);
    std::memcpy(data(), &header, sizeof(header));
    MakeFrame(data() + sizeof(header), size);
  }
  void SetCount(std::uint64_t count) { bench::SetCount(data() + sizeof(NetHeader), count); }
  std::uint8_t* data() { return pages_.front().bytes + offset_; }
  unsigned size() const { return static_cast<unsigned>(size_); }

 private:
  struct alignas(kPage) Page {
    std::uint8_t bytes[kPage];
  };
  std::size_t size_;
  std::size_t offset_;
  std::vector<Page> pages_;
};

[[noreturn]] void SendByCalls(int fd, std::size_t size) {
  Packet packet(size, kSentAt);
  for (std::uint64_t count = 0;; ++count) {
    packet.SetCount(count);
    if (::write(fd, packet.data(), packet.size()) < 0) {
      Die("gyre-net-floor: write");
    }
  }
}

// As much memory as the guest has for what comes, of which it uses a page for a small frame: what is read
// into the same place every time stays in the processor's cache.
std::vector<Packet> Received(std::size_t size) {
  constexpr std::size_t kMemory = 256 * kPage;
  const std::size_t room = size > kMostPlainFrame ? kMostFrame : kPage - sizeof(NetHeader);
  return {kMemory / (room + sizeof(NetHeader)), Packet(room, kReceivedAt)};
}

[[noreturn]] void ReceiveByCalls(int fd, std::size_t size) {
  std::vector<Packet> packets = Received(size);
  for (std::size_t next = 0;; next = (next + 1) % packets.size()) {
    Packet& packet = packets[next];
    if (::read(fd, packet.data(), packet.size()) < 0) {
      Die("gyre-net-floor: read");
    }
  }
}

[[noreturn]] void Echo(int fd, std::size_t size) {
  Packet packet(kMostFrame, kReceivedAt);
  for (;;) {
    const ssize_t got = ::read(fd, packet.data(), packet.size());
    if (got < 0) {
      Die("gyre-net-floor: read");
    }
    if (static_cast<std::size_t>(got) == sizeof(NetHeader) + size &&
        ::write(fd, packet.data(), static_cast<std::size_t>(got)) < 0) {
      Die("gyre-net-floor: write");
    }
  }
}

class Ring {
 public:
  explicit Ring(int fd) {
    io_uring_params params{};
    params.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    if (io_uring_queue_init_params(2 * kBatch, &ring_, &params) < 0 ||
        io_uring_register_files(&ring_, &fd, 1) < 0) {
      Die("gyre-net-floor: io_uring");
    }
    io_uring_register_ring_fd(&ring_);
  }
  void Start(bool write, Packet& packet, std::uint64_t index) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    if (write) {
      io_uring_prep_write(sqe, 0, packet.data(), packet.size(), 0);
    } else {
      io_uring_prep_read(sqe, 0, packet.data(), packet.size(), 0);
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data64(sqe, index);
  }
  // Calls done(index) for each that has come.
  template <typename Done>
  void Wait(const Done& done) {
    if (io_uring_submit_and_wait(&ring_, 1) < 0) {
      Die("gyre-net-floor: io_uring_submit_and_wait");
    }
    unsigned head = 0;
    unsigned count = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      if (cqe->res < 0) {
        Die("gyre-net-floor: an operation on the tap");
      }
      done(cqe->user_data);
      ++count;
    }
    io_uring_cq_advance(&ring_, count);
  }

 private:
  io_uring ring_{};
};

[[noreturn]] void ByRing(int fd, bool send, std::size_t size) {
  Ring ring(fd);
  std::vector<Packet> packets = send ? std::vector<Packet>(kBatch, Packet(size, kSentAt)) : Received(size);
  std::uint64_t next = 0;
  // In the order in which they end, which is that of the frames.
  const auto start = [&](std::uint64_t) {
    Packet& packet = packets[next % packets.size()];
    if (send) {
      packet.SetCount(next);
    }
    ring.Start(send, packet, next++);
  };
  for (std::size_t i = 0; i < std::min<std::size_t>(kBatch, packets.size()); ++i) {
    start(i);
  }
  for (;;) {
    ring.Wait(start);
  }
}

int Main(int argc, char** argv) {
  const std::string_view operation = argc == 4 ? argv[3] : "";
  const std::size_t colon = operation.find(':');
  const std::size_t size =
      colon == std::string_view::npos ? 0 : std::strtoul(argv[3] + colon + 1, nullptr, 10);
  if (size < kLeastFrame || size > kMostFrame) {
    std::fputs("usage: gyre-net-floor INTERFACE calls|ring send|receive|echo:SIZE\n", stderr);
    return 2;
  }
  const int fd = OpenTap(argv[1]);
  std::puts("begin");
  std::fflush(stdout);
  const bool send = operation.starts_with("send");
  if (operation.starts_with("echo")) {
    Echo(fd, size);
  }
  if (std::string_view(argv[2]) == "ring") {
    ByRing(fd, send, size);
  }
  if (send) {
    SendByCalls(fd, size);
  }
  ReceiveByCalls(fd, size);
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) { return gyre::bench::Main(argc, argv); }
