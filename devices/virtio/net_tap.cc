#include "devices/virtio/net_tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/non_blocking.h"
#include "gyre/loop/async_op.h"

namespace gyre::virtio {
namespace {

// Of kernel 6.2, which older headers do not have.
constexpr unsigned kTunUso4 = 0x20;
constexpr unsigned kTunUso6 = 0x40;
constexpr std::uint64_t kGuestUso = kNetGuestUso4 | kNetGuestUso6;

constexpr std::size_t kMaxSends = 128;  // at a time, of a queue

unsigned TunOffloads(std::uint64_t offloads) {
  if ((offloads & kNetGuestCsum) == 0) {
    return 0;  // 5.1.3.1: the others need it
  }
  unsigned flags = TUN_F_CSUM;
  flags |= (offloads & kNetGuestTso4) != 0 ? TUN_F_TSO4 : 0U;
  flags |= (offloads & kNetGuestTso6) != 0 ? TUN_F_TSO6 : 0U;
  flags |= (offloads & kNetGuestEcn) != 0 && (offloads & (kNetGuestTso4 | kNetGuestTso6)) != 0 ? TUN_F_TSO_ECN
                                                                                               : 0U;
  // The kernel has both or none.
  flags |= (offloads & kGuestUso) == kGuestUso ? kTunUso4 | kTunUso6 : 0U;
  return flags;
}

// What the queues of a tap share.
struct TapShared {
  std::string name;
  std::vector<UniqueFd> fds;  // one a pair
  std::atomic<bool> gone{false};
  std::function<void()> changed;
  std::optional<loop::BottomHalf> tell;

  // A descriptor says that it has no interface: for ever, or it is that of a queue which is not
  // in use; the first one always is. Any thread.
  void CheckGone() {
    ifreq request{};
    if (::ioctl(fds.front().get(), TUNGETIFF, &request) != 0 && !gone.exchange(true)) {
      tell->Schedule();
    }
  }
};

// Several packets in one system call, where that is what they cost: a read(2) each took 7 us of CPU time
// where a call is dear, and those of a batch 0.7; elsewhere it is as long either way.
class TapSource final : public NetSource {
 public:
  TapSource(TapShared& tap, int fd, loop::EventLoop& loop, std::function<void()> readable)
      : tap_(tap),
        fd_(fd),
        batch_(loop, fd),
        watch_(
            loop, fd, 0,
            [this, readable = std::move(readable)](unsigned) {
              watch_.SetEvents(0);
              readable();
            },
            loop::Tier::kIo) {}

  ssize_t Receive(std::span<const iovec> into) override {
    const ssize_t got = ::readv(fd_, into.data(), static_cast<int>(into.size()));
    return got >= 0 ? got : Failed(-errno);
  }
  void ReceiveMany(std::span<loop::ReadBatch::Read> packets) override {
    batch_.Run(packets);
    for (auto& packet : packets) {
      packet.result = packet.result >= 0 ? packet.result : Failed(packet.result);
    }
  }
  void Await() override { watch_.SetEvents(loop::Watch::kRead); }

 private:
  int Failed(int error) {
    if (error == -EBADFD) {
      tap_.CheckGone();
    }
    return error == -EINTR ? -EAGAIN : error;
  }

  TapShared& tap_;
  const int fd_;
  loop::ReadBatch batch_;
  loop::Watch watch_;
};

// Packets of one turn are handed to the kernel together (1,500 bytes: 1,218 ns each by
// writev(2), 893 in batches of 32). One that is alone is written at once, which spares it an
// iteration of the loop.
class TapSink final : public NetSink {
 public:
  TapSink(TapShared& tap, int fd, loop::EventLoop& loop, std::function<void()> room)
      : tap_(tap), fd_(fd), loop_(loop), room_(std::move(room)) {}

