#include "devices/virtio/vsock_events.h"

#include <span>

#include "gyre/base/endian.h"
#include "gyre/base/types.h"

namespace gyre::virtio {
namespace {

struct TransportReset {
  Le32 id = 0;
};
static_assert(WirePod<TransportReset> && sizeof(TransportReset) == 4);

}  // namespace

bool VsockEvents::Serve(Queue& queue) {
  while (reset_due_) {
    auto chain = queue.Pop();
    if (!chain) {
      return true;
    }
    const TransportReset event;
    const std::size_t written = chain->Write(0, std::as_bytes(std::span(&event, 1)));
    reset_due_ = written != sizeof(event);
    chain->Complete(static_cast<std::uint32_t>(written));
  }
  return false;
}

}  // namespace gyre::virtio
