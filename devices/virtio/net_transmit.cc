#include "devices/virtio/net_transmit.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace gyre::virtio {
namespace {

// In one turn; the loop serves others before it goes on.
constexpr unsigned kMostPackets = 256;

// What the driver has just written is in its processor's cache. A packet's first lines are on their way here
// before the kernel copies them: all of a small one; of a large one the processor sees by them what comes
// next.
void PrefetchStart(const Chain& chain) {
  constexpr std::size_t kLine = 64;
  constexpr std::size_t kMost = 4 * kLine;
  const iovec& first = chain.readable().front();
  for (std::size_t at = 0; at < std::min(first.iov_len, kMost); at += kLine) {
    __builtin_prefetch(static_cast<const std::byte*>(first.iov_base) + at);
  }
}

}  // namespace

NetTransmitter::NetTransmitter(NetState& state, unsigned pair, loop::EventLoop& loop,
                               const std::function<void()>& serve)
    : state_(state),
      loop_(loop),
      timer_(
          loop, loop::ClockType::kRealtime, [serve] { serve(); }, loop::Tier::kIo),
      sink_(state.backend->NewSink(pair, loop, serve)) {}

NetServed NetTransmitter::Serve(Queue& queue) {
  const NetServed served = ServeSome(queue);
  state_.from_guest.Passed(std::exchange(tally_, {}));
  sink_->EndTurn();
  return served;
}

NetServed NetTransmitter::ServeSome(Queue& queue) {
  for (unsigned i = 0; i < kMostPackets; ++i) {
    const bool carrier = state_.carrier.load(std::memory_order_relaxed);
    if (carrier && (!sink_->HasRoom() || state_.from_guest_limit.Delays(loop_, timer_))) {
      return NetServed::kWaits;
    }
    auto chain = queue.Pop();
    if (!chain) {
      return NetServed::kNeedsChains;
    }
    const std::uint64_t size = chain->readable_size();
    // With the link down as with what is no frame: gone.
    if (!carrier || size < kNetHeaderSize + kEthernetHeader || size > kMaxPacket) {
      state_.from_guest.Dropped();
      chain->Complete(0);
      continue;
    }
    PrefetchStart(*chain);
    tally_.Add(size - kNetHeaderSize);
    state_.from_guest_limit.Take(size - kNetHeaderSize);
    sink_->Send(std::move(*chain));
  }
  return NetServed::kMore;
}

}  // namespace gyre::virtio
