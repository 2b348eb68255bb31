// gyre-net-device INTERFACE OP:SIZE: gyre's network on a tap, served by the main loop, with a driver that is
// a thread of ours: what gyred does with a network, without KVM and without a guest. Operations, frames and
// what is printed are those of the guest net_bench; kicks write the queue's eventfd.
#include <pthread.h>
#include <x86intrin.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "frame.h"
#include "tools/bench_support/board.h"

namespace gyre::bench {
namespace {

enum class Operation : std::uint8_t { kSend, kReceive, kEcho };

// Virtio 1.2, 5.1.6: with mergeable buffers, as with version 1.
struct FullHeader {
  NetHeader header;
  std::uint16_t buffers = 0;
};
static_assert(sizeof(FullHeader) == 12);

// A frame, or what stands in front of a large one's pages.
struct alignas(64) Outgoing {
  std::array<Descriptor, 3> table;
  FullHeader header;
  std::array<std::uint8_t, kMostPlainFrame> frame;
};

constexpr std::size_t kBufferSize = 4096;
constexpr std::size_t kPiece = 32 * kKiB;
// Guest addresses, as the guest has them.
constexpr std::uint64_t kShared = kMiB;
constexpr std::uint64_t kBuffers = 32 * kMiB;
constexpr std::uint64_t kPayload = 48 * kMiB;

struct Shared {
  Ring receive, transmit;
  std::array<Outgoing, kEntries> outgoing;
};

class Driver {
 public:
  Driver(Board& board, Operation operation, std::size_t size)
      : board_(board),
        shared_(*new(board.host(kShared)) Shared),
        operation_(operation),
        size_(size),
        receive_(shared_.receive),
        transmit_(shared_.transmit) {
    BringUp();
    for (unsigned i = 0; i < kEntries; ++i) {
      Prepare(i);
      idle_.push_back(i);
      *board.host(kBuffers + kBufferSize * i) = 1;  // none of it is touched for the first time later
      receive_->descriptors[i] = {
          .address = kBuffers + kBufferSize * i, .size = kBufferSize, .flags = Descriptor::kWrite, .next = 0};
      receive_.Offer(i);
    }
    std::memset(board.host(kPayload), 1, 2 * kPiece);
  }

  // Until the last frame has come.
  void Run() {
    ::pthread_setname_np(::pthread_self(), "vcpu0");
    std::puts("begin");  // by its name the thread gets a CPU for itself
    std::fflush(stdout);
    Publish(0, receive_);
    while (Receive()) {
      transmit_.Take([this](UsedElement used) { idle_.push_back(used.id); });
      for (; operation_ == Operation::kSend && !idle_.empty(); ++frames_) {
        Send(next_count_++);
      }
      Publish(1, transmit_);
      _mm_pause();
    }
  }
  void Print() const {
    std::printf("phase %llu %llu %llu\n", static_cast<unsigned long long>(frames_),
                static_cast<unsigned long long>(kicks_), static_cast<unsigned long long>(errors_));
  }

