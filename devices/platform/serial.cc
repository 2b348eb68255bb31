#include "gyre/devices/platform/serial.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>

#include "devices/platform/byte_ports.h"
#include "devices/platform/serial_fifo.h"

namespace gyre::devices {
namespace {

// Register offsets (PC16550D, table II).
enum Register : std::uint8_t {
  kRbrThrDll = 0,
  kIerDlm = 1,
  kIirFcr = 2,
  kLcr = 3,
  kMcr = 4,
  kLsr = 5,
  kMsr = 6,
  kScr = 7,
};

enum Ier : std::uint8_t { kIerData = 0x01, kIerThrEmpty = 0x02, kIerLine = 0x04, kIerModem = 0x08 };
enum Iir : std::uint8_t {
  kIirModem = 0x00,
  kIirNone = 0x01,
  kIirThrEmpty = 0x02,
  kIirData = 0x04,
  kIirLine = 0x06,
  kIirTimeout = 0x0c,
  kIirFifos = 0xc0,
};
enum Fcr : std::uint8_t { kFcrEnable = 0x01, kFcrClearRx = 0x02, kFcrClearTx = 0x04, kFcrKept = 0xc9 };
enum Lcr : std::uint8_t { kLcrBreak = 0x40, kLcrDlab = 0x80 };
enum Mcr : std::uint8_t {
  kMcrDtr = 0x01,
  kMcrRts = 0x02,
  kMcrOut1 = 0x04,
  kMcrOut2 = 0x08,
  kMcrLoop = 0x10,
  kMcrWritable = 0x1f,
};
enum Lsr : std::uint8_t {
  kLsrData = 0x01,
  kLsrOverrun = 0x02,
  kLsrParity = 0x04,
  kLsrFraming = 0x08,
  kLsrBreak = 0x10,
  kLsrThrEmpty = 0x20,
  kLsrIdle = 0x40,
  kLsrFifoError = 0x80,
  kLsrCharErrors = kLsrParity | kLsrFraming | kLsrBreak,
};
enum Msr : std::uint8_t { kMsrRi = 0x40, kMsrDeltas = 0x0f, kMsrRiDelta = 0x04 };
// What a serial port is in the midst of.
struct State {
  SerialFifo::State received;
  SerialFifo::State to_send;
  std::uint8_t overrun = 0;
  std::uint8_t draining = 0;
  std::uint8_t thr_empty_pending = 0;
  std::uint8_t lsr_read = 0;
  std::uint8_t ier = 0, fcr = 0, lcr = 0, mcr = 0, msr = 0, scr = 0, dll = 0, dlm = 0;
};
constexpr std::uint32_t kStateVersion = 1;

// The far end is always there and ready: DCD, DSR and CTS.
constexpr std::uint8_t kMsrConnected = 0xb0;

}  // namespace

struct Serial::Impl {
  Impl(IrqLine& irq_line, CharBackend& char_backend) : line(irq_line), backend(char_backend) {}

  bool fifos() const { return (fcr & kFcrEnable) != 0; }
  bool loop() const { return (mcr & kMcrLoop) != 0; }
  std::size_t depth() const { return fifos() ? SerialFifo::kSize : 1; }
  std::size_t trigger() const;
  std::uint8_t InterruptId() const;
  void UpdateLine();

  std::uint8_t ReadByte(std::uint64_t offset);
  void WriteByte(std::uint64_t offset, std::uint8_t value);
  std::uint8_t ReadRbr();
  std::uint8_t ReadLsr();
  void WriteIer(std::uint8_t value);
  void WriteFcr(std::uint8_t value);
  void WriteLcr(std::uint8_t value);
  void WriteMcr(std::uint8_t value);
  void SetModemInputs(std::uint8_t inputs);

  void Transmit(std::uint8_t value);
  void Flush();
  void PushReceived(SerialFifo::Char c);
  void SendBreakIfLooped();
  void ClearReceiver();
  void Reset();
  bool Load(const State& state);

  IrqLine& line;
  CharBackend& backend;
  bool line_high = false;

  SerialFifo rx;
  SerialFifo tx;
  std::uint8_t overrun = 0;  // kLsrOverrun or 0
  // The guest has begun to empty the receiver: nothing more comes in until it is
  // empty, so that the interrupt line falls after at most 16 reads however much
  // the host sends. An edge-triggered pin would lose the next interrupt otherwise.
  bool draining = false;
  bool thr_empty_pending = false;  // the THRE interrupt's latch (section 8.6.4, IIR)
  bool lsr_read = false;           // since the transmitter was written to

