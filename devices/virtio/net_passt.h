// passt(1) as a network device's back end: the host's network without rights and without
// set-up. A process of ours, one a device. Private.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/net_backend.h"

namespace gyre::virtio {

struct PasstOptions {
  std::string program = "passt";       // looked up as the shell does
  std::vector<std::string> arguments;  // beside those that every one gets
};

// "tcp:HOST:PORT-:GUESTPORT" as passt's own words; HOST may be empty, or in [] for IPv6.
Result<std::vector<std::string>> ToPasstForward(std::string_view text);

// Starts it. If it ends, `up` is false until it was started again, which is tried after a
// second, and more with each time that it did not live for long.
Result<std::unique_ptr<NetBackend>> StartPasst(loop::EventLoop& main, PasstOptions options);

}  // namespace gyre::virtio
