// The control queue's commands (virtio 1.2, 5.1.6.5), and the filter that they set.
#include <array>
#include <optional>

#include "devices/virtio/net_state.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::size_t kMostAddresses = 64;  // of each of the two tables; beyond that all get through
constexpr unsigned kVlans = 4096;
constexpr Mac kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

// The chain's readable part, from front to back; all of it copied once.
class Reader {
 public:
  explicit Reader(const Chain& chain) : chain_(chain) {}
  template <WirePod T>
  std::optional<T> Next() {
    T value;
    if (chain_.Read(offset_, std::as_writable_bytes(std::span(&value, 1))) != sizeof(T)) {
      return std::nullopt;
    }
    offset_ += sizeof(T);
    return value;
  }
  std::uint64_t left() const { return chain_.readable_size() - offset_; }
  void Skip(std::uint64_t bytes) { offset_ += bytes; }
  bool AtEnd() const { return left() == 0; }

 private:
  const Chain& chain_;
  std::uint64_t offset_ = 0;
};

bool SetReceiveMode(NetFilter& filter, std::uint8_t command, Reader& data) {
  static constexpr std::array<bool NetFilter::*, 6> kModes = {
      &NetFilter::promiscuous,  &NetFilter::all_multicast, &NetFilter::all_unicast,
      &NetFilter::no_multicast, &NetFilter::no_unicast,    &NetFilter::no_broadcast};
  const auto on = data.Next<std::uint8_t>();
  if (!on || command >= kModes.size()) {
    return false;
  }
  filter.*kModes.at(command) = *on != 0;
  return true;
}

bool ReadTable(Reader& data, std::vector<MacAddress>& table, bool& overflow) {
  const auto count = data.Next<Le32>();
  if (!count || data.left() / sizeof(Mac) < count->value()) {
    return false;
  }
  overflow = *count > kMostAddresses;
  table.clear();
  for (std::uint32_t i = 0; i < *count && !overflow; ++i) {
    table.push_back(*data.Next<Mac>());
  }
  if (overflow) {
    data.Skip(sizeof(Mac) * std::uint64_t{*count});
  }
  return true;
}

bool SetAddresses(NetFilter& filter, std::uint8_t command, Reader& data) {
  if (command == 1) {
    const auto mac = data.Next<Mac>();
    filter.mac = mac.value_or(filter.mac);
    return mac && data.AtEnd();
  }
  return command == 0 && ReadTable(data, filter.unicast, filter.unicast_overflow) &&
         ReadTable(data, filter.multicast, filter.multicast_overflow) && data.AtEnd();
}

bool SetVlan(NetFilter& filter, std::uint8_t command, Reader& data) {
  const auto id = data.Next<Le16>();
  if (!id || *id >= kVlans || command > 1) {
    return false;
  }
  const std::uint64_t bit = std::uint64_t{1} << (*id % 64);
  std::uint64_t& word = filter.vlans.at(*id / 64);
  word = command == 0 ? word | bit : word & ~bit;
  return true;
}

bool SetPairs(NetState& state, std::uint8_t command, Reader& data) {
  const auto pairs = data.Next<Le16>();
  if (command != 0 || !pairs || *pairs == 0 || *pairs > state.backend->pairs()) {
    return false;
  }
  state.SetPairs(*pairs);
  return true;
}

bool SetOffloads(NetState& state, std::uint8_t command, Reader& data) {
  const auto offloads = data.Next<Le64>();
  // 5.1.6.5.6.2: of those that were negotiated.
  if (command != 0 || !offloads || (*offloads & ~(state.features.load() & kNetGuestOffloads)) != 0) {
    return false;
  }
  state.SetOffloads(*offloads);
  return true;
}