  bool HasRoom() override {
    waiting_ = idle_.empty() && sends_.size() == kMaxSends;
    return !waiting_;
  }
  void Send(Chain chain) override {
    if (idle_.empty()) {
      sends_.push_back(std::make_unique<Sending>(*this));
      idle_.push_back(sends_.back().get());
    }
    Sending& sending = *idle_.back();
    idle_.pop_back();
    sending.chain.emplace(std::move(chain));
    // It overtakes none that is still to be handed over.
    if (first_of_turn_ && idle_.size() + 1 == sends_.size()) {
      alone_ = &sending;
    } else {
      StartAlone();
      Start(sending);
    }
    first_of_turn_ = false;
  }
  void EndTurn() override {
    first_of_turn_ = true;
    if (alone_ == nullptr) {
      return;
    }
    const auto vectors = alone_->chain->readable();
    const ssize_t sent = ::writev(fd_, vectors.data(), static_cast<int>(vectors.size()));
    if (sent < 0 && IsTransient(errno)) {
      return StartAlone();
    }
    Done(*std::exchange(alone_, nullptr), sent < 0 ? -errno : 0);
  }

 private:
  struct Sending {
    explicit Sending(TapSink& owner)
        : guest(std::make_shared<std::shared_ptr<const void>>()),
          op(owner.loop_, guest, [this, &owner](std::int32_t result) { owner.Done(*this, result); }) {}
    Sending(const Sending&) = delete;
    Sending& operator=(const Sending&) = delete;
    ~Sending() {
      if (chain) {
        *guest = chain->memory();
      }
    }
    std::shared_ptr<std::shared_ptr<const void>>
        guest;  // the memory, where the kernel reads it longer than this lives
    std::optional<Chain> chain;
    loop::AsyncOp op;
  };
  void Start(Sending& sending) { sending.op.WriteVector(fd_, sending.chain->readable(), 0); }
  void StartAlone() {
    if (alone_ != nullptr) {
      Start(*std::exchange(alone_, nullptr));
    }
  }
  // What the kernel refuses is lost: a wrong header is the guest's own fault, and a full or
  // broken interface is a network that loses packets.
  void Done(Sending& sending, std::int32_t result) {
    if (result == -EBADFD) {
      tap_.CheckGone();
    }
    sending.chain->Complete(0);
    sending.chain.reset();
    idle_.push_back(&sending);
    if (std::exchange(waiting_, false)) {
      room_();
    }
  }

  TapShared& tap_;
  const int fd_;
  loop::EventLoop& loop_;
  std::function<void()> room_;
  bool waiting_ = false;
  bool first_of_turn_ = true;
  Sending* alone_ = nullptr;  // the turn's first packet, until there is another or the turn ends
  std::vector<std::unique_ptr<Sending>> sends_;
  std::vector<Sending*> idle_;
};

// Asked for once, by the way of setting it on a tap: each change of an interface's offloads is told to all
// that listen in the kernel, which takes longer than making the tap.
bool KernelHasUso(int tap) {
  static const bool has = ::ioctl(tap, TUNSETOFFLOAD, TunOffloads(kNetGuestOffloads)) == 0;
  return has;
}

class Tap final : public NetBackend {
 public:
  Tap(loop::EventLoop& main, std::string name, std::vector<UniqueFd> fds) {
    shared_.name = std::move(name);
    shared_.fds = std::move(fds);
    shared_.tell.emplace(main, [this] {
      log::Warning("tap {}: the interface is gone; the guest's link is down", shared_.name);
      if (shared_.changed) {
        shared_.changed();
      }
    });
  }

