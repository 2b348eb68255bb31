#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "devices/platform/byte_ports.h"
#include "devices/platform/rtc_time.h"
#include "gyre/base/types.h"
#include "gyre/devices/platform/legacy.h"

namespace gyre::devices {
namespace {

using loop::ClockType;

constexpr std::int64_t kSecondNs = 1'000'000'000;
// 32768 Hz time base: UIP comes 244 us before the update, which takes 1984 us
// (data sheet, "Update cycle"). Our update happens at the end of both.
constexpr std::int64_t kUpdateNs = 2'228'000;
constexpr std::int64_t kHalfSecondNs = kSecondNs / 2;

constexpr std::uint8_t kRegA = 0x0a;
constexpr std::uint8_t kRegB = 0x0b;
constexpr std::uint8_t kRegC = 0x0c;
constexpr std::uint8_t kRegD = 0x0d;

constexpr std::uint8_t kUpdateInProgress = 0x80;  // register A
constexpr std::uint8_t kRateMask = 0x0f;
constexpr std::uint8_t kDividerReset = 0x60;  // both top bits of DV2-0: the divider is held
constexpr std::uint8_t kPowerOnA = 0x26;      // 32768 Hz, 1024 Hz periodic rate

constexpr std::uint8_t kSet = 0x80;  // register B: no updates
constexpr std::uint8_t kInterrupts = 0x70;
constexpr std::uint8_t kSquareWave = 0x08;

constexpr std::uint8_t kIrqFlag = 0x80;  // register C, its flags as register B enables them
constexpr std::uint8_t kPeriodic = 0x40;
constexpr std::uint8_t kAlarm = 0x20;
constexpr std::uint8_t kUpdateEnded = 0x10;

constexpr std::uint8_t kValid = 0x80;  // register D: the battery is good

// What a clock is in the midst of; its time goes on with the host's.
struct State {
  std::int64_t offset = 0;
  std::int64_t phase_ns = 0;
  std::int64_t seen_second = 0;
  std::int64_t seen_period = 0;
  std::array<std::uint8_t, 128> memory{};
  std::uint8_t index = 0;
  std::uint8_t reg_a = 0;
  std::uint8_t reg_b = 0;
  std::uint8_t flags = 0;
  std::uint32_t unused = 0;
};
constexpr std::uint32_t kStateVersion = 1;
constexpr std::int64_t kMostSeconds = 1'000'000'000'000;  // more than any year of four digits needs

std::int64_t FloorDiv(std::int64_t value, std::int64_t divisor) {
  const std::int64_t quotient = value / divisor;
  return value % divisor < 0 ? quotient - 1 : quotient;
}

}  // namespace

struct Rtc::Impl {
  Impl(loop::MainLoop& main_loop, IrqLine& irq_line)
      : loop(main_loop),
        line(irq_line),
        second_timer(main_loop, ClockType::kHost, [this] { OnSecond(); }),
        periodic_timer(main_loop, ClockType::kVirtual, [this] { OnPeriod(); }) {}

  void StoreRamSize(std::uint64_t below_4g, std::uint64_t above_4g);
  void StoreLe(std::uint8_t place, unsigned bytes, std::uint64_t value);

  // The divider's running time: seconds and the phase within one.
  std::int64_t RunNs() const { return loop.Now(ClockType::kHost) + phase_ns; }
  std::int64_t Seconds() const { return FloorDiv(RunNs(), kSecondNs) + offset; }
  bool running() const { return (reg_b & kSet) == 0 && (reg_a & kDividerReset) != kDividerReset; }
  std::int64_t PeriodNs() const;
  std::int64_t Period() const;

  std::uint8_t ReadByte(std::uint8_t place);
  std::uint8_t ReadFlags();
  void WriteByte(std::uint8_t place, std::uint8_t value);
  void WriteA(std::uint8_t value);
  void WriteB(std::uint8_t value);
  void ShowTime();
  void AdoptTime();
  void CollectFlags();
  void OnSecond();
  void OnPeriod();
  void Update();
  void Reset();
  bool Load(const State& state);

