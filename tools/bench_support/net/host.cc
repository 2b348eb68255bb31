// gyre-net-host: the outer end of `tools/bench net`, the same for every peer.
//
//   gyre-net-host hold INTERFACE                             a network namespace of its own with a tap in it,
//   until
//                                                            its input ends; says "ready"
//   gyre-net-host receive|send|echo INTERFACE SIZE MS PID    within it: what the tap's other end does in so
//   many
//                                                            milliseconds, and what the threads of PID run
//                                                            meanwhile, as a line of JSON; then it sends the
//                                                            last frame
//
// receive: counts what is written to the tap, by a packet socket's filter, which looks at every frame; a
// frame now and then is looked at here. send: keeps frames in the tap's queue, fewer than it holds, so that
// none is lost; what is counted is what was read of the tap. echo: one frame at a time.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "../clock.h"
#include "../thread_times.h"
#include "frame.h"

namespace gyre::bench {
namespace {

constexpr std::int64_t kWarmUp = 50 * kMillisecond;
constexpr std::size_t kSample = 128;  // bytes of a frame that the socket gets

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "gyre-net-host: %s: %s\n", what.c_str(), std::strerror(errno));
  std::_Exit(1);
}

// ---- The namespace.

void WriteText(const std::string& path, const char* text) {
  std::ofstream(path) << text;  // a kernel without IPv6 has none to be turned off
}

int Hold(const std::string& name) {
  if (::unshare(CLONE_NEWNET) != 0) {
    Die("a network namespace");
  }
  const int tap = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  const int control = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (tap < 0 || ::ioctl(tap, TUNSETIFF, &request) != 0 || ::ioctl(tap, TUNSETPERSIST, 1) != 0) {
    Die("a tap");
  }
  WriteText("/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6", "1");
  request.ifr_flags = IFF_UP;
  if (control < 0 || ::ioctl(control, SIOCSIFFLAGS, &request) != 0) {
    Die(name);
  }
  ::close(tap);  // for the peer
  std::puts("ready");
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return 0;
}

// ---- Sockets.

int PacketSocket(const std::string& interface, bool receives) {
  const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = receives ? htons(ETH_P_ALL) : 0;
  address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
  if (fd < 0 || address.sll_ifindex == 0 ||
      ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    Die("a packet socket on " + interface);
  }
  return fd;
}

void SetOption(int fd, int level, int option, int value) {
  if (::setsockopt(fd, level, option, &value, sizeof(value)) != 0) {
    Die("a packet socket's option");
  }
}

// Frames of ours of just that size, and of those the beginning.
int Receiver(const std::string& interface, std::size_t size) {
  std::array<sock_filter, 8> program = {{
      BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(size), 0, 5),
      BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IP, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kMarkAt),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kMark, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, kSample),
      BPF_STMT(BPF_RET | BPF_K, 0),
  }};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  const int fd = PacketSocket(interface, true);
  if (::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) != 0) {
    Die("a packet socket's filter");
  }
  SetOption(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  return fd;
}

class Sender {
 public:
  Sender(const std::string& interface, std::size_t size, std::size_t batch)
      : fd_(PacketSocket(interface, false)),
        header_(HeaderOf(size)),
        frames_(batch),
        vectors_(batch),
        messages_(batch) {
    SetOption(fd_, SOL_PACKET, PACKET_VNET_HDR, 1);
    SetOption(fd_, SOL_PACKET, PACKET_QDISC_BYPASS, 1);
    for (std::size_t i = 0; i < batch; ++i) {
      frames_[i].resize(size);
      MakeFrame(frames_[i].data(), size);
      vectors_[i] = {{{.iov_base = &header_, .iov_len = sizeof(header_)},
                      {.iov_base = frames_[i].data(), .iov_len = size}}};
      messages_[i].msg_hdr.msg_iov = vectors_[i].data();
      messages_[i].msg_hdr.msg_iovlen = vectors_[i].size();
    }
  }
  // As many as the interface takes, numbered from `count` on.
  std::size_t Send(std::uint64_t count, std::size_t frames) {
    for (std::size_t i = 0; i < frames; ++i) {
      SetCount(frames_[i].data(), count + i);
    }
    const int sent = ::sendmmsg(fd_, messages_.data(), static_cast<unsigned>(frames), 0);
    if (sent < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR) {
      Die("a frame to the tap");
    }
    return static_cast<std::size_t>(std::max(sent, 0));
  }