 private:
  void BringUp() {
    constexpr std::uint64_t kCsum = 1U << 0, kGuestCsum = 1U << 1, kGuestTso4 = 1U << 7, kHostTso4 = 1U << 11,
                            kMergeable = 1U << 15;
    if (!registers_.Negotiate(kCsum | kGuestCsum | kGuestTso4 | kHostTso4 | kMergeable |
                              virtio::kFeatureIndirect | virtio::kFeatureEventIndex |
                              virtio::kFeatureVersion1)) {
      std::fputs("gyre-net-device: the network's features\n", stderr);
      std::_Exit(2);
    }
    board_.SetUpQueue(0, shared_.receive);
    board_.SetUpQueue(1, shared_.transmit);
    registers_.SetDriverOk();
  }
  std::uint64_t AddressOf(const void* what) const {
    return static_cast<std::uint64_t>(static_cast<const std::uint8_t*>(what) - board_.host(0));
  }
  void Prepare(unsigned index) {
    Outgoing& to = shared_.outgoing[index];
    to.header.header = HeaderOf(size_);
    MakeFrame(to.frame.data(), std::min(size_, to.frame.size()), size_);
    if (size_ <= kMostPlainFrame) {
      transmit_->descriptors[index] = {.address = AddressOf(&to.header),
                                       .size = static_cast<std::uint32_t>(sizeof(FullHeader) + size_),
                                       .flags = 0,
                                       .next = 0};
      return;
    }
    const std::size_t rest = size_ - kLeastFrame;
    const std::size_t piece = std::min(rest, kPiece);
    const std::size_t further = rest - piece;
    to.table[0] = {.address = AddressOf(&to.header),
                   .size = sizeof(FullHeader) + kLeastFrame,
                   .flags = Descriptor::kNext,
                   .next = 1};
    to.table[1] = {.address = kPayload,
                   .size = static_cast<std::uint32_t>(piece),
                   .flags = further != 0 ? Descriptor::kNext : std::uint16_t{0},
                   .next = 2};
    to.table[2] = {
        .address = kPayload + kPiece, .size = static_cast<std::uint32_t>(further), .flags = 0, .next = 0};
    transmit_->descriptors[index] = {
        .address = AddressOf(&to.table),
        .size = static_cast<std::uint32_t>((further != 0 ? 3 : 2) * sizeof(Descriptor)),
        .flags = Descriptor::kIndirect,
        .next = 0};
  }
  void Publish(unsigned index, DriverRing& ring) {
    if (ring.Publish()) {
      ++kicks_;
      registers_.Kick(index);
    }
  }
  void Send(std::uint64_t count) {
    const unsigned index = idle_.back();
    idle_.pop_back();
    SetCount(shared_.outgoing[index].frame.data(), count);
    transmit_.Offer(index);
  }
  // False at the end.
  bool Receive() {
    receive_.Take([this](UsedElement used) { TakeBuffer(used.id); });
    if (operation_ == Operation::kEcho) {
      Publish(1, transmit_);
    }
    Publish(0, receive_);
    return !over_;
  }
  void TakeBuffer(std::uint32_t id) {
    if (further_ != 0) {
      --further_;
    } else {
      TakeFrame(board_.host(kBuffers + kBufferSize * id));
    }
    receive_.Offer(id);
  }
  // By the first of its buffers.
  void TakeFrame(const std::uint8_t* buffer) {
    FullHeader header;
    std::memcpy(&header, buffer, sizeof(header));
    further_ = header.buffers - 1U;
    const std::uint8_t* const frame = buffer + sizeof(header);
    if (!IsOurs(frame)) {
      return;
    }
    const std::uint64_t count = CountOf(frame);
    if (count == kLastFrame) {
      over_ = true;
      return;
    }
    if (operation_ == Operation::kEcho && !idle_.empty()) {
      Send(count);
    }
    ++frames_;
    errors_ += count < expected_ ? 1 : 0;
    expected_ = count + 1;
  }

  Board& board_;
  Shared& shared_;
  const Operation operation_;
  const std::size_t size_;
  virtio::test::MmioDriver registers_ = board_.registers();
  DriverRing receive_, transmit_;
  std::vector<std::uint32_t> idle_;
  unsigned further_ = 0;  // buffers of the frame that is being taken
  bool over_ = false;
  std::uint64_t next_count_ = 0;  // of frames that are sent
  std::uint64_t expected_ = 0;    // of frames that come
  std::uint64_t frames_ = 0, kicks_ = 0, errors_ = 0;
};

int Main(int argc, char** argv) NO_THREAD_SAFETY_ANALYSIS {
  const std::string_view words = argc == 3 ? argv[2] : "";
  const std::size_t colon = words.find(':');
  const std::string_view word = words.substr(0, colon);
  const std::size_t size =
      colon == std::string_view::npos ? 0 : std::strtoul(argv[2] + colon + 1, nullptr, 10);
  if (size < kLeastFrame || size > kMostFrame || (word != "send" && word != "receive" && word != "echo")) {
    std::fputs("usage: gyre-net-device INTERFACE send|receive|echo:SIZE\n", stderr);
    return 2;
  }
  const Operation operation = word == "send"   ? Operation::kSend
                              : word == "echo" ? Operation::kEcho
                                               : Operation::kReceive;
  BigLock lock;
  lock.Lock();
  Board board(lock, "net", std::string("tap=") + argv[1], std::nullopt);
  Driver driver(board, operation, size);
  std::atomic<bool> over{false};
  std::thread vcpu([&] {
    driver.Run();
    over.store(true);
    board.Wake();
  });
  board.Run(over);
  vcpu.join();
  driver.Print();
  return 0;
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) { return gyre::bench::Main(argc, argv); }
