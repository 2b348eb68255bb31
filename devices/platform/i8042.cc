#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "devices/platform/byte_ports.h"
#include "gyre/devices/platform/legacy.h"

namespace gyre::devices {
namespace {

constexpr std::uint64_t kData = 0;           // port 0x60
constexpr std::uint64_t kStatusCommand = 4;  // port 0x64

enum Status : std::uint8_t {
  kOutputFull = 0x01,
  kSystemFlag = 0x04,   // self test passed
  kLastCommand = 0x08,  // the last write was to port 0x64
  kUnlocked = 0x10,
  kFromAux = 0x20,
  kTimeout = 0x40,
};

enum ControlByte : std::uint8_t {
  kKeyboardInterrupt = 0x01,
  kControlSystemFlag = 0x04,
  kKeyboardDisabled = 0x10,
  kAuxDisabled = 0x20,
  kTranslate = 0x40,
};

enum Command : std::uint8_t {
  kReadRam = 0x20,
  kWriteRam = 0x60,
  kTestAux = 0xa9,
  kSelfTest = 0xaa,
  kTestKeyboard = 0xab,
  kDisableKeyboard = 0xad,
  kEnableKeyboard = 0xae,
  kReadInputPort = 0xc0,
  kReadOutputPort = 0xd0,
  kWriteOutputPort = 0xd1,
  kWriteKeyboardBuffer = 0xd2,
  kWriteAuxBuffer = 0xd3,
  kWriteAux = 0xd4,
  kA20Off = 0xdd,
  kA20On = 0xdf,
  kReadTestInputs = 0xe0,
  kPulse = 0xf0,
};

constexpr std::uint8_t kOutputNotReset = 0x01;  // output port: the CPU's reset line, active low
constexpr std::uint8_t kOutputA20 = 0x02;
constexpr std::uint8_t kResend = 0xfe;
constexpr std::uint8_t kPowerOnControl = kTranslate | kKeyboardDisabled | kAuxDisabled;

struct State {
  std::array<std::uint8_t, 32> ram{};
  std::uint8_t output_port = 0;
  std::uint8_t output = 0;
  std::uint8_t output_flags = 0;
  std::uint8_t output_interrupts = 0;
  std::uint8_t last_was_command = 0;
  std::uint8_t awaits_data = 0;
  std::uint8_t pending = 0;
};
constexpr std::uint32_t kStateVersion = 1;

}  // namespace

struct I8042::Impl {
  Impl(std::move_only_function<void()> reset_request, IrqLine* keyboard_line)
      : request_reset(std::move(reset_request)), line(keyboard_line) {
    PowerOn();
  }

  void PowerOn();
  std::uint8_t ReadStatus() const;
  std::uint8_t ReadData();
  void WriteData(std::uint8_t value);
  void WriteCommand(std::uint8_t command);
  void AnswerCommand(std::uint8_t command);
  void Reply(std::uint8_t value, std::uint8_t flags = 0);
  void FromKeyboard(std::uint8_t value, std::uint8_t flags);
  void WriteOutputPort(std::uint8_t value);
  void SetControl(std::uint8_t value);
  void UpdateLine();
  bool Load(const State& state);