 private:
  int fd_;
  NetHeader header_;
  std::vector<std::vector<std::uint8_t>> frames_;
  std::vector<std::array<iovec, 2>> vectors_;
  std::vector<mmsghdr> messages_;
};

// What was read of a tap, and what it dropped.
struct Counts {
  std::uint64_t read = 0;
  std::uint64_t dropped = 0;
};
class Counters {
 public:
  explicit Counters(std::string interface)
      : fd_(::open("/proc/net/dev", O_RDONLY | O_CLOEXEC)), interface_(std::move(interface) + ":") {}
  Counts Read() const {
    std::array<char, 4096> text{};
    const ssize_t size = ::pread(fd_, text.data(), text.size() - 1, 0);
    const char* const line = size > 0 ? std::strstr(text.data(), interface_.c_str()) : nullptr;
    Counts counts;
    if (line == nullptr ||
        std::sscanf(line + interface_.size(),  // NOLINT(cert-err34-c): the kernel's own numbers
                    "%*u %*u %*u %*u %*u %*u %*u %*u %*u %" SCNu64 " %*u %" SCNu64, &counts.read,
                    &counts.dropped) != 2) {
      Die("/proc/net/dev");
    }
    return counts;
  }

 private:
  int fd_;
  std::string interface_;
};

// ---- What is measured.

struct Options {
  std::string interface;
  std::size_t size = 0;
  std::int64_t time = 0;
  pid_t pid = 0;
};
struct Result {
  std::uint64_t frames = 0;
  std::uint64_t lost = 0;
  std::int64_t time = 0;
  std::string threads;
  std::int64_t p50 = 0;
  std::int64_t p99 = 0;
};

class Interval {
 public:
  explicit Interval(pid_t pid) : pid_(pid), before_(ReadThreadTimes(pid)), start_(NowNs()) {}
  std::int64_t start() const { return start_; }
  void End(Result& result) const {
    result.time = NowNs() - start_;
    result.threads = TimesSince(before_, ReadThreadTimes(pid_));
  }

 private:
  pid_t pid_;
  ThreadTimes before_;
  std::int64_t start_;
};

std::uint64_t TakeStatistics(int fd) {
  tpacket_stats counts{};
  socklen_t size = sizeof(counts);
  if (::getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &counts, &size) != 0) {
    Die("a packet socket's counts");
  }
  return counts.tp_packets;  // with those that the socket had no room for
}

Result Receive(const Options& options) {
  const int fd = Receiver(options.interface, options.size);
  SetOption(fd, SOL_SOCKET, SO_RCVBUF, 1);  // the least that there is: all but a few are counted only
  SleepNs(kWarmUp);
  Result result;
  std::uint64_t last = 0;
  TakeStatistics(fd);
  const Interval interval(options.pid);
  while (NowNs() - interval.start() < options.time) {
    std::array<std::uint8_t, kSample> frame{};
    while (::recv(fd, frame.data(), frame.size(), MSG_DONTWAIT) > 0) {
      const std::uint64_t count = CountOf(frame.data());
      result.lost += count < last ? 1 : 0;
      last = count;
    }
    SleepNs(2 * kMillisecond);
  }
  result.frames = TakeStatistics(fd);
  interval.End(result);
  return result;
}

class Generator {
 public:
  explicit Generator(const Options& options)
      : batch_(options.size > kMostPlainFrame ? 4 : 32),
        window_(options.size > kMostPlainFrame ? 64 : 512),
        counters_(options.interface),
        before_(counters_.Read()),
        sender_(options.interface, options.size, batch_) {}

