#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <optional>
#include <utility>

#include "devices/platform/byte_ports.h"
#include "gyre/base/check.h"
#include "gyre/devices/platform/pic_pit.h"

namespace gyre::devices {
namespace {

constexpr unsigned kPins = 8;
constexpr unsigned kCascadePin = 2;
constexpr unsigned kSpuriousPin = 7;

constexpr std::uint8_t kIcw1 = 0x10;
constexpr std::uint8_t kIcw1NeedsIcw4 = 0x01;
constexpr std::uint8_t kIcw1Single = 0x02;
constexpr std::uint8_t kIcw1Level = 0x08;
constexpr std::uint8_t kIcw4AutoEoi = 0x02;
constexpr std::uint8_t kIcw4FullyNested = 0x10;  // special fully nested mode
constexpr std::uint8_t kOcw3 = 0x08;
constexpr std::uint8_t kOcw3Poll = 0x04;
constexpr std::uint8_t kPollPending = 0x80;

constexpr std::uint8_t PinMask(unsigned pin) { return static_cast<std::uint8_t>(1U << pin); }

// One 8259A. It knows nothing of the other.
class Pic {
 public:
  explicit Pic(std::uint8_t elcr_writable) : elcr_writable_(elcr_writable) {}

  void Reset();
  void SetLine(unsigned pin, bool asserted);
  // The pin that INT is raised for.
  std::optional<unsigned> Winner() const;
  // INTA: the vector, with the pin now in service; pin 7's if nobody wins any more.
  std::uint8_t Acknowledge();
  std::uint8_t Read(unsigned port);
  void Write(unsigned port, std::uint8_t value);
  bool polled() const { return polled_; }  // the next read acknowledges
  std::uint8_t elcr() const { return elcr_; }
  void SetElcr(std::uint8_t value);

  struct State {
    std::uint8_t lines = 0, irr = 0, isr = 0, imr = 0, elcr = 0, base = 0, highest = 0, expected = 0;
    std::uint8_t needs_icw4 = 0, single = 0, all_level = 0, auto_eoi = 0, rotate_in_auto_eoi = 0,
                 fully_nested = 0;
    std::uint8_t special_mask = 0, reads_isr = 0, polled = 0;
  };
  State Save() const;
  bool Load(const State& state);

 private:
  // Which initialization word is next.
  enum class Expected : std::uint8_t { kNone, kIcw2, kIcw3, kIcw4 };

  std::uint8_t LevelPins() const { return all_level_ ? 0xff : elcr_; }
  // 0 is the highest priority.
  unsigned Rank(unsigned pin) const { return (pin + kPins - highest_) % kPins; }
  std::optional<unsigned> Highest(std::uint8_t pins) const;
  void BeginService(unsigned pin);
  void Initialize(std::uint8_t icw1);
  void WriteIcw(std::uint8_t value);
  void WriteOcw2(std::uint8_t value);
  void WriteOcw3(std::uint8_t value);
  std::uint8_t Poll();

