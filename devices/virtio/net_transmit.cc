#include "devices/virtio/net_transmit.h"

namespace gyre::virtio {
namespace {

// In one turn; the loop serves others before it goes on.
constexpr unsigned kMostPackets = 256;

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
    state_.from_guest.Passed(size - kNetHeaderSize);
    state_.from_guest_limit.Take(size - kNetHeaderSize);
    sink_->Send(std::move(*chain));
  }
  return NetServed::kMore;
}

}  // namespace gyre::virtio