  std::move_only_function<void()> request_reset;
  IrqLine* line;
  bool line_high = false;
  std::array<std::uint8_t, 32> ram{};  // byte 0 is the control byte
  std::uint8_t output_port = 0;
  std::uint8_t output = 0;        // what port 0x60 reads as
  std::uint8_t output_flags = 0;  // of kOutputFull, kFromAux, kTimeout
  bool output_interrupts = false;
  bool last_was_command = false;
  std::optional<std::uint8_t> pending;  // the command whose data byte is awaited
};

void I8042::Impl::PowerOn() {
  ram.fill(0);
  ram[0] = kPowerOnControl;
  output_port = kOutputNotReset | kOutputA20;
  output = output_flags = 0;
  output_interrupts = last_was_command = false;
  pending.reset();
  UpdateLine();
}

void I8042::Impl::UpdateLine() {
  const bool high = output_interrupts && output_flags != 0 && (ram[0] & kKeyboardInterrupt) != 0;
  if (line != nullptr && high != line_high) {
    line_high = high;
    line->Set(high);
  }
}

// The input buffer is never full: everything is done within the write.
std::uint8_t I8042::Impl::ReadStatus() const {
  const std::uint8_t system = (ram[0] & kControlSystemFlag) != 0 ? kSystemFlag : 0;
  const std::uint8_t command = last_was_command ? kLastCommand : 0;
  return static_cast<std::uint8_t>(kUnlocked | system | command | output_flags);
}

std::uint8_t I8042::Impl::ReadData() {
  output_flags = 0;
  output_interrupts = false;
  UpdateLine();
  return output;
}

// A new byte takes the place of one that nobody has fetched.
void I8042::Impl::Reply(std::uint8_t value, std::uint8_t flags) {
  output = value;
  output_flags = static_cast<std::uint8_t>(kOutputFull | flags);
  output_interrupts = false;
  UpdateLine();
}

void I8042::Impl::FromKeyboard(std::uint8_t value, std::uint8_t flags) {
  Reply(value, flags);
  output_interrupts = true;
  UpdateLine();
}

void I8042::Impl::WriteOutputPort(std::uint8_t value) {
  output_port = value;
  if ((value & kOutputNotReset) == 0) {
    request_reset();
  }
}

// Without an AUX port its disable bit does not go out.
void I8042::Impl::SetControl(std::uint8_t value) {
  ram[0] = static_cast<std::uint8_t>(value | kAuxDisabled);
  UpdateLine();
}

void I8042::Impl::WriteData(std::uint8_t value) {
  last_was_command = false;
  if (!pending) {
    // No keyboard takes it: the controller says so with a time-out, at once.
    FromKeyboard(kResend, kTimeout);
    return;
  }
  const std::uint8_t command = *std::exchange(pending, std::nullopt);
  switch (command) {
    case kWriteOutputPort:
      WriteOutputPort(value);
      break;
    case kWriteKeyboardBuffer:
      FromKeyboard(value, 0);
      break;
    case kWriteAuxBuffer:
      // Answered, but not as from an AUX port: a driver that looks for one is told
      // at once that there is none, where silence would cost it its time-out.
      Reply(value);
      break;
    case kWriteAux:
      Reply(kResend, kFromAux | kTimeout);
      break;
    default:  // kWriteRam and the 31 that follow it
      if (command == kWriteRam) {
        SetControl(value);
      } else {
        ram[command & 0x1fU] = value;
      }
      break;
  }
}

void I8042::Impl::WriteCommand(std::uint8_t command) {
  last_was_command = true;
  pending.reset();
  if (command >= kReadRam && command < kReadRam + ram.size()) {
    Reply(ram[command & 0x1fU]);
    return;
  }
  if (command >= kWriteRam && command < kWriteRam + ram.size()) {
    pending = command;
    return;
  }
  if (command >= kPulse) {
    // Each low bit that is 0 pulses its line of the output port; bit 0 is reset.
    if ((command & kOutputNotReset) == 0) {
      request_reset();
    }
    return;
  }
  switch (command) {
    case kDisableKeyboard:
      ram[0] |= kKeyboardDisabled;
      break;
    case kEnableKeyboard:
      ram[0] &= static_cast<std::uint8_t>(~kKeyboardDisabled);
      break;
    case kA20Off:
      output_port &= static_cast<std::uint8_t>(~kOutputA20);
      break;
    case kA20On:
      output_port |= kOutputA20;
      break;
    case kWriteOutputPort:
    case kWriteKeyboardBuffer:
    case kWriteAuxBuffer:
    case kWriteAux:
      pending = command;
      break;
    default:
      AnswerCommand(command);
      break;
  }
}

// The commands that only ask. Unknown ones, and those for an AUX port, do nothing.
void I8042::Impl::AnswerCommand(std::uint8_t command) {
  switch (command) {
    case kSelfTest:
      SetControl(static_cast<std::uint8_t>(kPowerOnControl | kControlSystemFlag));
      Reply(0x55);
      break;
    case kTestKeyboard:
    case kReadTestInputs:
      Reply(0x00);
      break;
    case kTestAux:
      Reply(0x01);  // its clock line is stuck: there is none
      break;
    case kReadInputPort:
      Reply(0x80);  // not locked
      break;
    case kReadOutputPort:
      Reply(output_port);
      break;
    default:
      break;
  }
}

bool I8042::Impl::Load(const State& state) {
  if ((state.output_flags & ~(kOutputFull | kFromAux | kTimeout)) != 0) {
    return false;
  }
  ram = state.ram;
  output_port = state.output_port;
  output = state.output;
  output_flags = state.output_flags;
  output_interrupts = state.output_interrupts != 0;
  last_was_command = state.last_was_command != 0;
  pending = state.awaits_data != 0 ? std::optional(state.pending) : std::nullopt;
  UpdateLine();
  return true;
}

I8042::I8042(std::move_only_function<void()> request_reset, IrqLine* keyboard_line)
    : impl_(std::make_unique<Impl>(std::move(request_reset), keyboard_line)) {}
I8042::~I8042() = default;

void I8042::Reset() { impl_->PowerOn(); }

SavedState I8042::SaveState() const {
  const Impl& from = *impl_;
  return SaveAs(kStateVersion, State{.ram = from.ram,
                                     .output_port = from.output_port,
                                     .output = from.output,
                                     .output_flags = from.output_flags,
                                     .output_interrupts = from.output_interrupts,
                                     .last_was_command = from.last_was_command,
                                     .awaits_data = from.pending.has_value(),
                                     .pending = from.pending.value_or(0)});
}

bool I8042::LoadState(const SavedState& saved) {
  const auto state = LoadAs<State>(kStateVersion, saved);
  return state && impl_->Load(*state);
}

std::uint64_t I8042::Read(std::uint64_t offset, unsigned size) {
  return ReadByByte(offset, size, [this](std::uint64_t port) -> std::uint8_t {
    switch (port) {
      case kData:
        return impl_->ReadData();
      case kStatusCommand:
        return impl_->ReadStatus();
      default:
        return 0xff;
    }
  });
}

void I8042::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  WriteByByte(offset, size, value, [this](std::uint64_t port, std::uint8_t byte) {
    if (port == kData) {
      impl_->WriteData(byte);
    } else if (port == kStatusCommand) {
      impl_->WriteCommand(byte);
    }
  });
}

}  // namespace gyre::devices
