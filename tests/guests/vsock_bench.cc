// The driver that `tools/bench vsock` measures sockets with, under any VMM that has
// virtio-mmio slots where ours are. It polls the rings and takes no interrupt. The host
// connects to port 5000, one connection after the other, and the command line says what
// then happens to it,
//
//   send: bytes as fast as they go    receive: bytes go nowhere    echo: bytes go back
//
// It says "begin" when it is ready, and when somebody connects to port 5001 "phase BYTES
// KICKS ERRORS". Buffers, packets and credit are of the sizes that Linux's driver has.
#include "runtime/stream_bench.h"

using namespace guest;

namespace {

constexpr std::uint32_t kVsock = 19;
constexpr unsigned kEventQueue = 2;
constexpr std::uint32_t kPort = 5000, kEndPort = 5001;

// virtio 1.2, 5.10.6.
struct Header {
  std::uint64_t src_cid, dst_cid;
  std::uint32_t src_port, dst_port, len;
  std::uint16_t type, op;
  std::uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
static_assert(sizeof(Header) == 44);
constexpr std::uint16_t kRequest = 1, kResponse = 2, kReset = 3, kShutdown = 4, kData = 5, kCreditUpdate = 6,
                        kCreditRequest = 7;
constexpr std::uint16_t kStream = 1;

constexpr std::uint32_t kCredit = 256 * 1024;
constexpr std::uint32_t kTellAfter = kCredit - 64 * 1024;  // when there is no room for a large packet
constexpr std::uint32_t kPacket = 64 * 1024;

struct alignas(64) Outgoing {
  PolledRing::Descriptor table[2];
  Header header;
  std::uint8_t bytes[256];  // of an echo
};

PacketDevice vsock;
PolledRing event;
Outgoing outgoing[PolledRing::kEntries];
std::uint64_t cid;
std::uint64_t bytes, errors;

// The one connection that there is.
struct {
  bool open;
  std::uint32_t host_port;
  std::uint32_t received, told, sent;
  std::uint32_t host_buffer, host_forwarded;
} connection;

Outgoing& NextOutgoing() {
  while (!vsock.has_idle()) {
    vsock.PublishTransmit();
    vsock.Reclaim();
  }
  return outgoing[vsock.TakeIdle()];
}

// `payload`: where `size` bytes are.
void Send(Outgoing& to, std::uint16_t op, std::uint32_t port, std::uint64_t payload, std::uint32_t size) {
  to.header = {.src_cid = cid,
               .dst_cid = 2,
               .src_port = kPort,
               .dst_port = port,
               .len = size,
               .type = kStream,
               .op = op,
               .flags = 0,
               .buf_alloc = kCredit,
               .fwd_cnt = connection.received};
  connection.told = connection.received;
  connection.sent += size;
  const auto index = static_cast<std::uint32_t>(&to - outgoing);
  const bool more = size != 0;
  to.table[0] = {.address = AddressOf(&to.header),
                 .size = sizeof(Header),
                 .flags = more ? PolledRing::kNext : std::uint16_t{0},
                 .next = 1};
  to.table[1] = {.address = payload, .size = size, .flags = 0, .next = 0};
  vsock.transmit.descriptors[index] = {
      .address = AddressOf(to.table),
      .size = static_cast<std::uint32_t>(sizeof(to.table[0])) * (more ? 2 : 1),
      .flags = PolledRing::kIndirect,
      .next = 0};
  vsock.transmit.Offer(index);
}

void Tell(std::uint16_t op, std::uint32_t port) { Send(NextOutgoing(), op, port, 0, 0); }

void Echo(std::uint64_t from, std::uint32_t size) {
  Outgoing& to = NextOutgoing();
  if (size > sizeof(to.bytes)) {
    Fail("vsock_bench", "more to echo than it can do");
  }
  for (std::uint32_t i = 0; i < size; ++i) {
    to.bytes[i] = Read<std::uint8_t>(from + i);
  }
  Send(to, kData, connection.host_port, AddressOf(to.bytes), size);
}

void TakeData(const Header& header, std::uint64_t payload, Operation operation) {
  if (!connection.open || header.src_port != connection.host_port) {
    ++errors;
    return;
  }
  bytes += header.len;
  connection.received += header.len;
  if (operation == Operation::kEcho) {
    Echo(payload, header.len);
  } else if (connection.received - connection.told >= kTellAfter) {
    Tell(kCreditUpdate, connection.host_port);
  }
}

// False if it was the last one.
bool TakePacket(std::uint64_t at, Operation operation) {
  const Header header = *reinterpret_cast<const Header*>(at);
  if (header.src_port == connection.host_port) {
    connection.host_buffer = header.buf_alloc;
    connection.host_forwarded = header.fwd_cnt;
  }
  switch (header.op) {
    case kRequest:
      if (header.dst_port == kEndPort) {
        return false;
      }
      connection = {.open = true,
                    .host_port = header.src_port,
                    .received = 0,
                    .told = 0,
                    .sent = 0,
                    .host_buffer = header.buf_alloc,
                    .host_forwarded = 0};
      Tell(kResponse, header.src_port);
      break;
    case kData:
      TakeData(header, at + sizeof(Header), operation);
      break;
    case kCreditRequest:
      Tell(kCreditUpdate, header.src_port);
      break;
    case kShutdown:
      connection.open = false;
      Tell(kReset, header.src_port);
      break;
    case kReset:
      connection.open = false;
      break;
    default:
      break;
  }
  return true;
}

bool Receive(Operation operation) {
  bool goes_on = true;
  for (PolledRing::Used used; goes_on && vsock.receive.Take(used);) {
    goes_on = TakePacket(kBuffers + kBufferSize * used.id, operation);
    vsock.receive.Offer(used.id);
  }
  vsock.PublishTransmit();
  vsock.PublishReceive();
  return goes_on;
}

void SendData() {
  while (connection.open && vsock.has_idle()) {
    const std::uint32_t in_flight = connection.sent - connection.host_forwarded;
    const std::uint32_t room = connection.host_buffer > in_flight ? connection.host_buffer - in_flight : 0;
    if (room == 0) {
      break;
    }
    const std::uint32_t size = room < kPacket ? room : kPacket;
    bytes += size;
    Send(NextOutgoing(), kData, connection.host_port, kPayload, size);
  }
  vsock.PublishTransmit();
}

void Start() {
  if (!vsock.Find(kVsock)) {
    Fail("vsock_bench", "there is no socket device");
  }
  vsock.Negotiate(0);
  vsock.AddRings();
  vsock.AddRing(kEventQueue, event);
  if (!vsock.Start()) {
    Fail("vsock_bench", "the socket device does not come up");
  }
  cid = vsock.Config(0);
  TouchPayload(kPacket);
  vsock.Fill();
}

}  // namespace

void GuestMain(const BootInfo& boot) {
  const Operation operation = ParseOperation(boot.cmdline);
  Start();
  Print("begin\n");
  while (Receive(operation)) {
    vsock.Reclaim();
    if (operation == Operation::kSend) {
      SendData();
    }
    Pause();
  }
  Print("phase ", bytes, " ", vsock.kicks(), " ", errors, "\n");
  Pass("vsock_bench");
}