  loop::MainLoop& loop;
  IrqLine& line;
  loop::Timer second_timer;    // the next update or alarm, while its interrupt is enabled
  loop::Timer periodic_timer;  // the next period, while its interrupt is enabled
  std::move_only_function<void()> on_alarm;
  std::array<std::uint8_t, 128> memory{};
  std::uint8_t index = 0;
  std::uint8_t reg_a = kPowerOnA;
  std::uint8_t reg_b = kRtc24Hours;
  std::uint8_t flags = 0;  // register C without bit 7
  bool line_high = false;
  std::int64_t offset = 0;       // seconds that the guest's time is ahead of RunNs
  std::int64_t phase_ns = 0;     // from the host's second to the guest's
  std::int64_t seen_second = 0;  // flags for updates and alarms up to here are collected
  std::int64_t seen_period = 0;  // and for periods up to here
};

void Rtc::Impl::StoreLe(std::uint8_t place, unsigned bytes, std::uint64_t value) {
  const std::uint64_t limit = (1ULL << (8 * bytes)) - 1;
  value = std::min(value, limit);
  for (unsigned i = 0; i < bytes; ++i) {
    memory[place + i] = static_cast<std::uint8_t>(value >> (8 * i));
  }
}

// Where BIOSes leave it: KiB below 640, KiB above 1 MiB, 64 KiB units above
// 16 MiB, and above 4 GiB.
void Rtc::Impl::StoreRamSize(std::uint64_t below_4g, std::uint64_t above_4g) {
  const auto beyond = [below_4g](std::uint64_t start) { return below_4g > start ? below_4g - start : 0; };
  StoreLe(0x15, 2, std::min<std::uint64_t>(below_4g / kKiB, 640));
  StoreLe(0x17, 2, beyond(kMiB) / kKiB);
  StoreLe(0x30, 2, beyond(kMiB) / kKiB);
  StoreLe(0x34, 2, beyond(16 * kMiB) / (64 * kKiB));
  StoreLe(0x5b, 3, above_4g / (64 * kKiB));
}

// Table 5: rates 1 and 2 are those of 8 and 9; the others 32768 Hz >> (rate - 1).
std::int64_t Rtc::Impl::PeriodNs() const {
  const unsigned rate = reg_a & kRateMask;
  const unsigned shift = rate <= 2 ? rate + 6 : rate - 1;
  return (kSecondNs << shift) / 32768;
}

std::int64_t Rtc::Impl::Period() const { return loop.Now(ClockType::kVirtual) / PeriodNs(); }

void Rtc::Impl::ShowTime() {
  if (running()) {
    EncodeRtcTime(Seconds(), reg_b, memory);
  }
}

void Rtc::Impl::AdoptTime() {
  offset = DecodeRtcTime(memory, reg_b) - FloorDiv(RunNs(), kSecondNs);
  seen_second = Seconds();
}

// What has happened since the last look. Flags are set whether or not their
// interrupts are enabled (data sheet, "Register C").
void Rtc::Impl::CollectFlags() {
  if (running()) {
    const std::int64_t now = Seconds();
    if (now > seen_second) {
      flags |= kUpdateEnded;
      const std::int64_t alarm = NextRtcAlarm(seen_second + 1, memory, reg_b);
      if (alarm >= 0 && alarm <= now) {
        flags |= kAlarm;
      }
    }
    seen_second = now;
  }
  if ((reg_a & kRateMask) != 0) {
    const std::int64_t period = Period();
    if (period > seen_period) {
      flags |= kPeriodic;
    }
    seen_period = period;
  }
}

void Rtc::Impl::OnSecond() {
  CollectFlags();
  Update();
  if (on_alarm && (flags & reg_b & kAlarm) != 0) {
    on_alarm();
  }
}

void Rtc::Impl::OnPeriod() {
  CollectFlags();
  Update();
}

// The line follows the enabled flags; timers run only for interrupts that can come.
void Rtc::Impl::Update() {
  const bool high = (flags & reg_b & kInterrupts) != 0;
  if (high != line_high) {
    line_high = high;
    line.Set(high);
  }
  second_timer.Cancel();
  if (running() && (reg_b & ~flags & (kAlarm | kUpdateEnded)) != 0) {
    const std::int64_t now = Seconds();
    const bool every_second = (reg_b & ~flags & kUpdateEnded) != 0;
    const std::int64_t next = every_second ? now + 1 : NextRtcAlarm(now + 1, memory, reg_b);
    if (next >= 0) {
      second_timer.Set((next - offset) * kSecondNs - phase_ns);
    }
  }
  periodic_timer.Cancel();
  if ((reg_a & kRateMask) != 0 && (reg_b & ~flags & kPeriodic) != 0) {
    periodic_timer.Set(PeriodNs() * (Period() + 1));
  }
}

std::uint8_t Rtc::Impl::ReadFlags() {
  CollectFlags();
  const std::uint8_t enabled = flags & reg_b & kInterrupts;
  const std::uint8_t value =
      static_cast<std::uint8_t>(std::exchange(flags, 0) | (enabled != 0 ? kIrqFlag : 0));
  Update();
  return value;
}

std::uint8_t Rtc::Impl::ReadByte(std::uint8_t place) {
  switch (place) {
    case kRegA: {
      const std::int64_t in_second = RunNs() - FloorDiv(RunNs(), kSecondNs) * kSecondNs;
      const bool updating = running() && in_second >= kSecondNs - kUpdateNs;
      return static_cast<std::uint8_t>(reg_a | (updating ? kUpdateInProgress : 0));
    }
    case kRegB:
      return reg_b;
    case kRegC:
      return ReadFlags();
    case kRegD:
      return kValid;
    default:
      if (IsRtcTime(place)) {
        ShowTime();
      }
      return memory[place];
  }
}

// Releasing the divider makes the first update follow after half a second.
void Rtc::Impl::WriteA(std::uint8_t value) {
  const bool was_held = (reg_a & kDividerReset) == kDividerReset;
  const bool is_held = (value & kDividerReset) == kDividerReset;
  CollectFlags();
  if (!was_held && is_held) {
    ShowTime();
  }
  reg_a = value & static_cast<std::uint8_t>(~kUpdateInProgress);
  if (was_held && !is_held) {
    const std::int64_t host = loop.Now(ClockType::kHost);
    phase_ns = FloorDiv(host, kSecondNs) * kSecondNs + kHalfSecondNs - host;
    AdoptTime();
  }
  if ((reg_a & kRateMask) != 0) {
    seen_period = Period();
  }
  Update();
}

// A change of form re-shows the running time; while SET holds it, the bytes are
// the guest's to rewrite (data sheet, "Register B", DM).
void Rtc::Impl::WriteB(std::uint8_t value) {
  CollectFlags();
  const bool was_running = running();
  if (was_running) {
    ShowTime();
  }
  if ((value & kSet) != 0) {
    value &= static_cast<std::uint8_t>(~kUpdateEnded);  // SET clears UIE
  }
  reg_b = value;
  if (!was_running && running()) {
    AdoptTime();
  }
  Update();
}

void Rtc::Impl::WriteByte(std::uint8_t place, std::uint8_t value) {
  switch (place) {
    case kRegA:
      return WriteA(value);
    case kRegB:
      return WriteB(value);
    case kRegC:
    case kRegD:
      return;
    default:
      break;
  }
  CollectFlags();
  if (!IsRtcTime(place)) {
    memory[place] = value;
    if (place <= kRtcHoursAlarm) {
      Update();
    }
    return;
  }
  ShowTime();
  memory[place] = value;
  if (running()) {
    AdoptTime();
    Update();
  }
}

// The battery keeps time and memory (data sheet, "RESET": the enables and flags
// go); the divider is set as a BIOS would, so that no guest stops the next one's clock.
void Rtc::Impl::Reset() {
  WriteA(kPowerOnA);
  WriteB(reg_b & static_cast<std::uint8_t>(~(kInterrupts | kSquareWave | kSet)));
  flags = 0;
  index = 0;
  Update();
}

bool Rtc::Impl::Load(const State& state) {
  const auto within = [](std::int64_t value, std::int64_t most) { return value >= -most && value <= most; };
  if (!within(state.offset, kMostSeconds) || !within(state.seen_second, kMostSeconds) ||
      !within(state.phase_ns, kSecondNs) || state.seen_period < 0 || (state.index & 0x80) != 0 ||
      (state.reg_a & kUpdateInProgress) != 0 || (state.flags & ~kInterrupts) != 0) {
    return false;
  }
  offset = state.offset;
  phase_ns = state.phase_ns;
  seen_second = state.seen_second;
  seen_period = state.seen_period;
  memory = state.memory;
  index = state.index;
  reg_a = state.reg_a;
  reg_b = state.reg_b;
  flags = state.flags;
  CollectFlags();
  Update();
  line.Set(line_high);
  return true;
}

Rtc::Rtc(loop::MainLoop& loop, IrqLine& line, std::uint64_t ram_below_4g, std::uint64_t ram_above_4g,
         std::move_only_function<void()> on_alarm)
    : impl_(std::make_unique<Impl>(loop, line)) {
  impl_->on_alarm = std::move(on_alarm);
  impl_->StoreRamSize(ram_below_4g, ram_above_4g);
  impl_->seen_second = impl_->Seconds();
}
Rtc::~Rtc() = default;

void Rtc::Reset() { impl_->Reset(); }

SavedState Rtc::SaveState() const {
  const Impl& from = *impl_;
  return SaveAs(kStateVersion, State{.offset = from.offset,
                                     .phase_ns = from.phase_ns,
                                     .seen_second = from.seen_second,
                                     .seen_period = from.seen_period,
                                     .memory = from.memory,
                                     .index = from.index,
                                     .reg_a = from.reg_a,
                                     .reg_b = from.reg_b,
                                     .flags = from.flags});
}

bool Rtc::LoadState(const SavedState& saved) {
  const auto state = LoadAs<State>(kStateVersion, saved);
  return state && impl_->Load(*state);
}

std::uint64_t Rtc::Read(std::uint64_t offset, unsigned size) {
  return ReadByByte(offset, size, [this](std::uint64_t port) -> std::uint8_t {
    return port == 1 ? impl_->ReadByte(impl_->index) : 0xff;
  });
}

// Bit 7 of the index is the NMI mask, which is nothing to us.
void Rtc::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  WriteByByte(offset, size, value, [this](std::uint64_t port, std::uint8_t byte) {
    if (port == 0) {
      impl_->index = byte & 0x7f;
    } else if (port == 1) {
      impl_->WriteByte(impl_->index, byte);
    }
  });
}

}  // namespace gyre::devices
