#include "devices/virtio/console_port.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "gyre/devices/virtio/device.h"

namespace gyre::virtio {
namespace {

// 5.3.6.2, after the head of kResize. Linux before 6.15 takes the one for the other.
struct ResizeMessage {
  Le16 columns;
  Le16 rows;
};

template <typename T>
void Append(std::vector<std::byte>& message, const T& part) {
  const auto bytes = std::as_bytes(std::span(&part, 1));
  message.insert(message.end(), bytes.begin(), bytes.end());
}

}  // namespace

ConsolePort::ConsolePort(std::uint32_t id, std::string name, devices::Chardev& chardev, Owner owner)
    : id_(id), name_(std::move(name)), chardev_(chardev), owner_(std::move(owner)) {
  chardev_.SetFrontend(this);
}

ConsolePort::~ConsolePort() { chardev_.SetFrontend(nullptr); }

// --- Data ---

// A program's bytes wait in the host until one in the guest has opened the port.
std::size_t ConsolePort::ReceiveRoom() const {
  const bool accepts = active_ && (console() || state_.guest_open);
  return accepts && state_.input.size() < kInputSize ? kInputSize - state_.input.size() : 0;
}

void ConsolePort::Receive(std::span<const std::uint8_t> bytes) {
  state_.input.append(bytes.begin(), bytes.end());
  owner_.give();
}

void ConsolePort::Give(Queue& queue) {
  const std::size_t before = state_.input.size();
  while (!state_.input.empty()) {
    auto chain = queue.Pop();
    if (!chain) {
      break;
    }
    const std::size_t written = chain->Write(0, std::as_bytes(std::span(state_.input)));
    state_.input.erase(0, written);
    chain->Complete(static_cast<std::uint32_t>(written));
  }
  if (state_.input.size() != before) {
    chardev_.ResumeInput();
    if (state_.input.empty() && NextDue() != 0) {
      owner_.tell();  // that he has gone who said it
    }
  }
}

bool ConsolePort::Send(Queue& queue) {
  for (std::size_t taken = 0; state_.output.empty();) {
    if (taken >= kMostInARow) {
      owner_.send();
      return false;
    }
    auto chain = queue.Pop();
    if (!chain) {
      return true;
    }
    taken += Take(*chain);
    chain->Complete(0);
  }
  return false;
}

// At most kOutputSize of a chain, which is far more than drivers send in one.
std::size_t ConsolePort::Take(const Chain& chain) {
  std::size_t taken = 0;
  for (const iovec& piece : chain.readable()) {
    const std::size_t size = std::min(piece.iov_len, kOutputSize - taken);
    const std::span bytes(static_cast<const std::uint8_t*>(piece.iov_base), size);
    taken += size;
    const std::size_t written = state_.output.empty() ? chardev_.Write(bytes) : 0;
    Keep(bytes.subspan(written));
  }
  return taken;
}

void ConsolePort::Keep(std::span<const std::uint8_t> bytes) {
  const std::size_t room = kOutputSize - std::min(state_.output.size(), kOutputSize);
  bytes = bytes.first(std::min(bytes.size(), room));
  state_.output.append(bytes.begin(), bytes.end());
}

void ConsolePort::WriteReady() {
  const auto* const data = reinterpret_cast<const std::uint8_t*>(state_.output.data());
  const std::size_t written = chardev_.Write({data, state_.output.size()});
  state_.output.erase(0, written);
  if (state_.output.empty()) {
    owner_.send();
  }
}

void ConsolePort::SendEmergency(std::uint8_t character) {
  const std::span bytes(&character, 1);
  if (!state_.output.empty() || chardev_.Write(bytes) == 0) {
    Keep(bytes);
  }
}

devices::CharUse ConsolePort::use() const {
  return console() ? devices::CharUse::kTerminal : devices::CharUse::kStream;
}

// --- Control ---

void ConsolePort::Activate(bool multiport) {
  active_ = true;
  multiport_ = multiport;
  chardev_.ResumeInput();
}

// What the guest has sent still goes out.
void ConsolePort::Deactivate() {
  active_ = multiport_ = false;
  state_ = {.input = {}, .output = std::move(state_.output)};
}

void ConsolePort::Announce() { SetDue(kAdd); }

void ConsolePort::SetReady(bool ready) {
  state_.ready = ready;
  state_.told_open = false;
  state_.due = 0;
  if (ready) {
    SetDue((console() ? kConsole : kName) | (chardev_.open() ? kOpen : 0U) |
           (console() && size() != devices::WindowSize() ? kResize : 0U));
  }
}

void ConsolePort::SetOpen(bool open) {
  state_.guest_open = open;
  if (open) {
    chardev_.ResumeInput();
  } else {
    state_.input.clear();
  }
}

// Each change is told, but no more of them than make a difference: that one has gone, and that one is there.
void ConsolePort::OpenChanged(bool open) {
  if (!state_.ready) {
    return;
  }
  if (!open) {
    state_.due &= static_cast<std::uint8_t>(~kOpen);
    SetDue(state_.told_open ? kClose : 0U);
  } else if (!state_.told_open || (state_.due & kClose) != 0) {
    SetDue(kOpen);
  }
}

void ConsolePort::Resized() {
  if (state_.ready && console()) {
    SetDue(kResize);
  }
  owner_.resized();
}

void ConsolePort::SetDue(unsigned due) {
  if (!multiport_ || due == 0) {
    return;
  }
  state_.due = static_cast<std::uint8_t>(state_.due | due);
  owner_.tell();
}

// The lowest bit. The end of a conversation is not told before what was said in it is with the driver.
unsigned ConsolePort::NextDue() const {
  const unsigned due =
      (state_.due & kClose) != 0 && !state_.input.empty() ? state_.due & ~(kClose | kOpen) : state_.due;
  return due & -due;
}

std::optional<std::vector<std::byte>> ConsolePort::NextMessage() const {
  ControlMessage head{.id = Le32(id_), .event = Le16(0), .value = Le16(1)};
  std::vector<std::byte> tail;
  switch (NextDue()) {
    case kAdd:
      head.event = Le16(ControlMessage::kDeviceAdd);
      break;
    case kConsole:
      head.event = Le16(ControlMessage::kConsolePort);
      break;
    case kName: {
      head.event = Le16(ControlMessage::kPortName);
      const auto bytes = std::as_bytes(std::span(name_));
      tail.assign(bytes.begin(), bytes.end());
      break;
    }
    case kClose:
      head.value = Le16(0);
      [[fallthrough]];
    case kOpen:
      head.event = Le16(ControlMessage::kPortOpen);
      break;
    case kResize:
      head.event = Le16(ControlMessage::kResize);
      Append(tail, ResizeMessage{.columns = Le16(size().columns), .rows = Le16(size().rows)});
      break;
    default:
      return std::nullopt;
  }
  std::vector<std::byte> message;
  Append(message, head);
  message.insert(message.end(), tail.begin(), tail.end());
  return message;
}

void ConsolePort::Told() {
  const unsigned due = NextDue();
  state_.due = static_cast<std::uint8_t>(state_.due & ~due);
  if (due == kClose || due == kOpen) {
    state_.told_open = due == kOpen;
  }
}

ConsolePort::State ConsolePort::Save() const { return state_; }

bool ConsolePort::Load(const State& state) {
  if (state.input.size() > kInputSize || state.output.size() > kOutputSize || state.due > kAllDue) {
    return false;
  }
  state_ = state;
  // A program at the other end now is not the one that was; people do not mind.
  if (!console() || state_.told_open != chardev_.open()) {
    OpenChanged(false);
    if (chardev_.open()) {
      OpenChanged(true);
    }
  }
  if (!state_.output.empty()) {
    WriteReady();
  }
  return true;
}

}  // namespace gyre::virtio