  const std::uint8_t elcr_writable_;
  std::uint8_t lines_ = 0;  // as they are now
  std::uint8_t irr_ = 0;
  std::uint8_t isr_ = 0;
  std::uint8_t imr_ = 0;
  std::uint8_t elcr_ = 0;
  std::uint8_t base_ = 0;  // ICW2
  unsigned highest_ = 0;   // the pin of highest priority
  Expected expected_ = Expected::kNone;
  bool needs_icw4_ = false;
  bool single_ = false;
  bool all_level_ = false;
  bool auto_eoi_ = false;
  bool rotate_in_auto_eoi_ = false;
  bool fully_nested_ = false;
  bool special_mask_ = false;
  bool reads_isr_ = false;
  bool polled_ = false;
};

void Pic::Reset() {
  const std::uint8_t lines = lines_;
  imr_ = isr_ = irr_ = elcr_ = base_ = 0;
  Initialize(kIcw1 | kIcw1NeedsIcw4);
  expected_ = Expected::kNone;
  lines_ = lines;
}

// Edge mode: the request stands while the line stays high after its rise; gone
// before INTA, it leaves a spurious interrupt (data sheet, "Edge and level triggered modes").
void Pic::SetLine(unsigned pin, bool asserted) {
  const std::uint8_t mask = PinMask(pin);
  const bool rises = asserted && (lines_ & mask) == 0;
  lines_ = static_cast<std::uint8_t>(asserted ? lines_ | mask : lines_ & ~mask);
  if (!asserted) {
    irr_ &= static_cast<std::uint8_t>(~mask);
  } else if (rises || (LevelPins() & mask) != 0) {
    irr_ |= mask;
  }
}

void Pic::SetElcr(std::uint8_t value) {
  elcr_ = value & elcr_writable_;
  irr_ |= static_cast<std::uint8_t>(lines_ & elcr_);
}

std::optional<unsigned> Pic::Highest(std::uint8_t pins) const {
  if (pins == 0) {
    return std::nullopt;
  }
  const auto turned = std::rotr(pins, static_cast<int>(highest_));
  return (static_cast<unsigned>(std::countr_zero(turned)) + highest_) % kPins;
}

std::optional<unsigned> Pic::Winner() const {
  const auto requested = Highest(static_cast<std::uint8_t>(irr_ & ~imr_));
  if (!requested) {
    return std::nullopt;
  }
  // Special mask mode: what is masked in service blocks nobody. Special fully
  // nested mode: the slave's pin does not block itself.
  auto blocking = static_cast<std::uint8_t>(special_mask_ ? isr_ & ~imr_ : isr_);
  if (fully_nested_ && *requested == kCascadePin) {
    blocking &= static_cast<std::uint8_t>(~PinMask(kCascadePin));
  }
  const auto in_service = Highest(blocking);
  return in_service && Rank(*in_service) <= Rank(*requested) ? std::nullopt : requested;
}

void Pic::BeginService(unsigned pin) {
  const std::uint8_t mask = PinMask(pin);
  if ((LevelPins() & mask) == 0) {
    irr_ &= static_cast<std::uint8_t>(~mask);
  }
  if (!auto_eoi_) {
    isr_ |= mask;
  } else if (rotate_in_auto_eoi_) {
    highest_ = (pin + 1) % kPins;
  }
}

std::uint8_t Pic::Acknowledge() {
  const auto winner = Winner();
  if (winner) {
    BeginService(*winner);
  }
  return static_cast<std::uint8_t>(base_ + winner.value_or(kSpuriousPin));
}

// OCW3's poll: the next read acts as INTA.
std::uint8_t Pic::Poll() {
  polled_ = false;
  const auto winner = Winner();
  if (!winner) {
    return 0;
  }
  BeginService(*winner);
  return static_cast<std::uint8_t>(kPollPending | *winner);
}

std::uint8_t Pic::Read(unsigned port) {
  if (polled_) {
    return Poll();
  }
  if (port == 1) {
    return imr_;
  }
  return reads_isr_ ? isr_ : irr_;
}

void Pic::Write(unsigned port, std::uint8_t value) {
  if (port == 1) {
    if (expected_ == Expected::kNone) {
      imr_ = value;  // OCW1
    } else {
      WriteIcw(value);
    }
  } else if ((value & kIcw1) != 0) {
    Initialize(value);
  } else if ((value & kOcw3) != 0) {
    WriteOcw3(value);
  } else {
    WriteOcw2(value);
  }
}

// What ICW1 clears (data sheet, "Initialization command words 1 and 2"). An edge
// must come anew.
void Pic::Initialize(std::uint8_t icw1) {
  irr_ = isr_ = imr_ = 0;
  highest_ = 0;
  auto_eoi_ = rotate_in_auto_eoi_ = fully_nested_ = special_mask_ = reads_isr_ = polled_ = false;
  needs_icw4_ = (icw1 & kIcw1NeedsIcw4) != 0;
  single_ = (icw1 & kIcw1Single) != 0;
  all_level_ = (icw1 & kIcw1Level) != 0;
  irr_ = lines_ & LevelPins();
  expected_ = Expected::kIcw2;
}

void Pic::WriteIcw(std::uint8_t value) {
  const Expected last = needs_icw4_ ? Expected::kIcw4 : Expected::kNone;
  switch (expected_) {
    case Expected::kIcw2:
      base_ = value & 0xf8;
      expected_ = single_ ? last : Expected::kIcw3;
      break;
    case Expected::kIcw3:  // the wiring of the cascade is what it is
      expected_ = last;
      break;
    case Expected::kIcw4:
      auto_eoi_ = (value & kIcw4AutoEoi) != 0;
      fully_nested_ = (value & kIcw4FullyNested) != 0;
      expected_ = Expected::kNone;
      break;
    case Expected::kNone:
      break;
  }
}

// Bits 7 to 5: rotate, specific, end of interrupt.
void Pic::WriteOcw2(std::uint8_t value) {
  const bool rotate = (value & 0x80) != 0;
  const bool specific = (value & 0x40) != 0;
  const bool end = (value & 0x20) != 0;
  if (!end) {
    if (specific && rotate) {
      highest_ = (value + 1U) % kPins;  // set priority: the named pin gets the lowest
    } else if (!specific) {
      rotate_in_auto_eoi_ = rotate;
    }
    return;
  }
  // In special mask mode a non-specific end does not see what is masked.
  const auto pin = specific ? std::optional<unsigned>(value & 7U)
                            : Highest(static_cast<std::uint8_t>(special_mask_ ? isr_ & ~imr_ : isr_));
  if (pin) {
    isr_ &= static_cast<std::uint8_t>(~PinMask(*pin));
    if (rotate) {
      highest_ = (*pin + 1) % kPins;
    }
  }
}

void Pic::WriteOcw3(std::uint8_t value) {
  polled_ = (value & kOcw3Poll) != 0;
  if ((value & 0x02) != 0) {
    reads_isr_ = (value & 0x01) != 0;
  }
  if ((value & 0x40) != 0) {
    special_mask_ = (value & 0x20) != 0;
  }
}

Pic::State Pic::Save() const {
  return {.lines = lines_,
          .irr = irr_,
          .isr = isr_,
          .imr = imr_,
          .elcr = elcr_,
          .base = base_,
          .highest = static_cast<std::uint8_t>(highest_),
          .expected = static_cast<std::uint8_t>(expected_),
          .needs_icw4 = needs_icw4_,
          .single = single_,
          .all_level = all_level_,
          .auto_eoi = auto_eoi_,
          .rotate_in_auto_eoi = rotate_in_auto_eoi_,
          .fully_nested = fully_nested_,
          .special_mask = special_mask_,
          .reads_isr = reads_isr_,
          .polled = polled_};
}

bool Pic::Load(const State& state) {
  if (state.highest >= kPins || state.expected > static_cast<std::uint8_t>(Expected::kIcw4) ||
      (state.elcr & ~elcr_writable_) != 0 || (state.base & 7) != 0) {
    return false;
  }
  lines_ = state.lines;
  irr_ = state.irr;
  isr_ = state.isr;
  imr_ = state.imr;
  elcr_ = state.elcr;
  base_ = state.base;
  highest_ = state.highest;
  expected_ = static_cast<Expected>(state.expected);
  needs_icw4_ = state.needs_icw4 != 0;
  single_ = state.single != 0;
  all_level_ = state.all_level != 0;
  auto_eoi_ = state.auto_eoi != 0;
  rotate_in_auto_eoi_ = state.rotate_in_auto_eoi != 0;
  fully_nested_ = state.fully_nested != 0;
  special_mask_ = state.special_mask != 0;
  reads_isr_ = state.reads_isr != 0;
  polled_ = state.polled != 0;
  return true;
}

struct State {
  Pic::State master;
  Pic::State slave;
};
constexpr std::uint32_t kStateVersion = 1;

}  // namespace

struct DualPic::Impl {
  // Two ports of one chip.
  class ChipPorts final : public memory::RegionHandler {
   public:
    ChipPorts(Impl& owner, Pic& pic) : owner_(owner), pic_(pic) {}
    std::uint64_t Read(std::uint64_t offset, unsigned size) override {
      const bool polls = pic_.polled();
      const std::uint64_t value = ReadByByte(offset, size, [this](std::uint64_t port) -> std::uint8_t {
        return port < 2 ? pic_.Read(static_cast<unsigned>(port)) : 0xff;
      });
      if (polls) {
        owner_.AfterAcknowledge();
      }
      return value;
    }
    void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      WriteByByte(offset, size, value, [this](std::uint64_t port, std::uint8_t byte) {
        if (port < 2) {
          pic_.Write(static_cast<unsigned>(port), byte);
        }
      });
      owner_.Update();
    }