  // No offloads for now: an interface that outlives its users has those of its last one.
  void Begin() {
    const int fd = shared_.fds.front().get();
    has_uso_ = KernelHasUso(fd);
    (void)::ioctl(fd, TUNSETOFFLOAD, 0U);
  }
  std::uint64_t offloads() const override {
    constexpr std::uint64_t kUso = kGuestUso | kNetHostUso;
    return (kNetGuestOffloads | kNetHostOffloads) & ~(has_uso_ ? 0 : kUso);
  }
  unsigned pairs() const override { return static_cast<unsigned>(shared_.fds.size()); }
  std::string description() const override { return format("tap,ifname={}", shared_.name); }
  bool up() const override { return !shared_.gone.load(std::memory_order_relaxed); }
  void OnChange(std::function<void()> changed) override { shared_.changed = std::move(changed); }
  void CheckUp() override { shared_.CheckGone(); }
  int kernel_fd(unsigned pair) const override { return shared_.fds.at(pair).get(); }
  void SetOffloads(std::uint64_t offloads) override {
    (void)::ioctl(shared_.fds.front().get(), TUNSETOFFLOAD, TunOffloads(offloads));
  }
  // The kernel spreads packets over the queues that are attached.
  void SetPairs(unsigned pairs) override {
    for (unsigned i = 0; i < shared_.fds.size() && shared_.fds.size() > 1; ++i) {
      ifreq request{};
      request.ifr_flags = static_cast<short>(i < pairs ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
      (void)::ioctl(shared_.fds[i].get(), TUNSETQUEUE, &request);  // EINVAL: it is so already
    }
  }
  std::unique_ptr<NetSource> NewSource(unsigned pair, loop::EventLoop& loop,
                                       std::function<void()> readable) override {
    return std::make_unique<TapSource>(shared_, shared_.fds.at(pair).get(), loop, std::move(readable));
  }
  std::unique_ptr<NetSink> NewSink(unsigned pair, loop::EventLoop& loop,
                                   std::function<void()> room) override {
    return std::make_unique<TapSink>(shared_, shared_.fds.at(pair).get(), loop, std::move(room));
  }

 private:
  TapShared shared_;
  bool has_uso_ = false;
};

Status SetHeader(int fd, const std::string& name) {
  const int size = kNetHeaderSize;
  if (::ioctl(fd, TUNSETVNETHDRSZ, &size) != 0) {
    return Fail(Error::Sys(format("tap {}: its header's size", name), errno, ErrorKind::kUsage));
  }
  return {};
}

Result<UniqueFd> Attach(const std::string& name, bool multi_queue) {
  UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    return Fail(Error::Sys("/dev/net/tun", errno, ErrorKind::kUsage));
  }
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags =
      static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi_queue ? IFF_MULTI_QUEUE : 0));
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    return Fail(Error::Sys(format("tap {}", name), errno, ErrorKind::kUsage));
  }
  TRY(SetHeader(fd.get(), name));
  return fd;
}

}  // namespace

Result<std::unique_ptr<NetBackend>> OpenTap(loop::EventLoop& main, const std::string& name, unsigned pairs) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    return Fail(Error::Usage(format("tap={}: is no interface's name", name)));
  }
  std::vector<UniqueFd> fds;
  auto first = Attach(name, pairs > 1);
  // One that was made for several queues wants to be asked for them.
  if (!first && first.error().sys_errno() == EINVAL && pairs == 1) {
    first = Attach(name, true);
  }
  fds.push_back(TRY(std::move(first)));
  while (fds.size() < pairs) {
    fds.push_back(TRY(Attach(name, true)));
  }
  auto tap = std::make_unique<Tap>(main, name, std::move(fds));
  tap->Begin();
  return tap;
}

Result<std::unique_ptr<NetBackend>> AdoptTap(loop::EventLoop& main, int fd) {
  ifreq request{};
  if (::ioctl(fd, TUNGETIFF, &request) != 0) {
    return Fail(Error::Sys(format("fd={}: is no tap", fd), errno, ErrorKind::kUsage));
  }
  if ((request.ifr_flags & IFF_TAP) == 0 || (request.ifr_flags & IFF_VNET_HDR) == 0) {
    return Fail(Error::Usage(format("fd={}: is not a tap with virtio headers (IFF_TAP, IFF_VNET_HDR)", fd)));
  }
  request.ifr_name[IFNAMSIZ - 1] = '\0';
  std::vector<UniqueFd> fds;
  fds.emplace_back(fd);
  if (!SetNonBlocking(fd) || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return Fail(Error::Sys(format("fd={}", fd), errno, ErrorKind::kUsage));
  }
  TRY(SetHeader(fd, request.ifr_name));
  auto tap = std::make_unique<Tap>(main, request.ifr_name, std::move(fds));
  tap->Begin();
  return tap;
}

}  // namespace gyre::virtio
