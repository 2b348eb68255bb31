#include "devices/virtio/net_saved.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace gyre::virtio {
namespace {

constexpr std::array<bool NetFilter::*, 9> kFlags = {
    &NetFilter::promiscuous,      &NetFilter::all_multicast,      &NetFilter::all_unicast,
    &NetFilter::no_multicast,     &NetFilter::no_unicast,         &NetFilter::no_broadcast,
    &NetFilter::unicast_overflow, &NetFilter::multicast_overflow, &NetFilter::filters_vlans};
constexpr std::uint16_t kMostAddresses = 64;

// Then the addresses: unicast, multicast.
struct Saved {
  Le64 offloads;
  std::array<Le64, 64> vlans;
  Le16 flags;
  Le16 pairs;
  Le16 unicast;
  Le16 multicast;
  Mac mac{};
  std::uint8_t announce = 0;
  std::uint8_t unused = 0;
};
static_assert(WirePod<Saved>);

}  // namespace

std::vector<std::byte> SaveNet(const NetState& state) {
  const NetFilter filter = state.filter();
  Saved saved;
  saved.offloads = state.guest_offloads.load();
  std::ranges::copy(filter.vlans, saved.vlans.begin());
  std::uint16_t flags = 0;
  for (std::size_t i = 0; i < kFlags.size(); ++i) {
    flags = static_cast<std::uint16_t>(flags | (filter.*kFlags.at(i) ? 1U << i : 0U));
  }
  saved.flags = flags;
  saved.pairs = static_cast<std::uint16_t>(state.pairs.load());
  saved.unicast = static_cast<std::uint16_t>(filter.unicast.size());
  saved.multicast = static_cast<std::uint16_t>(filter.multicast.size());
  saved.mac = filter.mac;
  saved.announce = state.announce.load() ? 1 : 0;
  std::vector<std::byte> bytes;
  const auto append = [&bytes](auto data) { bytes.insert(bytes.end(), data.begin(), data.end()); };
  append(std::as_bytes(std::span(&saved, 1)));
  append(std::as_bytes(std::span(filter.unicast)));
  append(std::as_bytes(std::span(filter.multicast)));
  return bytes;
}

bool LoadNet(NetState& state, std::span<const std::byte> bytes) {
  Saved saved;
  if (bytes.size() < sizeof(saved)) {
    return false;
  }
  std::memcpy(&saved, bytes.data(), sizeof(saved));
  bytes = bytes.subspan(sizeof(saved));
  if (saved.pairs == 0 || saved.pairs > state.backend->pairs() || saved.unicast > kMostAddresses ||
      saved.multicast > kMostAddresses ||
      (saved.offloads & ~(state.features.load() & kNetGuestOffloads)) != 0 ||
      bytes.size() != sizeof(Mac) * (saved.unicast + std::size_t{saved.multicast})) {
    return false;
  }
  NetFilter filter;
  std::ranges::copy(saved.vlans, filter.vlans.begin());
  for (std::size_t i = 0; i < kFlags.size(); ++i) {
    filter.*kFlags.at(i) = (saved.flags >> i & 1) != 0;
  }
  filter.mac = saved.mac;
  for (auto* const table : {&filter.unicast, &filter.multicast}) {
    table->resize(table == &filter.unicast ? saved.unicast : saved.multicast);
    std::ranges::copy(bytes.first(sizeof(Mac) * table->size()),
                      std::as_writable_bytes(std::span(*table)).begin());
    bytes = bytes.subspan(sizeof(Mac) * table->size());
  }
  state.SetFilter(filter);
  state.SetOffloads(saved.offloads);
  state.SetPairs(saved.pairs);
  state.announce = saved.announce != 0;
  return true;
}

}  // namespace gyre::virtio
