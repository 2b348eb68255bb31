// The memory balloon (virtio 1.2, 5.5): pages that the guest gives, and free ones that it
// reports, go back to the host. On the main loop, for memory is given back with the big
// lock held.
#include "gyre/devices/virtio/balloon.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "devices/virtio/balloon_policy.h"
#include "devices/virtio/modules.h"
#include "gyre/base/endian.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/memory/dma.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kStatsQueue = 1U << 1;  // 5.5.3
constexpr std::uint64_t kDeflateOnOom = 1U << 2;
constexpr std::uint64_t kPageReporting = 1U << 5;

constexpr unsigned kInflate = 0;
constexpr unsigned kDeflate = 1;
constexpr unsigned kFirstOptional = 2;
constexpr std::size_t kStatAvailable = 6;  // 5.5.6.4

constexpr std::uint64_t kPage = 4096;  // 5.5.6: whatever the guest's own is
// Of one chain; a driver sends 256.
constexpr std::size_t kMostPages = 4096;
constexpr unsigned kMostChains = 16;  // in one turn
constexpr std::uint64_t kMostTarget = std::uint64_t{UINT32_MAX} * kPage;
constexpr std::uint64_t kMostInterval = 86'400;
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kAutoInterval = 2 * kSecond;
constexpr std::uint64_t kUsualReserve = 64 * kMiB;

// 5.5.4
struct Config {
  Le32 num_pages;
  Le32 actual;
};
constexpr std::size_t kActualAt = 4;

// 5.5.6.3
struct Stat {
  Le16 tag;
  Le64 value;
};
static_assert(WirePod<Stat> && sizeof(Stat) == 10);
constexpr std::size_t kMostStats = 64;

struct Saved {
  Le32 least;
  Le32 target;
  Le32 actual;
  Le32 interval;
};
static_assert(WirePod<Saved>);

constexpr std::array<PropertySpec, 8> kProperties = {{
    {.name = "size", .values = "BYTES"},
    {.name = "deflate-on-oom", .values = "on|off"},
    {.name = "free-page-reporting", .values = "on|off"},
    {.name = "stats-interval", .values = "SECONDS"},
    {.name = "auto", .values = "BYTES"},
    {.name = "auto-reserve", .values = "BYTES"},
    {.name = "auto-pressure", .values = "PATH"},
    {.name = "packed", .values = "on|off"},
}};

struct Options {
  std::uint64_t target = 0;
  std::uint64_t features = 0;
  std::uint32_t interval = 0;
  BalloonLimits limits;
  std::string pressure;  // where the host's is told; empty: nobody looks
};