// The feature without which the driver does not know of the command (5.1.3).
std::uint64_t FeatureOf(NetControlHeader header) {
  switch (static_cast<NetControl>(header.type)) {
    case NetControl::kRx:
      return header.command < 2 ? kNetCtrlRx : kNetCtrlRxExtra;
    case NetControl::kMac:
      return header.command == 0 ? kNetCtrlRx : kNetCtrlMac;
    case NetControl::kVlan:
      return kNetCtrlVlan;
    case NetControl::kAnnounce:
      return kNetGuestAnnounce;
    case NetControl::kMq:
      return kNetMultiQueue;
    case NetControl::kOffloads:
      return kNetCtrlGuestOffloads;
  }
  return 0;
}

bool ChangeFilter(NetState& state, NetControlHeader header, Reader& data) {
  NetFilter filter = state.filter();
  bool done = false;
  switch (static_cast<NetControl>(header.type)) {
    case NetControl::kRx:
      done = SetReceiveMode(filter, header.command, data);
      break;
    case NetControl::kMac:
      done = SetAddresses(filter, header.command, data);
      break;
    default:
      done = SetVlan(filter, header.command, data);
      break;
  }
  if (done) {
    state.SetFilter(filter);
  }
  return done;
}

}  // namespace

std::string ToText(const MacAddress& mac) {
  return format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

void NetState::Reset(std::uint64_t driver_features) {
  NetFilter fresh;
  fresh.mac = own_mac;
  fresh.filters_vlans = (driver_features & kNetCtrlVlan) != 0;
  fresh.vlans.fill(fresh.filters_vlans ? 0 : ~std::uint64_t{0});
  SetFilter(fresh);
  features = driver_features;
  announce = false;
  SetOffloads(driver_features & kNetGuestOffloads);
  SetPairs(1);
}

NetFilter NetState::filter() const {
  const MutexLock lock(mutex_);
  return filter_;
}

void NetState::SetFilter(const NetFilter& filter) {
  const MutexLock lock(mutex_);
  filter_ = filter;
  generation_.fetch_add(1);
}

void NetState::Refresh(NetFilterCopy& copy) const {
  if (copy.generation != generation_.load(std::memory_order_relaxed)) {
    const MutexLock lock(mutex_);
    copy.filter = filter_;
    copy.generation = generation_.load(std::memory_order_relaxed);
  }
}

void NetState::SetOffloads(std::uint64_t wanted) {
  guest_offloads = wanted;
  backend->SetOffloads(wanted);
}

void NetState::SetPairs(unsigned count) {
  pairs = count;
  backend->SetPairs(count);
}

bool Accepts(const NetFilter& filter, std::span<const std::uint8_t> start) {
  if (filter.promiscuous) {
    return true;
  }
  if (start.size() >= 16 && start[12] == 0x81 && start[13] == 0 &&
      !filter.HasVlan((start[14] & 0xfU) << 8 | start[15])) {
    return false;
  }
  Mac to{};
  std::ranges::copy(start.first(to.size()), to.begin());
  const auto is_in = [&to](const auto& table) { return std::ranges::find(table, to) != table.end(); };
  if ((to[0] & 1) == 0) {
    return !filter.no_unicast &&
           (filter.all_unicast || filter.unicast_overflow || to == filter.mac || is_in(filter.unicast));
  }
  if (to == kBroadcast) {
    return !filter.no_broadcast;
  }
  return !filter.no_multicast &&
         (filter.all_multicast || filter.multicast_overflow || is_in(filter.multicast));
}

bool RunNetControl(NetState& state, const Chain& chain) {
  Reader data(chain);
  const auto header = data.Next<NetControlHeader>();
  if (!header || (state.features.load() & FeatureOf(*header)) == 0) {
    return false;
  }
  switch (static_cast<NetControl>(header->type)) {
    case NetControl::kAnnounce:
      return header->command == 0 && state.announce.exchange(false);
    case NetControl::kMq:
      return SetPairs(state, header->command, data);
    case NetControl::kOffloads:
      return SetOffloads(state, header->command, data);
    default:
      return ChangeFilter(state, *header, data);
  }
}

}  // namespace gyre::virtio
