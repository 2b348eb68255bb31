// The event queue of a vsock device, and what there is to be told by it (virtio 1.2, 5.10.6.7): that the
// guest's connections are no more, and its CID may be another one. Private; the queue's loop.
#pragma once

#include "gyre/devices/virtio/queue.h"

namespace gyre::virtio {

class VsockEvents {
 public:
  // The guest goes on with a device that knows none of its connections.
  void TellOfReset() { reset_due_ = true; }
  void Forget() { reset_due_ = false; }
  // Tells what is due; whether the driver has to offer more for that.
  bool Serve(Queue& queue);

 private:
  bool reset_due_ = false;
};

}  // namespace gyre::virtio