   private:
    Impl& owner_;
    Pic& pic_;
  };

  class ElcrPorts final : public memory::RegionHandler {
   public:
    explicit ElcrPorts(Impl& owner) : owner_(owner) {}
    std::uint64_t Read(std::uint64_t offset, unsigned size) override {
      return ReadByByte(offset, size, [this](std::uint64_t port) -> std::uint8_t {
        return port < 2 ? owner_.chip(port == 0).elcr() : 0xff;
      });
    }
    void Write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      WriteByByte(offset, size, value, [this](std::uint64_t port, std::uint8_t byte) {
        if (port < 2) {
          owner_.chip(port == 0).SetElcr(byte);
        }
      });
      owner_.Update();
    }

   private:
    Impl& owner_;
  };

  class Line final : public IrqLine {
   public:
    void Set(bool asserted) override {
      // Pin 2 of the master is the slave's.
      if (irq != kCascadePin) {
        owner->chip(irq < kPins).SetLine(irq % kPins, asserted);
        owner->Update();
      }
    }
    Impl* owner = nullptr;
    unsigned irq = 0;
  };

  explicit Impl(std::function<void()> changed) : output_changed(std::move(changed)) {
    for (unsigned i = 0; i < lines.size(); ++i) {
      lines[i].owner = this;
      lines[i].irq = i;
    }
  }

  Pic& chip(bool is_master) { return is_master ? master : slave; }
  void Update();
  void AfterAcknowledge();
  std::uint8_t Acknowledge();

  // IRQ 0, 1, 2, 8 and 13 are always edges.
  Pic master{0xf8};
  Pic slave{0xde};
  ChipPorts master_ports{*this, master};
  ChipPorts slave_ports{*this, slave};
  ElcrPorts elcr_ports{*this};
  std::array<Line, 2UL * kPins> lines;
  std::function<void()> output_changed;
  std::atomic<bool> pending{false};
};

