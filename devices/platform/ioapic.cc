#include "gyre/devices/platform/ioapic.h"

#include <optional>
#include <utility>
#include <vector>

#include "gyre/base/bits.h"
#include "gyre/base/check.h"

namespace gyre::devices {
namespace {

// The two windows (82093AA, 3.1) and the EOI register of version 0x20.
constexpr std::uint64_t kSelect = 0x00;
constexpr std::uint64_t kWindow = 0x10;
constexpr std::uint64_t kEoi = 0x40;

// Indirect registers (82093AA, 3.2).
constexpr std::uint8_t kIdRegister = 0x00;
constexpr std::uint8_t kVersionRegister = 0x01;
constexpr std::uint8_t kArbitrationRegister = 0x02;
constexpr std::uint8_t kFirstEntry = 0x10;
constexpr std::uint32_t kVersion = 0x20;
constexpr unsigned kLastPinShift = 16;
constexpr std::uint32_t kIdMask = 0x0f000000;

// A redirection entry (82093AA, 3.2.4).
using Vector = Field<7, 0>;
using DeliveryMode = Field<10, 8>;
using DestinationMode = Bit<11>;
using RemoteIrr = Bit<14>;
using LevelTriggered = Bit<15>;
using Masked = Bit<16>;
using Destination = Field<63, 56>;
constexpr std::uint64_t kWritable = 0xff00'0000'0001'afffULL;
constexpr std::uint64_t kExtInt = 7;

// What the entry means on the bus (SDM vol. 3, 11.11). ExtINT means nothing
// there: an 8259's interrupts reach the CPU by a wire of their own.
std::optional<MsiMessage> Message(std::uint64_t entry) {
  if (DeliveryMode::Get(entry) == kExtInt) {
    return std::nullopt;
  }
  const std::uint64_t level = LevelTriggered::Get(entry);
  return MsiMessage{
      .address = 0xfee00000 | (Destination::Get(entry) << 12) | (DestinationMode::Get(entry) << 2),
      .data = static_cast<std::uint32_t>((level << 15) | (level << 14) | (DeliveryMode::Get(entry) << 8) |
                                         Vector::Get(entry)),
  };
}

// What an IOAPIC is in the midst of; the pins follow.
struct State {
  std::uint32_t pins = 0;
  std::uint32_t select = 0;
  std::uint32_t id = 0;
  std::uint32_t arbitration = 0;
};
struct PinState {
  std::uint64_t entry = 0;
  std::uint64_t route_address = 0;
  std::uint32_t route_data = 0;
  std::uint16_t has_route = 0;
  std::uint16_t asserted = 0;
};
constexpr std::uint32_t kStateVersion = 1;
constexpr std::uint64_t kMsiRange = 0xfee;  // the upper bits of every message's address

}  // namespace

struct IoApic::Impl {
  class Pin final : public IrqLine {
   public:
    void Set(bool high) override { ioapic->SetLine(index, high); }
    Impl* ioapic = nullptr;
    unsigned index = 0;
    std::uint64_t entry = Masked::kMask;
    bool asserted = false;
    std::optional<MsiMessage> route;  // what KVM knows of the pin
    std::function<void()> unmasked;
  };

  Impl(MsiSink& sink, unsigned count) : msi(sink), pins(count) {
    for (unsigned i = 0; i < count; ++i) {
      pins[i].ioapic = this;
      pins[i].index = i;
    }
  }

  void SetLine(unsigned index, bool asserted);
  void Deliver(Pin& pin);
  void DeliverIfLevel(Pin& pin);
  void UpdateRoute(Pin& pin);
  std::uint32_t ReadRegister() const;
  void WriteRegister(std::uint32_t value);
  void WriteEntry(Pin& pin, bool high, std::uint32_t value);
  void EndOfInterrupt(std::uint8_t vector);
  void Reset();
  bool Load(const SavedState& saved);
  bool LoadPin(const PinState& state, Pin& pin);

