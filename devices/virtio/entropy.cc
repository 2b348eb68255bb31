// The entropy device (virtio 1.2, 5.4): random bytes from the host's getrandom(2).
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <span>

#include "devices/virtio/modules.h"
#include "devices/virtio/token_bucket.h"
#include "gyre/loop/main_loop.h"

namespace gyre::virtio {
namespace {

// A request may be larger; it gets this much, which 5.4.6.1 allows. A guest cannot make
// the loop spend more time on one.
constexpr std::uint64_t kMostAtOnce = 64 * kKiB;
// In one go, of all requests; the loop serves others before it goes on.
constexpr std::uint64_t kMostInARow = 256 * kKiB;
constexpr std::uint64_t kMostRate = kGiB;

constexpr std::array<PropertySpec, 4> kProperties = {{
    {.name = "rate", .values = "BYTES a second"},
    {.name = "burst", .values = "BYTES"},
    {.name = "packed", .values = "on|off"},
    kIoThreadProperty,
}};

class Entropy final : public VirtioDevice {
 public:
  Entropy(const DeviceContext& context, TokenBucket bucket, bool packed)
      : VirtioDevice(context, {.name = "entropy",
                               .id = 4,  // 5
                               .features = kFeatureInOrder | (packed ? kFeaturePacked : 0),
                               .queues = 1}),
        bucket_(bucket),
        timer_(loop(0), loop::ClockType::kRealtime, [this] { ServeAgain(0); }, loop::Tier::kIo) {}

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    for (std::uint64_t given = 0; given < kMostInARow;) {
      if (const std::int64_t wait = bucket_.Wait(Now()); wait != 0) {
        timer_.Set(Now() + wait);
        return Served::kLater;
      }
      auto chain = queue.Pop();
      if (!chain) {
        return Served::kAll;
      }
      const std::uint32_t filled = Fill(*chain);
      bucket_.Take(filled);
      given += filled;
      chain->Complete(filled);
    }
    ServeAgain(index);
    return Served::kLater;
  }
  void OnRemoveQueue(unsigned /*index*/) override { timer_.Cancel(); }

 private:
  std::int64_t Now() const { return loop(0).Now(loop::ClockType::kRealtime); }

  // The kernel writes into guest memory itself, and stops early where a signal or the
  // ring's own work waits for this thread. Fewer bytes than asked for are no error.
  static std::uint32_t Fill(const Chain& chain) {
    std::uint64_t left = kMostAtOnce;
    for (const iovec& piece : chain.writable()) {
      std::span<std::byte> room(static_cast<std::byte*>(piece.iov_base),
                                std::min<std::uint64_t>(piece.iov_len, left));
      while (!room.empty()) {
        const ssize_t got = ::getrandom(room.data(), room.size(), 0);
        if (got <= 0) {
          return static_cast<std::uint32_t>(kMostAtOnce - left);
        }
        room = room.subspan(static_cast<std::size_t>(got));
        left -= static_cast<std::uint64_t>(got);
      }
    }
    return static_cast<std::uint32_t>(kMostAtOnce - left);
  }

  TokenBucket bucket_;
  loop::Timer timer_;
};

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  const std::uint64_t rate = TRY(properties.Number("rate", 0, 0, kMostRate));
  const std::uint64_t burst = TRY(properties.Number("burst", std::max<std::uint64_t>(rate, 1), 1, kMostRate));
  const bool packed = TRY(properties.OnOff("packed", false));
  return std::make_unique<Entropy>(context, TokenBucket(rate, burst), packed);
}

}  // namespace

const Module& EntropyModule() {
  static constexpr Module kModule = {
      .option = "entropy",
      .help = "give it a source of random bytes (Linux: virtio_rng)",
      .properties = kProperties,
      .create = Create,
  };
  return kModule;
}

}  // namespace gyre::virtio
