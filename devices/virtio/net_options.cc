#include "devices/virtio/net_options.h"

#include <sys/random.h>

#include <algorithm>
#include <charconv>

#include "devices/virtio/net_passt.h"
#include "devices/virtio/net_tap.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kMostRate = std::uint64_t{1} << 40;
constexpr std::uint64_t kLeastMtu = 68;  // 5.1.4.1
constexpr std::uint64_t kMostMtu = 65535;

std::uint64_t Fnv1a(std::string_view text, std::uint64_t hash = 0xcbf2'9ce4'8422'2325) {
  for (const char byte : text) {
    hash = (hash ^ static_cast<std::uint8_t>(byte)) * 0x100'0000'01b3;
  }
  return hash;
}

Result<NetLimit::Rates> ParseRates(const Properties& properties, const std::string& way) {
  NetLimit::Rates rates;
  rates.bytes = TRY(properties.Number(way + "-rate", 0, 0, kMostRate));
  rates.packets = TRY(properties.Number(way + "-packets", 0, 0, kMostRate));
  return rates;
}

}  // namespace

Result<Mac> ParseMac(std::string_view text) {
  Mac mac{};
  bool good = text.size() == 17;
  for (std::size_t i = 0; i < mac.size() && good; ++i) {
    const char* const first = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(first, first + 2, mac.at(i), 16);
    good = error == std::errc() && end == first + 2 && (i == 5 || *end == ':');
  }
  if (!good) {
    return Fail(Error::Usage(format("mac={}: is not of the form 02:00:00:00:00:01", text)));
  }
  if ((mac[0] & 1) != 0 || mac == Mac{}) {
    return Fail(Error::Usage(format("mac={}: is no host's address", text)));
  }
  return mac;
}

Mac GenerateMac(std::string_view vm, unsigned number) {
  std::uint64_t hash = Fnv1a(format("/{}", number), Fnv1a(vm));
  if (vm.empty()) {
    (void)::getrandom(&hash, sizeof(hash), 0);
  }
  hash ^= hash >> 40;  // a hash's upper bits are the better ones
  Mac mac{};
  for (std::size_t i = 0; i < mac.size(); ++i) {
    mac.at(i) = static_cast<std::uint8_t>(hash >> (8 * i));
  }
  mac[0] = static_cast<std::uint8_t>((mac[0] & 0xfcU) | 2U);
  return mac;
}

Result<NetOptions> ParseNetOptions(const DeviceContext& context, const Properties& properties) {
  NetOptions options;
  options.id = context.id;
  const auto mac = properties.Get("mac");
  options.mac = mac ? TRY(ParseMac(*mac)) : GenerateMac(context.vm, context.number);
  options.mtu = static_cast<std::uint16_t>(TRY(properties.Number("mtu", 0, kLeastMtu, kMostMtu)));
  options.offloads = TRY(properties.OnOff("offloads", true));
  options.link = TRY(properties.OnOff("link", true));
  options.packed = TRY(properties.OnOff("packed", false));
  options.to_guest = TRY(ParseRates(properties, "rx"));
  options.from_guest = TRY(ParseRates(properties, "tx"));
  return options;
}

Result<std::unique_ptr<NetBackend>> OpenNetBackend(const DeviceContext& context,
                                                   const Properties& properties) {
  const auto tap = properties.Get("tap");
  const auto fd = properties.Get("fd");
  const bool user = properties.Get("user").has_value();
  if ((tap ? 1 : 0) + (fd ? 1 : 0) + (user ? 1 : 0) != 1) {
    return Fail(Error::Usage("one of tap=NAME, fd=N, user and vhost-user=SOCKET is needed"));
  }
  const auto forwards = properties.All("hostfwd");
  if (!user && (!forwards.empty() || properties.Get("passt"))) {
    return Fail(Error::Usage("hostfwd and passt go with user"));
  }
  const auto pairs = static_cast<unsigned>(TRY(properties.Number("queues", 1, 1, tap ? kMaxPairs : 1)));
  if (tap) {
    return OpenTap(context.loop, std::string(*tap), pairs);
  }
  if (fd) {
    return AdoptTap(context.loop, static_cast<int>(TRY(properties.Number("fd", 0, 0, INT32_MAX))));
  }
  PasstOptions options;
  options.program = properties.Get("passt").value_or("passt");
  for (const std::string_view forward : forwards) {
    std::ranges::move(TRY(ToPasstForward(forward)), std::back_inserter(options.arguments));
  }
  return StartPasst(context.loop, std::move(options));
}

}  // namespace gyre::virtio
