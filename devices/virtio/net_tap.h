// A tap interface as a network device's back end. Private.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/net_backend.h"
#include "gyre/base/unique_fd.h"

namespace gyre::virtio {

// Errors are of kind kUsage. The interface is made if it is not there and we may; then it
// goes with the last descriptor. It is the user's to be configured and set up.
Result<std::unique_ptr<NetBackend>> OpenTap(loop::EventLoop& main, const std::string& name, unsigned pairs);
// A descriptor that is attached to an interface already; it becomes ours. One pair.
Result<std::unique_ptr<NetBackend>> AdoptTap(loop::EventLoop& main, int fd);

}  // namespace gyre::virtio
