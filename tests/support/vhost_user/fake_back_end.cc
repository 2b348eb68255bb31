#include "tests/support/vhost_user/fake_back_end.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "devices/virtio/block_config.h"
#include "gyre/base/check.h"
#include "gyre/base/unix_listener.h"

namespace gyre::virtio::test {
namespace {

struct Descriptor {
  Le64 address;
  Le32 size;
  Le16 flags;
  Le16 next;
};
constexpr std::uint16_t kNext = 1;
constexpr std::uint16_t kWritable = 2;

template <typename T>
T Load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
template <typename T>
std::vector<std::byte> BytesOf(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}
// The rings are aligned.
std::uint16_t* Index(std::byte* at) {
  return static_cast<std::uint16_t*>(static_cast<void*>(at));  // NOLINT(bugprone-casting-through-void)
}

}  // namespace

FakeBackEnd::FakeBackEnd(std::string path, Options options, bool threaded)
    : options_(std::move(options)), path_(std::move(path)), wake_(NewEventFd().value()) {
  ::unlink(path_.c_str());
  listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const UnixAddress address(path_);
  CHECK(::bind(listener_.get(), address.get(), address.size()) == 0 && ::listen(listener_.get(), 4) == 0);
  if (threaded) {
    thread_ = std::thread([this] {
      while (!end_) {
        Step(1000);
      }
    });
  }
}

FakeBackEnd::~FakeBackEnd() {
  end_ = true;
  SignalEventFd(wake_.get());
  if (thread_.joinable()) {
    thread_.join();
  }
  ::unlink(path_.c_str());
}

void FakeBackEnd::Hangup() {
  hangup_ = true;
  SignalEventFd(wake_.get());
}

void FakeBackEnd::SendRaw(std::span<const std::byte> bytes) {
  {
    const std::lock_guard lock(mutex_);
    raw_.assign(bytes.begin(), bytes.end());
  }
  SignalEventFd(wake_.get());
}

void FakeBackEnd::ReadDisk(std::uint64_t offset, std::span<std::byte> out) {
  const std::lock_guard lock(mutex_);
  std::ranges::copy(std::span(disk_).subspan(offset, out.size()), out.begin());
}

void FakeBackEnd::Scribble(std::uint64_t offset, std::span<const std::byte> bytes) {
  const Ring& ring = rings_.front();
  const std::uint64_t size = 4 + 8 * std::uint64_t{ring.size};
  if (ring.enabled && !regions_.empty() && offset < size) {
    std::ranges::copy(bytes.first(std::min<std::size_t>(bytes.size(), size - offset)),
                      At(ring.address.used, true) + offset);
  }
}

void FakeBackEnd::Step(int timeout_ms) {
  std::vector<pollfd> fds = {{.fd = wake_.get(), .events = POLLIN, .revents = 0},
                             {.fd = listener_.get(), .events = POLLIN, .revents = 0},
                             {.fd = connection_.get(), .events = POLLIN, .revents = 0}};
  for (const Ring& ring : rings_) {
    fds.push_back({.fd = ring.enabled ? ring.kick.get() : -1, .events = POLLIN, .revents = 0});
  }
  ::poll(fds.data(), fds.size(), timeout_ms);
  if (fds[0].revents != 0) {
    DrainEventFd(wake_.get());
    const std::lock_guard lock(mutex_);
    if (!raw_.empty() && connection_) {
      (void)::send(connection_.get(), raw_.data(), raw_.size(), MSG_NOSIGNAL);
      raw_.clear();
    }
  }
  if (hangup_.exchange(false) || (fds[2].revents != 0 && !Receive())) {
    connection_.Reset();
    rings_ = {};
    regions_.clear();
    return;
  }
  if (fds[1].revents != 0 && !connection_) {
    connection_ = AcceptFrom(listener_.get());
  }
  for (std::size_t i = 0; i < rings_.size(); ++i) {
    if (fds[3 + i].revents != 0 && rings_[i].enabled) {
      DrainEventFd(rings_[i].kick.get());
      ServeRing(rings_[i]);
    }
  }
}

// One message; false at the end.
bool FakeBackEnd::Receive() {
  Message message;
  iovec piece{.iov_base = &message.header, .iov_len = sizeof(message.header)};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 8)> control{};
  msghdr what{};
  what.msg_iov = &piece;
  what.msg_iovlen = 1;
  what.msg_control = control.data();
  what.msg_controllen = control.size();
  if (::recvmsg(connection_.get(), &what, MSG_WAITALL | MSG_CMSG_CLOEXEC) !=
      static_cast<ssize_t>(sizeof(message.header))) {
    return false;
  }
  std::vector<UniqueFd> fds;
  if (const cmsghdr* const header = CMSG_FIRSTHDR(&what)) {
    for (std::size_t at = 0; CMSG_LEN(at) < header->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + at, sizeof(fd));
      fds.emplace_back(fd);
    }
  }
  message.payload.resize(message.header.size);
  // What we send is in one piece, and is there.
  for (std::size_t have = 0; have < message.payload.size();) {
    const ssize_t got =
        ::recv(connection_.get(), message.payload.data() + have, message.payload.size() - have, 0);
    if (got <= 0) {
      if (got < 0 && errno == EAGAIN) {
        continue;
      }
      return false;
    }
    have += static_cast<std::size_t>(got);
  }
  Answer(message, std::move(fds));
  return true;
}

