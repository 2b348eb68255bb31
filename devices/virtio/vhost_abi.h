// <linux/vhost.h>, as C++ takes it: the helpers for rings that come along are C alone. Private.
#pragma once

#ifndef VIRTIO_RING_NO_LEGACY
#define VIRTIO_RING_NO_LEGACY
#endif
#include <linux/vhost.h>