  std::uint8_t ier = 0;
  std::uint8_t fcr = 0;
  std::uint8_t lcr = 0;
  std::uint8_t mcr = 0;
  std::uint8_t msr = kMsrConnected;
  std::uint8_t scr = 0;
  std::uint8_t dll = 12;  // 9600 baud
  std::uint8_t dlm = 0;
};

std::size_t Serial::Impl::trigger() const {
  constexpr std::array<std::size_t, 4> kLevels = {1, 4, 8, 14};
  return fifos() ? kLevels[fcr >> 6] : 1;
}

// Table III, by priority. A character time is nothing here, so data below the
// trigger level is a character time-out at once.
std::uint8_t Serial::Impl::InterruptId() const {
  const bool line_error = overrun != 0 || (!rx.empty() && rx.front().errors != 0);
  if ((ier & kIerLine) != 0 && line_error) {
    return kIirLine;
  }
  if ((ier & kIerData) != 0 && !rx.empty()) {
    return rx.size() >= trigger() ? kIirData : kIirTimeout;
  }
  if ((ier & kIerThrEmpty) != 0 && thr_empty_pending) {
    return kIirThrEmpty;
  }
  if ((ier & kIerModem) != 0 && (msr & kMsrDeltas) != 0) {
    return kIirModem;
  }
  return kIirNone;
}

// PCs gate the line by OUT2; small guests do not know, so this one does not.
void Serial::Impl::UpdateLine() {
  const bool high = InterruptId() != kIirNone;
  if (high != line_high) {
    line_high = high;
    line.Set(high);
  }
}

std::uint8_t Serial::Impl::ReadRbr() {
  if (rx.empty()) {
    return 0;
  }
  const std::uint8_t value = rx.Pop().value;
  draining = !rx.empty();
  return value;
}

std::uint8_t Serial::Impl::ReadLsr() {
  std::uint8_t lsr = overrun;
  if (!rx.empty()) {
    lsr = static_cast<std::uint8_t>(lsr | kLsrData | rx.front().errors);
    for (std::size_t i = 0; fifos() && i < rx.size(); ++i) {
      lsr = static_cast<std::uint8_t>(lsr | (rx.At(i).errors != 0 ? kLsrFifoError : 0));
    }
    rx.At(0).errors = 0;
  }
  overrun = 0;
  lsr_read = true;
  if (tx.empty()) {
    lsr |= kLsrThrEmpty | kLsrIdle;
  }
  return lsr;
}

std::uint8_t Serial::Impl::ReadByte(std::uint64_t offset) {
  const bool dlab = (lcr & kLcrDlab) != 0;
  switch (offset) {
    case kRbrThrDll:
      return dlab ? dll : ReadRbr();
    case kIerDlm:
      return dlab ? dlm : ier;
    case kIirFcr: {
      const std::uint8_t id = InterruptId();
      if (id == kIirThrEmpty) {
        thr_empty_pending = false;
      }
      return static_cast<std::uint8_t>(id | (fifos() ? kIirFifos : 0));
    }
    case kLcr:
      return lcr;
    case kMcr:
      return mcr;
    case kLsr:
      return ReadLsr();
    case kMsr:
      return std::exchange(msr, static_cast<std::uint8_t>(msr & ~kMsrDeltas));
    case kScr:
      return scr;
    default:
      return 0xff;
  }
}

void Serial::Impl::WriteByte(std::uint64_t offset, std::uint8_t value) {
  const bool dlab = (lcr & kLcrDlab) != 0;
  switch (offset) {
    case kRbrThrDll:
      if (dlab) {
        dll = value;
      } else {
        Transmit(value);
      }
      break;
    case kIerDlm:
      if (dlab) {
        dlm = value;
      } else {
        WriteIer(value);
      }
      break;
    case kIirFcr:
      WriteFcr(value);
      break;
    case kLcr:
      WriteLcr(value);
      break;
    case kMcr:
      WriteMcr(value);
      break;
    case kScr:
      scr = value;
      break;
    default:  // LSR and MSR are for factory tests only
      break;
  }
}

// Enabling the THRE interrupt while the THR is empty raises it, even if it has
// been acknowledged before; drivers test for that.
void Serial::Impl::WriteIer(std::uint8_t value) {
  const bool enables_thr_empty = (value & kIerThrEmpty) != 0 && (ier & kIerThrEmpty) == 0;
  ier = value & 0x0f;
  if (enables_thr_empty && tx.empty()) {
    thr_empty_pending = true;
  }
}

// Section 8.5: bit 0 must be 1 for the others to count; changing it clears both FIFOs.
void Serial::Impl::WriteFcr(std::uint8_t value) {
  const bool toggled = ((value ^ fcr) & kFcrEnable) != 0;
  const bool enable = (value & kFcrEnable) != 0;
  if (toggled || (enable && (value & kFcrClearRx) != 0)) {
    ClearReceiver();
  }
  if ((toggled || (enable && (value & kFcrClearTx) != 0)) && !tx.empty()) {
    tx.Clear();
    thr_empty_pending = true;
  }
  fcr = enable ? (value & kFcrKept) : 0;
}

void Serial::Impl::WriteLcr(std::uint8_t value) {
  const bool starts_break = (value & kLcrBreak) != 0 && (lcr & kLcrBreak) == 0;
  lcr = value;
  if (starts_break) {
    SendBreakIfLooped();
  }
}

void Serial::Impl::WriteMcr(std::uint8_t value) {
  const bool was_looped = loop();
  mcr = value & kMcrWritable;
  if (!loop()) {
    SetModemInputs(kMsrConnected);
    if (was_looped && rx.empty()) {
      backend.ResumeInput();
    }
    return;
  }
  // Section 8.9: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
  const unsigned cts = (mcr & kMcrRts) != 0 ? 0x10 : 0;
  const unsigned dsr = (mcr & kMcrDtr) != 0 ? 0x20 : 0;
  const unsigned ri = (mcr & kMcrOut1) != 0 ? kMsrRi : 0;
  const unsigned dcd = (mcr & kMcrOut2) != 0 ? 0x80 : 0;
  SetModemInputs(static_cast<std::uint8_t>(cts | dsr | ri | dcd));
  if (!was_looped && (lcr & kLcrBreak) != 0) {
    SendBreakIfLooped();
  }
}

void Serial::Impl::SetModemInputs(std::uint8_t inputs) {
  auto deltas = static_cast<unsigned>((msr ^ inputs) >> 4);
  if ((inputs & kMsrRi) != 0) {
    deltas &= ~unsigned{kMsrRiDelta};  // TERI: the trailing edge only
  }
  msr = static_cast<std::uint8_t>(inputs | (msr & kMsrDeltas) | deltas);
}

void Serial::Impl::Transmit(std::uint8_t value) {
  // The chip drops the interrupt until the character has left. Here it leaves at once; yet a driver that does
  // not read IIR needs the edge. It begins its turn by a look at LSR, or sends one character an interrupt:
  // the further characters of a burst are spared it, since each edge is an interrupt message.
  const bool begins_turn = !fifos() || lsr_read;
  lsr_read = false;
  thr_empty_pending = false;
  if (begins_turn) {
    UpdateLine();
  }
  if ((lcr & kLcrBreak) != 0) {
    // The output is held at spacing: what is sent meanwhile reaches nobody.
  } else if (loop()) {
    PushReceived({.value = value});
  } else if (!tx.empty()) {
    // A transmitter that is full loses what is written to it.
    if (tx.size() < depth()) {
      tx.Push({.value = value});
    }
  } else if (backend.Write({&value, 1}) == 0) {
    tx.Push({.value = value});
  }
  thr_empty_pending = tx.empty();
}

void Serial::Impl::Flush() {
  const bool waited = !tx.empty();
  while (!tx.empty() && backend.Write({&tx.front().value, 1}) == 1) {
    tx.Pop();
  }
  if (waited && tx.empty()) {
    thr_empty_pending = true;
  }
}

// Section 8.4: in FIFO mode an overrun leaves the FIFO as it is and loses the
// new character; without FIFOs the new one takes the old one's place.
void Serial::Impl::PushReceived(SerialFifo::Char c) {
  if (rx.size() < depth()) {
    rx.Push(c);
    return;
  }
  overrun = kLsrOverrun;
  if (!fifos()) {
    rx.At(0) = c;
  }
}

// A break is received as one zero character with its bit (section 8.4).
void Serial::Impl::SendBreakIfLooped() {
  if (loop()) {
    PushReceived({.value = 0, .errors = kLsrBreak | kLsrFraming});
  }
}

void Serial::Impl::ClearReceiver() {
  rx.Clear();
  draining = false;
  backend.ResumeInput();
}

void Serial::Impl::Reset() {
  Flush();
  tx.Clear();
  ier = fcr = lcr = mcr = scr = dlm = 0;
  dll = 12;
  overrun = 0;
  msr = kMsrConnected;
  thr_empty_pending = false;
  lsr_read = false;
  ClearReceiver();
  UpdateLine();
}

bool Serial::Impl::Load(const State& state) {
  const bool possible = (state.overrun & ~kLsrOverrun) == 0 && (state.ier & 0xf0) == 0 &&
                        (state.fcr & ~kFcrKept) == 0 && (state.fcr == 0 || (state.fcr & kFcrEnable) != 0) &&
                        (state.mcr & ~kMcrWritable) == 0;
  fcr = state.fcr;
  if (!possible || !rx.Load(state.received, depth(), kLsrCharErrors) || !tx.Load(state.to_send, depth(), 0)) {
    return false;
  }
  overrun = state.overrun;
  draining = state.draining != 0 && !rx.empty();
  thr_empty_pending = state.thr_empty_pending != 0;
  lsr_read = state.lsr_read != 0;
  ier = state.ier;
  lcr = state.lcr;
  mcr = state.mcr;
  msr = state.msr;
  scr = state.scr;
  dll = state.dll;
  dlm = state.dlm;
  // This backend has not refused anything yet, so it would not ask.
  Flush();
  line_high = InterruptId() != kIirNone;
  line.Set(line_high);
  backend.ResumeInput();
  return true;
}

Serial::Serial(IrqLine& line, CharBackend& backend) : impl_(std::make_unique<Impl>(line, backend)) {
  impl_->backend.SetFrontend(this);
}

Serial::~Serial() { impl_->backend.SetFrontend(nullptr); }

void Serial::Reset() { impl_->Reset(); }

SavedState Serial::SaveState() const {
  const Impl& from = *impl_;
  return SaveAs(kStateVersion, State{.received = from.rx.Save(),
                                     .to_send = from.tx.Save(),
                                     .overrun = from.overrun,
                                     .draining = from.draining,
                                     .thr_empty_pending = from.thr_empty_pending,
                                     .lsr_read = from.lsr_read,
                                     .ier = from.ier,
                                     .fcr = from.fcr,
                                     .lcr = from.lcr,
                                     .mcr = from.mcr,
                                     .msr = from.msr,
                                     .scr = from.scr,
                                     .dll = from.dll,
                                     .dlm = from.dlm});
}

bool Serial::LoadState(const SavedState& saved) {
  const auto state = LoadAs<State>(kStateVersion, saved);
  return state && impl_->Load(*state);
}

std::uint64_t Serial::Read(std::uint64_t offset, unsigned size) {
  const bool had_data = !impl_->rx.empty();
  const std::uint64_t value =
      ReadByByte(offset, size, [this](std::uint64_t port) { return impl_->ReadByte(port); });
  impl_->UpdateLine();
  if (had_data && impl_->rx.empty()) {
    // After the line has fallen: what comes now raises it anew.
    impl_->backend.ResumeInput();
  }
  return value;
}

void Serial::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  WriteByByte(offset, size, value,
              [this](std::uint64_t port, std::uint8_t byte) { impl_->WriteByte(port, byte); });
  impl_->UpdateLine();
}

// In loopback the receiver's input is disconnected: the host's bytes wait.
std::size_t Serial::ReceiveRoom() const {
  if (impl_->loop() || impl_->draining || impl_->rx.size() >= impl_->depth()) {
    return 0;
  }
  return impl_->depth() - impl_->rx.size();
}

void Serial::Receive(std::span<const std::uint8_t> bytes) {
  for (const std::uint8_t byte : bytes) {
    impl_->PushReceived({.value = byte});
  }
  impl_->UpdateLine();
}

void Serial::WriteReady() {
  impl_->Flush();
  impl_->UpdateLine();
}

}  // namespace gyre::devices