class BalloonDevice final : public VirtioDevice, public Balloon {
 public:
  BalloonDevice(const DeviceContext& context, const Options& options)
      : VirtioDevice(context, {.name = "balloon",
                               .id = 5,
                               .features = options.features,
                               .queues = 5,
                               .config_size = sizeof(Config)}),
        changed_(context.balloon_changed),
        dma_(context.memory),
        target_(static_cast<std::uint32_t>(options.target / kPage)),
        least_(target_),
        interval_(options.interval),
        policy_(options.limits),
        pressure_(options.pressure),
        timer_(context.loop, loop::ClockType::kVirtual, [this] { AskForStats(); }),
        auto_timer_(context.loop, loop::ClockType::kVirtual, [this] { FollowHost(); }),
        tell_(context.loop, [this] { changed_(size()); }) {
    ForgetStats();
  }

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    const Config config{.num_pages = target_, .actual = actual_};
    CopyConfig(config, offset, out);
  }
  void WriteConfig(std::uint64_t offset, std::span<const std::byte> in) override {
    if (offset != kActualAt || in.size() != sizeof(Le32)) {
      return;  // the rest is ours
    }
    Le32 actual;
    std::memcpy(&actual, in.data(), sizeof(actual));
    SetActual(actual);
  }
  std::vector<std::byte> SaveState() const override {
    const Saved saved{.least = least_, .target = target_, .actual = actual_, .interval = interval_};
    const auto bytes = std::as_bytes(std::span(&saved, 1));
    return {bytes.begin(), bytes.end()};
  }
  bool LoadState(std::span<const std::byte> bytes) override {
    Saved saved;
    if (bytes.size() != sizeof(saved)) {
      return false;
    }
    std::memcpy(&saved, bytes.data(), sizeof(saved));
    least_ = saved.least;
    target_ = saved.target;
    actual_ = saved.actual;
    SetStatsInterval(saved.interval);
    return saved.interval <= kMostInterval;
  }

  // Balloon.
  void SetTarget(std::uint64_t bytes) override {
    least_ = static_cast<std::uint32_t>(std::min(bytes, kMostTarget) / kPage);
    Ask(least_);
  }
  std::uint64_t target() const override { return target_ * kPage; }
  std::optional<BalloonAuto> automatic() const override {
    if (pressure_.path().empty()) {
      return std::nullopt;
    }
    return BalloonAuto{.limit = policy_.limits().limit,
                       .reserve = policy_.limits().reserve,
                       .permille = pressure_.permille(),
                       .least = least_ * kPage};
  }
  std::uint64_t size() const override { return actual_ * kPage; }
  std::uint64_t returned() const override { return returned_; }
  bool in_use() const override { return active(); }
  void SetStatsInterval(std::uint32_t seconds) override {
    interval_ = seconds;
    timer_.Cancel();
    ArmTimer();
  }
  std::uint32_t stats_interval() const override { return interval_; }
  BalloonStats stats() const override { return stats_; }

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    if (index == kFirstOptional && (features_ & kStatsQueue) != 0) {
      return ServeStats(queue);
    }
    if (index >= kFirstOptional && (features_ & kPageReporting) == 0) {
      return Served::kLater;  // a queue that the driver should not have
    }
    dma_.Refresh();
    for (unsigned i = 0; i < kMostChains; ++i) {
      auto chain = queue.Pop();
      if (!chain) {
        return Served::kAll;
      }
      if (index == kInflate) {
        Inflate(*chain);
      } else if (index != kDeflate) {
        TakeReport(*chain);
      }
      chain->Complete(0);  // a page that is deflated comes back by use
    }
    ServeAgain(index);
    return Served::kLater;
  }
  void OnActivate(std::uint64_t driver_features) override {
    features_ = driver_features;
    ArmTimer();
    if (!pressure_.path().empty() && (features_ & kStatsQueue) != 0) {
      pressure_.Look(loop(kInflate).Now(loop::ClockType::kRealtime));
      ArmAutoTimer();
    }
  }
  void OnDeactivate() override {
    features_ = 0;
    timer_.Cancel();
    auto_timer_.Cancel();
    ForgetStats();
    SetActual(0);
  }
  void OnRemoveQueue(unsigned index) override {
    if (index == kFirstOptional) {
      read_ = due_ = false;
    }
  }

 private:
  void Ask(std::uint32_t pages) {
    target_ = pages;
    transport()->ConfigChanged();
  }
  // The guest is asked what it has available, for the next time; what it told last is at most as old as this
  // interval.
  void FollowHost() {
    ArmAutoTimer();
    const auto permille = pressure_.Look(loop(kInflate).Now(loop::ClockType::kRealtime));
    const std::uint64_t available = stats_.values.at(kStatAvailable);
    due_ = read_;
    ServeAgain(kFirstOptional);
    if (!permille) {
      return;
    }
    const std::uint64_t next = policy_.Next({.permille = *permille,
                                             .least = least_ * kPage,
                                             .target = target(),
                                             .size = size(),
                                             .available = available});
    if (next != target()) {
      log::Info("balloon: {} bytes are asked for, {} before; the host's pressure is {} permille", next,
                target(), *permille);
      Ask(static_cast<std::uint32_t>(std::min(next, kMostTarget) / kPage));
    }
  }
  void ArmAutoTimer() { auto_timer_.Set(loop(kInflate).Now(loop::ClockType::kVirtual) + kAutoInterval); }
  void SetActual(std::uint32_t actual) {
    if (std::exchange(actual_, actual) != actual && changed_) {
      tell_.Schedule();
    }
  }

  // 5.5.6: little-endian page numbers, of any order; runs of them go as one.
  void Inflate(const Chain& chain) {
    std::vector<Le32> numbers(std::min<std::uint64_t>(chain.readable_size() / sizeof(Le32), kMostPages));
    chain.Read(0, std::as_writable_bytes(std::span(numbers)));
    std::ranges::sort(numbers, {}, &Le32::value);
    for (std::size_t i = 0; i < numbers.size();) {
      const std::uint64_t first = numbers[i];
      std::uint64_t end = first + 1;
      for (++i; i < numbers.size() && numbers[i] <= end; ++i) {
        end = std::uint64_t{numbers[i]} + 1;
      }
      returned_ += dma_.Discard(GuestAddress(first * kPage), (end - first) * kPage);
    }
  }

  // 5.5.6.7: the buffers are the free pages themselves.
  void TakeReport(const Chain& chain) {
    for (std::size_t i = 0; i < chain.writable().size(); ++i) {
      for (const auto& range : chain.WhereIs(i)) {
        returned_ += dma_.Discard(range.start, range.size);
      }
    }
  }

  // 5.5.6.3: the device has one buffer, with what the driver has last told. It is given back to ask for more;
  // until then it is parked, so that nobody waits for it.
  Served ServeStats(Queue& queue) {
    for (int i = 0; i < 2; ++i) {
      if (read_ && !due_) {
        return Served::kLater;
      }
      auto chain = queue.Pop();
      if (!chain) {
        return Served::kAll;
      }
      if (read_) {
        read_ = due_ = false;
        chain->Complete(0);
      } else {
        ReadStats(*chain);
        chain->Park();
        read_ = true;
      }
    }
    return Served::kLater;
  }
  void ReadStats(const Chain& chain) {
    std::array<Stat, kMostStats> told;
    const std::size_t size = chain.Read(0, std::as_writable_bytes(std::span(told)));
    stats_.values.fill(kBalloonStatUnknown);
    for (const Stat& stat : std::span(told).first(size / sizeof(Stat))) {
      if (stat.tag < stats_.values.size()) {
        stats_.values.at(stat.tag) = stat.value;
      }
    }
    stats_.updated_s = loop(kFirstOptional).Now(loop::ClockType::kHost) / kSecond;
  }
  void ForgetStats() {
    stats_ = {};
    stats_.values.fill(kBalloonStatUnknown);
  }
  void AskForStats() {
    due_ = read_;
    ServeAgain(kFirstOptional);
    ArmTimer();
  }
  void ArmTimer() {
    if (interval_ != 0 && (features_ & kStatsQueue) != 0) {
      timer_.Set(loop(kFirstOptional).Now(loop::ClockType::kVirtual) + interval_ * kSecond);
    }
  }

  const std::function<void(std::uint64_t size)> changed_;
  memory::Dma dma_;
  std::uint64_t features_ = 0;  // the driver's
  std::uint32_t target_;        // pages
  std::uint32_t least_;         // pages, as an operator says
  std::uint32_t actual_ = 0;    // pages, as the driver says
  std::uint64_t returned_ = 0;
  std::uint32_t interval_;  // seconds
  BalloonPolicy policy_;
  HostPressure pressure_;
  BalloonStats stats_;
  bool read_ = false;  // the stats' buffer is here, and read
  bool due_ = false;   // it is to go back
  loop::Timer timer_;
  loop::Timer auto_timer_;
  loop::BottomHalf tell_;
};

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  Options options;
  options.target = TRY(properties.Number("size", 0, 0, kMostTarget));
  options.interval =
      static_cast<std::uint32_t>(TRY(properties.Number("stats-interval", 0, 0, kMostInterval)));
  options.features = kStatsQueue | (TRY(properties.OnOff("deflate-on-oom", false)) ? kDeflateOnOom : 0) |
                     (TRY(properties.OnOff("free-page-reporting", false)) ? kPageReporting : 0) |
                     (TRY(properties.OnOff("packed", false)) ? kFeaturePacked : 0);
  options.limits.limit = TRY(properties.Number("auto", 0, 0, kMostTarget));
  options.limits.reserve = TRY(properties.Number("auto-reserve", kUsualReserve, 0, kMostTarget));
  if (options.limits.limit != 0) {
    options.pressure = properties.Get("auto-pressure").value_or("/proc/pressure/memory");
    if (!HostPressure(options.pressure).Look(0)) {
      return Fail(Error::Usage(format("auto: {} tells no memory pressure", options.pressure)));
    }
  } else if (properties.Get("auto-reserve") || properties.Get("auto-pressure")) {
    return Fail(Error::Usage("auto-reserve and auto-pressure: belong to auto=BYTES"));
  }
  if (context.number != 0) {
    return Fail(Error::Usage("a machine has one"));
  }
  return std::make_unique<BalloonDevice>(context, options);
}

}  // namespace

const Module& BalloonModule() {
  static constexpr Module kModule = {
      .option = "balloon",
      .help = "let it give memory back while it runs (Linux: virtio_balloon)",
      .properties = kProperties,
      .create = Create,
  };
  return kModule;
}

}  // namespace gyre::virtio