  void RunUntil(std::int64_t end) {
    while (NowNs() < end) {
      if (sent_ + batch_ > window_ + seen_) {
        const Counts counts = counters_.Read();
        seen_ = counts.read - before_.read + counts.dropped - before_.dropped;
      }
      const std::size_t sent = sent_ + batch_ > window_ + seen_ ? 0 : sender_.Send(sent_, batch_);
      sent_ += sent;
      if (sent == 0) {
        SleepNs(20'000);
      }
    }
  }
  // Waits until all has been read.
  void Drain() {
    for (int tries = 0; tries < 1000; ++tries) {
      const Counts counts = counters_.Read();
      if (counts.read - before_.read + counts.dropped - before_.dropped >= sent_) {
        return;
      }
      SleepNs(kMillisecond);
    }
  }
  Counts Read() const { return counters_.Read(); }

 private:
  const std::size_t batch_;
  const std::uint64_t window_;
  std::uint64_t sent_ = 0;
  std::uint64_t seen_ = 0;
  Counters counters_;
  Counts before_;
  Sender sender_;
};

Result Send(const Options& options) {
  Generator generator(options);
  generator.RunUntil(NowNs() + kWarmUp);
  Result result;
  const Counts before = generator.Read();
  const Interval interval(options.pid);
  generator.RunUntil(interval.start() + options.time);
  const Counts after = generator.Read();
  interval.End(result);
  result.frames = after.read - before.read;
  result.lost = after.dropped - before.dropped;
  generator.Drain();
  return result;
}

Result Echo(const Options& options) {
  constexpr timeval kPatience{.tv_sec = 5, .tv_usec = 0};
  const int fd = Receiver(options.interface, options.size);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  Sender sender(options.interface, options.size, 1);
  std::uint64_t count = 0;
  std::vector<std::int64_t> latencies;
  const auto turn_until = [&](std::int64_t end) {
    for (std::int64_t now = NowNs(); now < end;) {
      std::array<std::uint8_t, kSample> frame{};
      sender.Send(++count, 1);
      if (::recv(fd, frame.data(), frame.size(), 0) <= 0 || CountOf(frame.data()) != count) {
        Die("no answer to a frame, or another one's");
      }
      const std::int64_t then = NowNs();
      latencies.push_back(then - now);
      now = then;
    }
  };
  turn_until(NowNs() + kWarmUp);
  latencies.clear();
  Result result;
  const Interval interval(options.pid);
  turn_until(interval.start() + options.time);
  interval.End(result);
  std::ranges::sort(latencies);
  result.frames = latencies.size();
  result.p50 = latencies[latencies.size() / 2];
  result.p99 = latencies[latencies.size() * 99 / 100];
  return result;
}

int Measure(const std::string& operation, const Options& options) {
  ::prctl(PR_SET_TIMERSLACK, 1000);
  const Result result = operation == "receive" ? Receive(options)
                        : operation == "send"  ? Send(options)
                                               : Echo(options);
  std::printf("{\"frames\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"ns\": %" PRId64 ", \"p50\": %" PRId64
              ", \"p99\": %" PRId64 ", \"threads\": %s}\n",
              result.frames, result.lost, result.time, result.p50, result.p99, result.threads.c_str());
  Sender(options.interface, 64, 1).Send(kLastFrame, 1);
  return 0;
}

int Usage() {
  std::fputs("usage: gyre-net-host hold INTERFACE | receive|send|echo INTERFACE SIZE MILLISECONDS PID\n",
             stderr);
  return 2;
}

int Main(const std::vector<std::string>& words) {
  if (words.size() == 2 && words[0] == "hold") {
    return Hold(words[1]);
  }
  if (words.size() != 5 || (words[0] != "receive" && words[0] != "send" && words[0] != "echo")) {
    return Usage();
  }
  const Options options{.interface = words[1],
                        .size = std::strtoul(words[2].c_str(), nullptr, 10),
                        .time = std::strtol(words[3].c_str(), nullptr, 10) * kMillisecond,
                        .pid = static_cast<pid_t>(std::strtol(words[4].c_str(), nullptr, 10))};
  if (options.size < kLeastFrame || options.size > kMostFrame || options.time <= 0) {
    return Usage();
  }
  return Measure(words[0], options);
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) { return gyre::bench::Main({argv + 1, argv + argc}); }