void FakeBackEnd::Send(VhostRequest request, std::vector<std::byte> payload) {
  Message answer{.header = {.request = static_cast<std::uint32_t>(request),
                            .flags = kVhostVersion | kVhostReply,
                            .size = static_cast<std::uint32_t>(payload.size())},
                 .payload = std::move(payload)};
  if (options_.change && !options_.change(request, answer)) {
    return;
  }
  auto bytes = BytesOf(answer.header);
  bytes.insert(bytes.end(), answer.payload.begin(), answer.payload.end());
  (void)::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
}

void FakeBackEnd::Answer(const Message& request, std::vector<UniqueFd> fds) {
  const auto which = static_cast<VhostRequest>(request.header.request.value());
  const auto state = request.payload.size() == sizeof(VhostVringState)
                         ? Load<VhostVringState>(request.payload.data())
                         : VhostVringState();
  Ring& ring = rings_.at(state.index % rings_.size());
  switch (which) {
    case VhostRequest::kGetFeatures:
      return Send(which, BytesOf(Le64(options_.features)));
    case VhostRequest::kGetProtocolFeatures:
      return Send(which, BytesOf(Le64(options_.protocol_features)));
    case VhostRequest::kGetQueueNum:
      return Send(which, BytesOf(Le64(options_.queues)));
    case VhostRequest::kGetConfig: {
      std::vector<std::byte> answer = request.payload;
      BlockConfig config;
      config.capacity = kDiskSize / kSectorSize;
      config.block_size = 512U;
      std::memcpy(answer.data() + sizeof(VhostConfigHeader), &config, sizeof(config));
      return Send(which, std::move(answer));
    }
    case VhostRequest::kGetVringBase:
      ring.enabled = false;
      ++stopped_;
      return Send(which,
                  BytesOf(VhostVringState{.index = state.index, .number = std::uint32_t{ring.available}}));
    case VhostRequest::kSetFeatures:
      driver_features_ = Load<Le64>(request.payload.data());
      break;
    case VhostRequest::kSetMemTable:
      SetMemTable(request, std::move(fds));
      break;
    case VhostRequest::kSetVringNum:
      ring.size = state.number;
      break;
    case VhostRequest::kSetVringBase:
      ring.available = ring.used = static_cast<std::uint16_t>(state.number);
      break;
    case VhostRequest::kSetVringAddr: {
      const auto address = Load<VhostVringAddress>(request.payload.data());
      rings_.at(address.index).address = address;
      break;
    }
    case VhostRequest::kSetVringCall:
      ring.call = std::move(fds.at(0));
      break;
    case VhostRequest::kSetVringKick:
      ring.kick = std::move(fds.at(0));
      break;
    case VhostRequest::kSetVringEnable:
      ring.enabled = state.number != 0;
      ++started_;
      break;
    default:
      break;
  }
  if ((request.header.flags & kVhostNeedReply) != 0) {
    Send(which, BytesOf(Le64(std::uint64_t{0})));
  }
}

void FakeBackEnd::SetMemTable(const Message& request, std::vector<UniqueFd> fds) {
  regions_.clear();
  for (std::size_t i = 0; i < fds.size(); ++i) {
    const auto told = Load<VhostRegion>(request.payload.data() + 8 + sizeof(VhostRegion) * i);
    regions_.push_back({.guest_address = told.guest_address,
                        .user_address = told.user_address,
                        .size = told.size,
                        .offset = told.mmap_offset,
                        .mapping = Mapping::File(fds[i].get(), 0, told.size + told.mmap_offset,
                                                 PROT_READ | PROT_WRITE, MAP_SHARED)
                                       .value()});
  }
}

std::byte* FakeBackEnd::At(std::uint64_t address, bool user) {
  for (const Region& region : regions_) {
    const std::uint64_t start = user ? region.user_address : region.guest_address;
    if (address >= start && address - start < region.size) {
      return region.mapping.data() + region.offset + (address - start);
    }
  }
  CHECK(false);
  return nullptr;
}

