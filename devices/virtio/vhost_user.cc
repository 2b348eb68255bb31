#include "devices/virtio/vhost_user.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/unix_listener.h"
#include "gyre/devices/virtio/device.h"

namespace gyre::virtio {
namespace {

constexpr std::int64_t kLeastDelay = 100'000'000;
constexpr std::int64_t kMostDelay = 5'000'000'000;

template <typename T>
std::span<const std::byte> BytesOf(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

Result<UniqueFd> ConnectTo(const std::string& path) {
  if (path.empty() || path.size() > kMaxUnixPath) {
    return Fail(Error::Usage(format("'{}': is not a socket's name", path)));
  }
  UniqueFd socket = TRY(NewUnixSocket());
  const UnixAddress address(path);
  if (::connect(socket.get(), address.get(), address.size()) != 0) {
    return Fail(Error::Sys(path, errno, ErrorKind::kUsage));
  }
  return socket;
}

}  // namespace

VhostUser::VhostUser(loop::MainLoop& loop, VhostOptions options)
    : loop_(loop),
      options_(std::move(options)),
      retry_(loop, loop::ClockType::kRealtime, [this] { Retry(); }, loop::Tier::kIo) {}

Result<std::unique_ptr<VhostUser>> VhostUser::Open(loop::MainLoop& loop, VhostOptions options) {
  std::unique_ptr<VhostUser> user(new VhostUser(loop, std::move(options)));
  TRY(user->Connect());
  loop.WaitForIo([&] { return user->state_ != State::kGreeting; });
  if (user->state_ != State::kReady) {
    return Fail(Error::Usage(format("{}: the back end {}", user->options_.path, user->trouble_)));
  }
  user->opened_ = true;
  return user;
}

Status VhostUser::Connect() {
  UniqueFd socket = TRY(options_.connect ? options_.connect() : ConnectTo(options_.path));
  channel_ = std::make_unique<VhostChannel>(loop_, std::move(socket), options_.timeout_ns,
                                            [this](const std::string& what) { Broken(what); });
  state_ = State::kGreeting;
  Greet();
  return {};
}

// --- What it can do ---

void VhostUser::AskNumber(VhostRequest request, std::function<void(std::uint64_t)> done) {
  channel_->Ask(request, {}, sizeof(Le64), [done = std::move(done)](std::span<const std::byte> answer) {
    Le64 number;
    std::memcpy(&number, answer.data(), sizeof(number));
    done(number);
  });
}

void VhostUser::Greet() {
  AskNumber(VhostRequest::kGetFeatures, [this](std::uint64_t features) { GotFeatures(features); });
}

void VhostUser::GotFeatures(std::uint64_t features) {
  const std::uint64_t needed = kFeatureVersion1 | kVhostProtocolFeatures | (opened_ ? options_.features : 0);
  if (const std::uint64_t missing = needed & ~features; missing != 0) {
    return channel_->Break(format("lacks features that are needed: {:#x}", missing));
  }
  all_features_ = features;
  AskNumber(VhostRequest::kGetProtocolFeatures, [this](std::uint64_t more) { GotProtocolFeatures(more); });
}

void VhostUser::GotProtocolFeatures(std::uint64_t features) {
  protocol_features_ = features & (kVhostMultiQueue | kVhostReplyAck | kVhostConfig);
  if (options_.config_size != 0 && (features & kVhostConfig) == 0) {
    return channel_->Break("does not tell its configuration");
  }
  Tell(VhostRequest::kSetProtocolFeatures, Le64(protocol_features_));
  if ((protocol_features_ & kVhostReplyAck) != 0) {
    channel_->ExpectAcks();
  }
  channel_->Tell(VhostRequest::kSetOwner, {});
  AskQueues();
}

void VhostUser::AskQueues() {
  if ((protocol_features_ & kVhostMultiQueue) == 0) {
    return AskConfig();  // as many as a device of its kind has at least
  }
  AskNumber(VhostRequest::kGetQueueNum, [this](std::uint64_t queues) {
    if (queues < options_.queues) {
      return channel_->Break(format("has {} queues, not {}", queues, options_.queues));
    }
    AskConfig();
  });
}

void VhostUser::AskConfig() {
  if (options_.config_size == 0) {
    return Ready();
  }
  std::vector<std::byte> question(sizeof(VhostConfigHeader) + options_.config_size);
  const VhostConfigHeader header{
      .offset = 0U, .size = static_cast<std::uint32_t>(options_.config_size), .flags = 0U};
  std::memcpy(question.data(), &header, sizeof(header));
  channel_->Ask(
      VhostRequest::kGetConfig, question, question.size(), [this](std::span<const std::byte> answer) {
        VhostConfigHeader told;
        std::memcpy(&told, answer.data(), sizeof(told));
        if (told.offset != 0 || told.size != options_.config_size) {
          return channel_->Break(format("tells {} bytes of its configuration from {} on, not {} from 0 on",
                                        told.size.value(), told.offset.value(), options_.config_size));
        }
        const auto bytes = answer.subspan(sizeof(told));
        config_.assign(bytes.begin(), bytes.end());
        Ready();
      });
}

void VhostUser::Ready() {
  options_.features &= all_features_;
  state_ = State::kReady;
  connected_ns_ = loop_.Now(loop::ClockType::kRealtime);
  if (++connections_ > 1) {
    log::Warning("vhost-user {}: a back end is there again", options_.path);
  }
  if (owner_.connected) {
    owner_.connected();
  }
}

// --- Its end, and the next one ---

void VhostUser::Lose(std::string what) {
  if (channel_) {
    channel_->Break(std::move(what));
  }
}

void VhostUser::Broken(const std::string& what) {
  const std::string trouble = what;
  channel_.reset();
  const State before = std::exchange(state_, State::kNone);
  const std::int64_t now = loop_.Now(loop::ClockType::kRealtime);
  const bool lived = before == State::kReady && now - connected_ns_ >= kMostDelay;
  delay_ns_ = lived || delay_ns_ == 0 ? kLeastDelay : std::min(2 * delay_ns_, kMostDelay);
  const bool news = std::exchange(trouble_, trouble) != trouble || before == State::kReady;
  if (!opened_) {
    return;  // Open tells it
  }
  if (news) {
    log::Warning("vhost-user {}: the back end {}; the guest waits for one", options_.path, trouble);
  }
  retry_.Set(now + delay_ns_);
  if (before == State::kReady && owner_.lost) {
    owner_.lost(trouble);
  }
}

void VhostUser::Retry() {
  if (auto connected = Connect(); !connected) {
    delay_ns_ = std::min(2 * delay_ns_, kMostDelay);
    retry_.Set(loop_.Now(loop::ClockType::kRealtime) + delay_ns_);
  }
}

// --- Its rings ---

template <typename T>
void VhostUser::Tell(VhostRequest request, const T& payload, std::span<const int> fds) {
  channel_->Tell(request, BytesOf(payload), fds);
}

// What it calls user addresses are guest addresses: it needs no other.
void VhostUser::Start(std::uint64_t driver_features, const SharedRanges& memory, std::uint64_t rings,
                      std::span<const VhostDoorbells> doorbells) {
  if (memory.size() > kVhostMostRegions) {
    return Lose(format("takes {} ranges of memory, not {}", kVhostMostRegions, memory.size()));
  }
  Tell(VhostRequest::kSetFeatures,
       Le64((driver_features & options_.features) | kFeatureVersion1 | kVhostProtocolFeatures));
  std::vector<std::byte> table(sizeof(Le64) + sizeof(VhostRegion) * memory.size());
  const Le64 count(memory.size());
  std::memcpy(table.data(), &count, sizeof(count));
  std::vector<int> fds;
  for (std::size_t i = 0; i < memory.size(); ++i) {
    const VhostRegion region{.guest_address = memory[i].guest_address,
                             .size = memory[i].size,
                             .user_address = memory[i].guest_address,
                             .mmap_offset = memory[i].file_offset};
    std::memcpy(table.data() + sizeof(count) + sizeof(region) * i, &region, sizeof(region));
    fds.push_back(memory[i].fd);
  }
  channel_->Tell(VhostRequest::kSetMemTable, table, fds);
  for (std::uint32_t i = 0; i < doorbells.size(); ++i) {
    const std::uint64_t base = rings + VhostRing::kBytes * i;
    Tell(VhostRequest::kSetVringNum,
         VhostVringState{.index = i, .number = std::uint32_t{VhostRing::kEntries}});
    Tell(VhostRequest::kSetVringBase, VhostVringState{.index = i, .number = 0U});
    Tell(VhostRequest::kSetVringAddr, VhostVringAddress{.index = i,
                                                        .flags = 0U,
                                                        .descriptors = base,
                                                        .used = base + VhostRing::kUsed,
                                                        .available = base + VhostRing::kAvailable,
                                                        .log = std::uint64_t{0}});
    const Le64 number(std::uint64_t{i});
    Tell(VhostRequest::kSetVringCall, number, std::span(&doorbells[i].call, 1));
    Tell(VhostRequest::kSetVringKick, number, std::span(&doorbells[i].kick, 1));
    Tell(VhostRequest::kSetVringEnable, VhostVringState{.index = i, .number = 1U});
  }
}

void VhostUser::Stop(unsigned queues, std::function<void()> stopped) {
  for (std::uint32_t i = 0; i < queues; ++i) {
    const VhostVringState which{.index = i, .number = 0U};
    channel_->Ask(
        VhostRequest::kGetVringBase, BytesOf(which), sizeof(VhostVringState),
        [this, i, last = i + 1 == queues ? std::move(stopped) : nullptr](std::span<const std::byte> answer) {
          VhostVringState told;
          std::memcpy(&told, answer.data(), sizeof(told));
          if (told.index != i) {
            return channel_->Break(format("stops queue {} instead of {}", told.index.value(), i));
          }
          if (last) {
            last();
          }
        });
  }
}

}  // namespace gyre::virtio
