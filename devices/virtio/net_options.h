// A network device's options. Private. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "devices/virtio/net_state.h"
#include "gyre/devices/virtio/device.h"
#include "gyre/devices/virtio/registry.h"

namespace gyre::virtio {

inline constexpr unsigned kMaxPairs = 16;

inline constexpr std::array<PropertySpec, 19> kNetProperties = {{
    {.name = "tap", .values = "NAME"},
    {.name = "fd", .values = "N"},
    {.name = "user", .values = {}},
    {.name = "hostfwd", .values = "tcp|udp:[HOST]:PORT-:GUESTPORT", .repeated = true},
    {.name = "passt", .values = "PATH"},
    {.name = "vhost-user", .values = "SOCKET"},
    {.name = "id", .values = "ID"},
    {.name = "mac", .values = "MAC"},
    {.name = "mtu", .values = "BYTES"},
    {.name = "queues", .values = "N"},
    {.name = "offloads", .values = "on|off"},
    {.name = "link", .values = "on|off"},
    {.name = "rx-rate", .values = "BYTES a second"},
    {.name = "rx-packets", .values = "N a second"},
    {.name = "tx-rate", .values = "BYTES a second"},
    {.name = "tx-packets", .values = "N a second"},
    {.name = "packed", .values = "on|off"},
    {.name = "vhost", .values = "auto|on|off"},
    kIoThreadProperty,
}};

struct NetOptions {
  std::string id;
  Mac mac{};
  std::uint16_t mtu = 0;  // 0: not told
  bool offloads = true;
  bool link = true;
  bool packed = false;
  NetLimit::Rates to_guest;
  NetLimit::Rates from_guest;
};

Result<NetOptions> ParseNetOptions(const DeviceContext& context, const Properties& properties);
// The one that the properties name.
Result<std::unique_ptr<NetBackend>> OpenNetBackend(const DeviceContext& context,
                                                   const Properties& properties);

// "02:00:00:00:00:01"; nothing that a host cannot have.
Result<Mac> ParseMac(std::string_view text);
// Of the locally administered ones; the same for the same VM's device, and any for a VM without a name.
Mac GenerateMac(std::string_view vm, unsigned number);

}  // namespace gyre::virtio