std::vector<std::uint16_t> FakeBackEnd::TakeHeads(Ring& ring, std::size_t most) {
  std::byte* const available = At(ring.address.available, true);
  std::vector<std::uint16_t> heads;
  const std::uint16_t end = __atomic_load_n(Index(available + 2), __ATOMIC_ACQUIRE);
  for (; ring.available != end && heads.size() < most; ++ring.available) {
    heads.push_back(Load<Le16>(available + 4 + 2 * (ring.available % ring.size)));
  }
  return heads;
}

// What is sent is received, as far as there are buffers.
void FakeBackEnd::ServeNetwork(Ring& ring) {
  if (&ring == &rings_[1]) {
    for (const std::uint16_t head : TakeHeads(ring, SIZE_MAX)) {
      std::vector<std::byte> frame;
      for (const Piece& piece : PiecesOf(head, ring)) {
        frame.insert(frame.end(), piece.data, piece.data + piece.size);
      }
      frames_.push_back(std::move(frame));
      Put(ring, head, 0);
    }
    SignalEventFd(ring.call.get());
  }
  Ring& receive = rings_[0];
  const auto heads = receive.enabled ? TakeHeads(receive, frames_.size()) : std::vector<std::uint16_t>();
  for (const std::uint16_t head : heads) {
    const auto& frame = frames_.front();
    std::size_t done = 0;
    for (const Piece& piece : PiecesOf(head, receive)) {
      const std::size_t size = std::min<std::size_t>(piece.size, frame.size() - done);
      std::memcpy(piece.data, frame.data() + done, size);
      done += size;
    }
    Put(receive, head, static_cast<std::uint32_t>(done));
    frames_.pop_front();
    SignalEventFd(receive.call.get());
  }
}

void FakeBackEnd::ServeRing(Ring& ring) {
  if (options_.network) {
    return ServeNetwork(ring);
  }
  auto heads = TakeHeads(ring, SIZE_MAX);
  const Mode mode = mode_;
  taken_ += static_cast<unsigned>(heads.size());
  if (mode == Mode::kHold) {
    return;
  }
  if (mode == Mode::kBackwards) {
    std::ranges::reverse(heads);
  }
  for (const std::uint16_t head : heads) {
    const std::uint32_t written = Work(head, ring);
    Put(ring, mode == Mode::kBadId ? head + 7U : head, mode == Mode::kTooLong ? UINT32_MAX : written);
    ++finished_;
  }
  if (mode == Mode::kJump) {
    ring.used = static_cast<std::uint16_t>(ring.used + 100);
    __atomic_store_n(Index(At(ring.address.used, true) + 2), ring.used, __ATOMIC_RELEASE);
  }
  SignalEventFd(ring.call.get());
}

std::vector<FakeBackEnd::Piece> FakeBackEnd::PiecesOf(std::uint16_t head, const Ring& ring) {
  const std::byte* const table = At(ring.address.descriptors, true);
  std::vector<Piece> pieces;
  for (std::uint16_t at = head;;) {
    const auto descriptor = Load<Descriptor>(table + sizeof(Descriptor) * at);
    pieces.push_back({.data = At(descriptor.address, false),
                      .size = descriptor.size,
                      .writable = (descriptor.flags & kWritable) != 0});
    if ((descriptor.flags & kNext) == 0) {
      return pieces;
    }
    at = descriptor.next;
  }
}

// A disk's request.
std::uint32_t FakeBackEnd::Work(std::uint16_t head, const Ring& ring) {
  const std::vector<Piece> pieces = PiecesOf(head, ring);
  const auto header = Load<BlockHeader>(pieces.front().data);
  std::uint64_t offset = header.sector * kSectorSize % kDiskSize;
  std::uint32_t written = 0;
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 1; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    written += piece.writable ? piece.size : 0;
    if (i + 1 == pieces.size()) {
      *piece.data = std::byte{0};
      break;
    }
    const std::size_t size = std::min<std::size_t>(piece.size, kDiskSize - offset);
    if (piece.writable) {
      std::memcpy(piece.data, disk_.data() + offset, size);
    } else {
      std::memcpy(disk_.data() + offset, piece.data, size);
    }
    offset += size;
  }
  return written;
}

void FakeBackEnd::Put(Ring& ring, std::uint32_t id, std::uint32_t written) {
  std::byte* const used = At(ring.address.used, true);
  const Le32 element[2] = {id, written};
  std::memcpy(used + 4 + 8 * (ring.used % ring.size), element, sizeof(element));
  ++ring.used;
  __atomic_store_n(Index(used + 2), ring.used, __ATOMIC_RELEASE);
}

}  // namespace gyre::virtio::test
