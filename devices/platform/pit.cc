#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "devices/platform/byte_ports.h"
#include "devices/platform/pit_counter.h"
#include "gyre/devices/platform/pic_pit.h"

namespace gyre::devices {
namespace {

constexpr std::int64_t kHz = 1'193'182;
constexpr std::int64_t kSecondNs = 1'000'000'000;
// A guest may ask for an interrupt every microsecond; it gets no more than this.
constexpr std::int64_t kMinIntervalNs = 100'000;
// DRAM refresh, which PCs let bit 4 of port 0x61 show: it flips every 15 us.
constexpr std::int64_t kRefreshNs = 15'085;

constexpr std::uint64_t kControlPort = 3;
constexpr std::uint8_t kReadBackNoCount = 0x20;
constexpr std::uint8_t kReadBackNoStatus = 0x10;

constexpr std::uint8_t kPort61Gate = 0x01;
constexpr std::uint8_t kPort61Kept = 0x0f;
constexpr std::uint8_t kPort61Refresh = 0x10;
constexpr std::uint8_t kPort61Output = 0x20;

struct State {
  std::array<PitCounter::State, 3> counters{};
  std::uint64_t port61 = 0;
};
constexpr std::uint32_t kStateVersion = 1;

}  // namespace

struct Pit::Impl {
  class Counters final : public memory::RegionHandler {
   public:
    explicit Counters(Impl& owner) : owner_(owner) {}
    std::uint64_t Read(std::uint64_t offset, unsigned size) override {
      return ReadByByte(offset, size, [this](std::uint64_t port) { return owner_.ReadCounter(port); });
    }
    void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      WriteByByte(offset, size, value,
                  [this](std::uint64_t port, std::uint8_t byte) { owner_.WriteCounter(port, byte); });
    }

   private:
    Impl& owner_;
  };

  class Port61 final : public memory::RegionHandler {
   public:
    explicit Port61(Impl& owner) : owner_(owner) {}
    std::uint64_t Read(std::uint64_t /*offset*/, unsigned /*size*/) override { return owner_.ReadPort61(); }
    void Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t value) override {
      owner_.WritePort61(static_cast<std::uint8_t>(value));
    }

   private:
    Impl& owner_;
  };

  Impl(loop::MainLoop& main_loop, IrqLine& irq_line)
      : loop(main_loop), line(irq_line), timer(main_loop, loop::ClockType::kVirtual, [this] { OnRise(); }) {
    Reset();
  }

  std::int64_t NowNs() const { return loop.Now(loop::ClockType::kVirtual); }
  // Whole seconds apart, so that nothing overflows.
  static std::int64_t TicksAt(std::int64_t ns) {
    return ns / kSecondNs * kHz + ns % kSecondNs * kHz / kSecondNs;
  }
  // The first nanosecond at which TicksAt gives `ticks`.
  static std::int64_t NsAt(std::int64_t ticks) {
    return ticks / kHz * kSecondNs + (ticks % kHz * kSecondNs + kHz - 1) / kHz;
  }
  std::int64_t Now() const { return TicksAt(NowNs()); }

  std::uint8_t ReadCounter(std::uint64_t port);
  void WriteCounter(std::uint64_t port, std::uint8_t value);
  void WriteControl(std::uint8_t value);
  std::uint8_t ReadPort61();
  void WritePort61(std::uint8_t value);
  void FollowOutput();
  void Schedule();
  void OnRise();
  void Reset();
  bool Load(const State& state);

  loop::MainLoop& loop;
  IrqLine& line;
  loop::Timer timer;  // the next rise of counter 0's output
  std::array<PitCounter, 3> counter;
  std::uint8_t port61_bits = 0;
  Counters counters_region{*this};
  Port61 port61_region{*this};
};

std::uint8_t Pit::Impl::ReadCounter(std::uint64_t port) {
  return port < kControlPort ? counter[port].ReadByte(Now()) : 0xff;
}

void Pit::Impl::WriteCounter(std::uint64_t port, std::uint8_t value) {
  if (port > kControlPort) {
    return;
  }
  if (port == kControlPort) {
    WriteControl(value);
    return;
  }
  counter[port].WriteByte(value, Now());
  if (port == 0) {
    FollowOutput();
  }
}

void Pit::Impl::WriteControl(std::uint8_t value) {
  const unsigned select = value >> 6;
  const std::int64_t now = Now();
  if (select < counter.size()) {
    if ((value & 0x30) == 0) {
      counter[select].LatchCount(now);
    } else {
      counter[select].SetControl(value, now);
      if (select == 0) {
        FollowOutput();
      }
    }
    return;
  }
  for (unsigned i = 0; i < counter.size(); ++i) {
    if ((value >> (i + 1) & 1) == 0) {
      continue;
    }
    if ((value & kReadBackNoCount) == 0) {
      counter[i].LatchCount(now);
    }
    if ((value & kReadBackNoStatus) == 0) {
      counter[i].LatchStatus(now);
    }
  }
}

std::uint8_t Pit::Impl::ReadPort61() {
  const bool refresh = (NowNs() / kRefreshNs & 1) != 0;
  return static_cast<std::uint8_t>(port61_bits | (refresh ? kPort61Refresh : 0) |
                                   (counter[2].Output(Now()) ? kPort61Output : 0));
}

void Pit::Impl::WritePort61(std::uint8_t value) {
  port61_bits = value & kPort61Kept;
  counter[2].SetGate((value & kPort61Gate) != 0, Now());
}

// After counter 0 has been written. From then on only its output's rises are
// shown: nobody needs the falls, and each would cost a wake-up.
void Pit::Impl::FollowOutput() {
  line.Set(counter[0].Output(Now()));
  Schedule();
}

void Pit::Impl::Schedule() {
  const std::int64_t now = NowNs();
  const auto rise = counter[0].NextRise(TicksAt(now));
  if (rise) {
    timer.Set(std::max(NsAt(*rise), now + kMinIntervalNs));
  } else {
    timer.Cancel();
  }
}

void Pit::Impl::OnRise() {
  line.Lower();
  line.Raise();
  Schedule();
}

void Pit::Impl::Reset() {
  timer.Cancel();
  counter = {};
  counter[2].SetGate(false, Now());
  port61_bits = 0;
  line.Lower();
}

// The wire stays as its controller's state has it.
bool Pit::Impl::Load(const State& state) {
  for (std::size_t i = 0; i < counter.size(); ++i) {
    if (!counter.at(i).Load(state.counters.at(i))) {
      return false;
    }
  }
  if (state.port61 > kPort61Kept) {
    return false;
  }
  port61_bits = static_cast<std::uint8_t>(state.port61);
  Schedule();
  return true;
}

Pit::Pit(loop::MainLoop& loop, IrqLine& line) : impl_(std::make_unique<Impl>(loop, line)) {}
Pit::~Pit() = default;

memory::RegionHandler& Pit::counters() { return impl_->counters_region; }
memory::RegionHandler& Pit::port61() { return impl_->port61_region; }

void Pit::Reset() { impl_->Reset(); }

SavedState Pit::SaveState() const {
  State state{.port61 = impl_->port61_bits};
  for (std::size_t i = 0; i < state.counters.size(); ++i) {
    state.counters.at(i) = impl_->counter.at(i).Save();
  }
  return SaveAs(kStateVersion, state);
}

bool Pit::LoadState(const SavedState& saved) {
  const auto state = LoadAs<State>(kStateVersion, saved);
  return state && impl_->Load(*state);
}

}  // namespace gyre::devices