void DualPic::Impl::Update() {
  master.SetLine(kCascadePin, slave.Winner().has_value());
  const bool now = master.Winner().has_value();
  const bool before = pending.exchange(now, std::memory_order_acq_rel);
  if (now && !before && output_changed) {
    output_changed();
  }
}

// The master answers the first INTA; for its cascade pin the slave gives the vector.
std::uint8_t DualPic::Impl::Acknowledge() {
  const auto winner = master.Winner();
  std::uint8_t vector = master.Acknowledge();
  if (winner == kCascadePin) {
    vector = slave.Acknowledge();
  }
  AfterAcknowledge();
  return vector;
}

// The slave's output falls with its INTA and rises anew for its next request.
void DualPic::Impl::AfterAcknowledge() {
  master.SetLine(kCascadePin, false);
  Update();
}

DualPic::DualPic(std::function<void()> output_changed)
    : impl_(std::make_unique<Impl>(std::move(output_changed))) {
  Reset();
}
DualPic::~DualPic() = default;

memory::RegionHandler& DualPic::master() { return impl_->master_ports; }
memory::RegionHandler& DualPic::slave() { return impl_->slave_ports; }
memory::RegionHandler& DualPic::elcr() { return impl_->elcr_ports; }

IrqLine& DualPic::line(unsigned irq) {
  CHECK(irq < impl_->lines.size());
  return impl_->lines[irq];
}

void DualPic::Reset() {
  impl_->master.Reset();
  impl_->slave.Reset();
  impl_->Update();
}

SavedState DualPic::SaveState() const {
  return SaveAs(kStateVersion, State{.master = impl_->master.Save(), .slave = impl_->slave.Save()});
}

bool DualPic::LoadState(const SavedState& saved) {
  const auto state = LoadAs<State>(kStateVersion, saved);
  if (!state || !impl_->master.Load(state->master) || !impl_->slave.Load(state->slave)) {
    return false;
  }
  impl_->Update();
  return true;
}

bool DualPic::Pending() const { return impl_->pending.load(std::memory_order_acquire); }

std::uint8_t DualPic::Acknowledge() { return impl_->Acknowledge(); }

}  // namespace gyre::devices