  MsiSink& msi;
  std::vector<Pin> pins;
  std::uint8_t select = 0;
  std::uint32_t id = 0;
  std::uint32_t arbitration = 0;
};

// An edge on a masked pin is ignored, not held (82093AA, 3.2.4, bit 16).
void IoApic::Impl::SetLine(unsigned index, bool asserted) {
  Pin& pin = pins[index];
  const bool rises = asserted && !pin.asserted;
  pin.asserted = asserted;
  if (LevelTriggered::Get(pin.entry) != 0) {
    DeliverIfLevel(pin);
  } else if (rises && Masked::Get(pin.entry) == 0) {
    Deliver(pin);
  }
}

void IoApic::Impl::Deliver(Pin& pin) {
  if (const auto message = Message(pin.entry)) {
    msi.Send(*message);
  }
}

// Remote IRR stands from the delivery to the CPU's end of interrupt, and holds
// the next delivery back.
void IoApic::Impl::DeliverIfLevel(Pin& pin) {
  const bool level = LevelTriggered::Get(pin.entry) != 0;
  if (level && pin.asserted && Masked::Get(pin.entry) == 0 && RemoteIrr::Get(pin.entry) == 0) {
    pin.entry = RemoteIrr::Set(pin.entry, 1);
    Deliver(pin);
  }
}

// A pin that is masked while its interrupt is in service keeps its route until
// the end of interrupt, which KVM reports only of vectors that have a route.
void IoApic::Impl::UpdateRoute(Pin& pin) {
  const bool masked = Masked::Get(pin.entry) != 0;
  if (masked && RemoteIrr::Get(pin.entry) != 0 && pin.route) {
    return;
  }
  const auto route = masked ? std::nullopt : Message(pin.entry);
  if (route != pin.route) {
    const bool appears = !pin.route;
    pin.route = route;
    msi.SetRoute(Gsi(pin.index), route);
    if (appears && pin.unmasked) {
      pin.unmasked();
    }
  }
}

std::uint32_t IoApic::Impl::ReadRegister() const {
  switch (select) {
    case kIdRegister:
      return id;
    case kVersionRegister:
      return kVersion | (static_cast<std::uint32_t>(pins.size() - 1) << kLastPinShift);
    case kArbitrationRegister:
      return arbitration;
    default:
      break;
  }
  const unsigned index = (select - unsigned{kFirstEntry}) / 2;
  if (select < kFirstEntry || index >= pins.size()) {
    return 0;
  }
  return static_cast<std::uint32_t>(pins[index].entry >> ((select & 1) != 0 ? 32 : 0));
}

void IoApic::Impl::WriteRegister(std::uint32_t value) {
  if (select == kIdRegister) {
    id = value & kIdMask;
    arbitration = id;  // 82093AA, 3.2.3: loaded with the id
    return;
  }
  const unsigned index = (select - unsigned{kFirstEntry}) / 2;
  if (select >= kFirstEntry && index < pins.size()) {
    WriteEntry(pins[index], (select & 1) != 0, value);
  }
}

void IoApic::Impl::WriteEntry(Pin& pin, bool high, std::uint32_t value) {
  const std::uint64_t half = high ? 0xffffffff00000000ULL : 0xffffffffULL;
  const std::uint64_t wanted = high ? std::uint64_t{value} << 32 : value;
  const std::uint64_t mask = half & kWritable;
  pin.entry = (pin.entry & ~mask) | (wanted & mask);
  if (LevelTriggered::Get(pin.entry) == 0) {
    // An edge entry has none; drivers of old IOAPICs clear it so.
    pin.entry = RemoteIrr::Set(pin.entry, 0);
  }
  UpdateRoute(pin);
  DeliverIfLevel(pin);
}

void IoApic::Impl::EndOfInterrupt(std::uint8_t vector) {
  for (Pin& pin : pins) {
    if (Vector::Get(pin.entry) == vector && RemoteIrr::Get(pin.entry) != 0) {
      pin.entry = RemoteIrr::Set(pin.entry, 0);
      UpdateRoute(pin);
      DeliverIfLevel(pin);
    }
  }
}

// The wires keep their state: what drives them is reset by itself.
void IoApic::Impl::Reset() {
  select = 0;
  id = arbitration = 0;
  for (Pin& pin : pins) {
    pin.entry = Masked::kMask;
    UpdateRoute(pin);
  }
}

// Who was to be told of the pin's unmasking has been. A pin in service may have a route of an older entry
// (UpdateRoute).
bool IoApic::Impl::LoadPin(const PinState& state, Pin& pin) {
  const auto route =
      state.has_route != 0 ? std::optional(MsiMessage{state.route_address, state.route_data}) : std::nullopt;
  const bool masked = Masked::Get(state.entry) != 0;
  const bool in_service = RemoteIrr::Get(state.entry) != 0;
  const bool possible =
      masked ? !route || (in_service && route->address >> 20 == kMsiRange) : route == Message(state.entry);
  if ((state.entry & ~(kWritable | RemoteIrr::kMask)) != 0 || !possible) {
    return false;
  }
  pin.entry = state.entry;
  pin.asserted = state.asserted != 0;
  if (route != pin.route) {
    pin.route = route;
    msi.SetRoute(Gsi(pin.index), route);
  }
  return true;
}

bool IoApic::Impl::Load(const SavedState& saved) {
  StateReader reader(saved.bytes);
  State state;
  if (saved.version != kStateVersion || !reader.Get(state) || state.pins != pins.size() ||
      state.select > UINT8_MAX || ((state.id | state.arbitration) & ~kIdMask) != 0 ||
      reader.left() != pins.size() * sizeof(PinState)) {
    return false;
  }
  select = static_cast<std::uint8_t>(state.select);
  id = state.id;
  arbitration = state.arbitration;
  for (Pin& pin : pins) {
    PinState pin_state;
    if (!reader.Get(pin_state) || !LoadPin(pin_state, pin)) {
      return false;
    }
  }
  return true;
}

IoApic::IoApic(MsiSink& msi, unsigned pins) : impl_(std::make_unique<Impl>(msi, pins)) {
  CHECK(pins >= 1 && pins <= kMaxPins);
}
IoApic::~IoApic() = default;

IrqLine& IoApic::line(unsigned pin) {
  CHECK(pin < impl_->pins.size());
  return impl_->pins[pin];
}

void IoApic::SetUnmasked(unsigned pin, std::function<void()> unmasked) {
  CHECK(pin < impl_->pins.size());
  impl_->pins[pin].unmasked = std::move(unmasked);
}

void IoApic::Reset() { impl_->Reset(); }

SavedState IoApic::SaveState() const {
  StateWriter writer(kStateVersion);
  writer.Put(State{.pins = static_cast<std::uint32_t>(impl_->pins.size()),
                   .select = impl_->select,
                   .id = impl_->id,
                   .arbitration = impl_->arbitration});
  for (const auto& pin : impl_->pins) {
    const MsiMessage route = pin.route.value_or(MsiMessage());
    writer.Put(PinState{.entry = pin.entry,
                        .route_address = route.address,
                        .route_data = route.data,
                        .has_route = pin.route.has_value(),
                        .asserted = pin.asserted});
  }
  return writer.Take();
}

bool IoApic::LoadState(const SavedState& saved) { return impl_->Load(saved); }

// Registers are 32 bits wide; a narrower read gets its part of one.
std::uint64_t IoApic::Read(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  switch (offset & ~3ULL) {
    case kSelect:
      value = impl_->select;
      break;
    case kWindow:
      value = impl_->ReadRegister();
      break;
    default:
      break;
  }
  value >>= 8 * (offset & 3);
  return size >= 8 ? value : value & ((1ULL << (8 * size)) - 1);
}

// The window takes whole registers only (82093AA, 3.0); the two byte-wide
// registers take any width.
void IoApic::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  switch (offset) {
    case kSelect:
      impl_->select = static_cast<std::uint8_t>(value);
      break;
    case kWindow:
      if (size >= 4) {
        impl_->WriteRegister(static_cast<std::uint32_t>(value));
      }
      break;
    case kEoi:
      impl_->EndOfInterrupt(static_cast<std::uint8_t>(value));
      break;
    default:
      break;
  }
}

void IoApic::EndOfInterrupt(std::uint8_t vector) { impl_->EndOfInterrupt(vector); }

}  // namespace gyre::devices
