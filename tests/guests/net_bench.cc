// The driver that `tools/bench net` measures networks with, under any VMM that has
// virtio-mmio slots where ours are. It polls the rings and takes no interrupt, so what is
// measured is the device's side. The command line is OP:SIZE, of frames without the
// virtio header,
//
//   send: frames as fast as they go    receive: count what comes    echo: send back what comes
//
// It says "begin" when it is ready, and after a frame that is marked as the last one
// "phase FRAMES KICKS ERRORS". Offloads, mergeable buffers of a page and a large frame in
// pieces are as Linux's driver has them. Frames: tools/bench_support/net/frame.h.
#include "runtime/stream_bench.h"

using namespace guest;

namespace {

constexpr std::uint32_t kNet = 1;
constexpr std::uint32_t kCsum = 1U << 0, kGuestCsum = 1U << 1, kGuestTso4 = 1U << 7, kHostTso4 = 1U << 11,
                        kMergeable = 1U << 15;

// virtio 1.2, 5.1.6.
struct NetHeader {
  std::uint8_t flags, gso_type;
  std::uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
static_assert(sizeof(NetHeader) == 12);
constexpr std::uint8_t kNeedsCsum = 1, kGsoTcp4 = 1;

constexpr unsigned kHeaders = 14 + 20 + 20;  // Ethernet, IPv4, TCP
constexpr unsigned kMarkAt = 14 + 20 + 4;    // TCP's sequence number
constexpr std::uint32_t kMark = 0x65727967;  // "gyre"
constexpr unsigned kCountAt = kHeaders;
constexpr std::uint16_t kFirst = kCountAt + 8;  // of a large frame, in front of its pages
constexpr std::uint64_t kLast = ~std::uint64_t{0};
constexpr std::uint16_t kSegment = 1448;
constexpr std::uint32_t kMostPlain = 1514;
constexpr std::uint32_t kMostFrame = 65536;

constexpr std::uint64_t kPiece = 32 * 1024;

struct alignas(64) Outgoing {
  PolledRing::Descriptor table[3];
  NetHeader header;
  std::uint8_t frame[kMostPlain];
};
static_assert(offsetof(Outgoing, frame) == offsetof(Outgoing, header) + sizeof(NetHeader));

PacketDevice net;
Outgoing outgoing[PolledRing::kEntries];
std::uint64_t next_count;  // of frames that are sent
std::uint64_t expected;    // of frames that come
std::uint64_t frames, errors;

template <typename T>
void Put(Outgoing& to, unsigned offset, T value) {
  Write<T>(AddressOf(to.frame) + offset, value);
}
std::uint16_t Big(std::uint32_t value) {
  return static_cast<std::uint16_t>((value & 0xff) << 8 | (value >> 8 & 0xff));
}

void Prepare(unsigned index, std::uint32_t size) {
  Outgoing& to = outgoing[index];
  const bool large = size > kMostPlain;
  to.header = {.flags = kNeedsCsum,
               .gso_type = large ? kGsoTcp4 : std::uint8_t{0},
               .hdr_len = large ? kFirst : std::uint16_t{kHeaders},
               .gso_size = large ? kSegment : std::uint16_t{0},
               .csum_start = 34,
               .csum_offset = 16,
               .num_buffers = 0};
  Put<std::uint32_t>(to, 0, 2);  // 02:00:00:00:00:01
  Put<std::uint16_t>(to, 4, 0x0100);
  Put<std::uint32_t>(to, 6, 2);
  Put<std::uint16_t>(to, 10, 0x0200);
  Put<std::uint16_t>(to, 12, Big(0x0800));
  Put<std::uint16_t>(to, 14, 0x45);
  Put<std::uint16_t>(to, 16, Big(size - 14));
  Put<std::uint16_t>(to, 22, 0x0640);  // TCP, 64 hops
  Put<std::uint32_t>(to, 26, 0x0200000a);
  Put<std::uint32_t>(to, 30, 0x0100000a);
  Put<std::uint32_t>(to, kMarkAt, kMark);
  Put<std::uint8_t>(to, 46, 0x50);
  const std::uint64_t start = AddressOf(&to.header);
  PolledRing::Descriptor& descriptor = net.transmit.descriptors[index];
  if (!large) {
    descriptor = {.address = start,
                  .size = static_cast<std::uint32_t>(sizeof(NetHeader)) + size,
                  .flags = 0,
                  .next = 0};
    return;
  }
  to.table[0] = {.address = start, .size = sizeof(NetHeader) + kFirst, .flags = PolledRing::kNext, .next = 1};
  const std::uint32_t rest = size - kFirst;
  const std::uint32_t piece = rest < kPiece ? rest : static_cast<std::uint32_t>(kPiece);
  to.table[1] = {.address = kPayload, .size = piece, .flags = PolledRing::kNext, .next = 2};
  to.table[2] = {.address = kPayload + kPiece, .size = rest - piece, .flags = 0, .next = 0};
  descriptor = {
      .address = AddressOf(to.table), .size = sizeof(to.table), .flags = PolledRing::kIndirect, .next = 0};
}

void Send(std::uint64_t count) {
  const std::uint16_t index = net.TakeIdle();
  Put<std::uint64_t>(outgoing[index], kCountAt, count);
  net.transmit.Offer(index);
}

// All buffers of a frame are the device's again; true if it was not the last frame.
bool TakeFrame(PolledRing::Used used, Operation operation) {
  const std::uint64_t at = kBuffers + kBufferSize * used.id;
  const unsigned buffers = Read<std::uint16_t>(at + offsetof(NetHeader, num_buffers));
  const bool ours = Read<std::uint32_t>(at + sizeof(NetHeader) + kMarkAt) == kMark;
  const auto count = Read<std::uint64_t>(at + sizeof(NetHeader) + kCountAt);
  net.receive.Offer(used.id);
  for (unsigned i = 1; i < buffers; ++i) {
    while (!net.receive.Take(used)) {
      Pause();
    }
    net.receive.Offer(used.id);
  }
  if (!ours) {
    return true;
  }
  if (count == kLast) {
    return false;
  }
  if (operation == Operation::kEcho && net.has_idle()) {
    Send(count);
  }
  ++frames;
  errors += count < expected ? 1 : 0;
  expected = count + 1;
  return true;
}

// What has come; false at the end.
bool Receive(Operation operation) {
  bool goes_on = true;
  for (PolledRing::Used used; goes_on && net.receive.Take(used);) {
    goes_on = TakeFrame(used, operation);
  }
  if (operation == Operation::kEcho) {
    net.PublishTransmit();
  }
  net.PublishReceive();
  return goes_on;
}

void Run(Operation operation) {
  while (Receive(operation)) {
    net.Reclaim();
    for (; operation == Operation::kSend && net.has_idle(); ++frames) {
      Send(next_count++);
    }
    net.PublishTransmit();
    Pause();
  }
}

void Start(std::uint32_t size) {
  if (!net.Find(kNet)) {
    Fail("net_bench", "there is no network");
  }
  net.Negotiate(kCsum | kGuestCsum | kGuestTso4 | kHostTso4 | kMergeable);
  net.AddRings();
  if (!net.Start()) {
    Fail("net_bench", "the network does not come up");
  }
  TouchPayload(2 * kPiece);
  for (unsigned i = 0; i < PolledRing::kEntries; ++i) {
    Prepare(i, size);
  }
  net.Fill();
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  const char* text = boot.cmdline;
  const Operation operation = ParseOperation(text);
  while (*text != 0 && *text != ':') {
    ++text;
  }
  const std::uint64_t size = *text == ':' ? ParseDecimal(text + 1) : 0;
  if (size < kHeaders + 8 || size > kMostFrame) {
    Fail("net_bench", "frames of a size that it cannot do");
  }
  Start(static_cast<std::uint32_t>(size));
  Print("begin\n");
  Run(operation);
  Print("phase ", frames, " ", net.kicks(), " ", errors, "\n");
  Pass("net_bench");
}
