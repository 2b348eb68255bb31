// The console device (virtio 1.2, 5.3): a console, and named ports for programs. Its queues are
// served on the main loop: char devices are its.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "devices/virtio/console_port.h"
#include "devices/virtio/modules.h"
#include "gyre/base/checked.h"
#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kSize = 1U << 0;            // 5.3.3: VIRTIO_CONSOLE_F_SIZE
constexpr std::uint64_t kMultiport = 1U << 1;       // ..._MULTIPORT
constexpr std::uint64_t kEmergencyWrite = 1U << 2;  // ..._EMERG_WRITE
constexpr std::size_t kMostPorts = 31;
constexpr std::size_t kMostName = 63;  // bytes
constexpr std::string_view kNameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

// 5.3.2.
constexpr unsigned kControlReceive = 2;
constexpr unsigned kControlTransmit = 3;
constexpr unsigned ReceiveQueue(std::size_t port) {
  return static_cast<unsigned>(port == 0 ? 0 : 2 * port + 2);
}
constexpr unsigned TransmitQueue(std::size_t port) { return ReceiveQueue(port) + 1; }
constexpr std::size_t PortOf(unsigned queue) { return queue < 2 ? 0 : queue / 2 - 1; }

// 5.3.4.
struct ConsoleConfig {
  Le16 columns;
  Le16 rows;
  Le32 max_ports;
  Le32 emergency_write;
};

constexpr std::array<PropertySpec, 3> kProperties = {{
    {.name = "to", .values = "TARGET"},
    {.name = "port", .values = "NAME:TARGET", .repeated = true},
    {.name = "packed", .values = "on|off"},
}};

// A saved console: this, then for each port its own and its bytes.
struct SavedConsole {
  Le32 version;
  Le32 device_ready;
};
struct SavedPort {
  Le32 flags;  // kSaved..., and what is due from bit 8 on
  Le32 input_size;
  Le32 output_size;
};
constexpr std::uint32_t kSavedVersion = 1;
constexpr std::uint32_t kSavedReady = 1, kSavedGuestOpen = 2, kSavedToldOpen = 4;

void Put(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// False if there is not so much.
template <WirePod T>
bool Get(std::span<const std::byte>& in, T& value) {
  if (in.size() < sizeof(T)) {
    return false;
  }
  std::memcpy(&value, in.data(), sizeof(T));
  in = in.subspan(sizeof(T));
  return true;
}
bool Get(std::span<const std::byte>& in, std::size_t size, std::string& text) {
  if (in.size() < size) {
    return false;
  }
  text.assign(reinterpret_cast<const char*>(in.data()), size);
  in = in.subspan(size);
  return true;
}

void PutPort(std::vector<std::byte>& out, const ConsolePort::State& state) {
  const std::uint32_t flags = (state.ready ? kSavedReady : 0) | (state.guest_open ? kSavedGuestOpen : 0) |
                              (state.told_open ? kSavedToldOpen : 0) | std::uint32_t{state.due} << 8;
  const SavedPort head{.flags = Le32(flags),
                       .input_size = Le32(static_cast<std::uint32_t>(state.input.size())),
                       .output_size = Le32(static_cast<std::uint32_t>(state.output.size()))};
  Put(out, std::as_bytes(std::span(&head, 1)));
  Put(out, std::as_bytes(std::span(state.input)));
  Put(out, std::as_bytes(std::span(state.output)));
}

bool GetPort(std::span<const std::byte>& in, ConsolePort::State& state) {
  SavedPort head;
  if (!Get(in, head) || !Get(in, head.input_size, state.input) || !Get(in, head.output_size, state.output)) {
    return false;
  }
  state.ready = (head.flags & kSavedReady) != 0;
  state.guest_open = (head.flags & kSavedGuestOpen) != 0;
  state.told_open = (head.flags & kSavedToldOpen) != 0;
  state.due = static_cast<std::uint8_t>(head.flags >> 8);
  return true;
}

struct NamedChardev {
  std::string name;
  devices::Chardev* chardev = nullptr;
};

class Console final : public VirtioDevice {
 public:
  Console(const DeviceContext& context, const std::vector<NamedChardev>& ports, bool packed)
      : VirtioDevice(context,
                     {.name = "console",
                      .id = 3,  // 5
                      .features = kSize | kEmergencyWrite | kFeatureInOrder |
                                  (ports.size() > 1 ? kMultiport : 0) | (packed ? kFeaturePacked : 0),
                      .queues = ports.size() > 1 ? 2 * (static_cast<unsigned>(ports.size()) + 1) : 2,
                      .queue_size = 128,
                      .config_size = sizeof(ConsoleConfig)}) {
    for (const auto& [name, chardev] : ports) {
      const std::size_t index = ports_.size();
      ports_.push_back(std::make_unique<ConsolePort>(
          static_cast<std::uint32_t>(index), name, *chardev,
          ConsolePort::Owner{.give = [this, index] { ServeAgain(ReceiveQueue(index)); },
                             .send = [this, index] { ServeAgain(TransmitQueue(index)); },
                             .tell = [this] { ServeAgain(kControlReceive); },
                             .resized =
                                 [this, index] {
                                   if (index == 0) {
                                     transport()->ConfigChanged();
                                   }
                                 }}));
    }
  }

  void ReadConfig(std::uint64_t offset, std::span<std::byte> out) override {
    const devices::WindowSize size = ports_[0]->size();
    const ConsoleConfig config{.columns = Le16(size.columns),
                               .rows = Le16(size.rows),
                               .max_ports = Le32(static_cast<std::uint32_t>(ports_.size())),
                               .emergency_write = Le32(0)};
    CopyConfig(config, offset, out);
  }
  // Works in every state of the driver (5.3.4).
  void WriteConfig(std::uint64_t offset, std::span<const std::byte> in) override {
    if (offset == offsetof(ConsoleConfig, emergency_write)) {
      ports_[0]->SendEmergency(std::to_integer<std::uint8_t>(in[0]));
    }
  }

  std::vector<std::byte> SaveState() const override {
    std::vector<std::byte> state;
    const SavedConsole head{.version = Le32(kSavedVersion), .device_ready = Le32(device_ready_ ? 1 : 0)};
    Put(state, std::as_bytes(std::span(&head, 1)));
    for (const auto& port : ports_) {
      PutPort(state, port->Save());
    }
    return state;
  }
  bool LoadState(std::span<const std::byte> state) override {
    SavedConsole head;
    if (!Get(state, head) || head.version != kSavedVersion) {
      return false;
    }
    device_ready_ = head.device_ready != 0;
    for (const auto& port : ports_) {
      ConsolePort::State saved;
      if (!GetPort(state, saved) || !port->Load(saved)) {
        return false;
      }
    }
    return state.empty();
  }

 protected:
  Served Serve(unsigned index, Queue& queue) override {
    const bool data = index < 2 || index > kControlTransmit;
    if (!multiport_ && index >= 2) {
      return Served::kLater;
    }
    if (data && index % 2 == 0) {
      ports_[PortOf(index)]->Give(queue);
    } else if (data) {
      return ports_[PortOf(index)]->Send(queue) ? Served::kAll : Served::kLater;
    } else if (index == kControlReceive) {
      Tell(queue);
    } else {
      Listen(queue);
      return Served::kAll;
    }
    // Where there was no buffer the driver is asked to say when there is one.
    return Wants(index) ? Served::kAll : Served::kLater;
  }
  void OnActivate(std::uint64_t driver_features) override {
    multiport_ = (driver_features & kMultiport) != 0;
    for (const auto& port : ports_) {
      port->Activate(multiport_);
    }
  }
  void OnDeactivate() override {
    multiport_ = device_ready_ = false;
    for (const auto& port : ports_) {
      port->Deactivate();
    }
  }

 private:
  // Something waits for a buffer of that receive queue.
  bool Wants(unsigned index) const {
    if (index == kControlReceive) {
      return std::ranges::any_of(ports_, [](const auto& port) { return port->NextMessage().has_value(); });
    }
    return ports_[PortOf(index)]->has_input();
  }

  // 5.3.6.1: buffers that are too small for a message go back empty.
  void Tell(Queue& queue) {
    for (const auto& port : ports_) {
      while (const auto message = port->NextMessage()) {
        auto chain = queue.Pop();
        if (!chain) {
          return;
        }
        if (chain->writable_size() < message->size()) {
          chain->Complete(0);
          continue;
        }
        chain->Write(0, *message);
        chain->Complete(static_cast<std::uint32_t>(message->size()));
        port->Told();
      }
    }
  }

  void Listen(Queue& queue) {
    while (auto chain = queue.Pop()) {
      ControlMessage message{};
      const bool whole = chain->Read(0, std::as_writable_bytes(std::span(&message, 1))) == sizeof(message);
      chain->Complete(0);
      if (whole) {
        Hear(message);
      }
    }
  }

  // 5.3.6.2. What names no port, comes before its time or means nothing is nobody's.
  void Hear(const ControlMessage& message) {
    const bool value = message.value.value() != 0;
    if (message.event.value() == ControlMessage::kDeviceReady) {
      device_ready_ = value;
      for (const auto& port : ports_) {
        port->SetReady(false);
        if (value) {
          port->Announce();
        }
      }
      return;
    }
    if (!device_ready_ || message.id.value() >= ports_.size()) {
      return;
    }
    ConsolePort& port = *ports_[message.id.value()];
    if (message.event.value() == ControlMessage::kPortReady) {
      port.SetReady(value);
    } else if (message.event.value() == ControlMessage::kPortOpen) {
      port.SetOpen(value);
    }
  }

  std::vector<std::unique_ptr<ConsolePort>> ports_;
  bool multiport_ = false;
  bool device_ready_ = false;
};

Status CheckName(std::string_view name, const std::vector<NamedChardev>& others) {
  if (name.empty() || name.size() > kMostName ||
      name.find_first_not_of(kNameBytes) != std::string_view::npos) {
    return Fail(
        Error::Usage(format("port={}: a port's name has 1 to {} of {}", name, kMostName, kNameBytes)));
  }
  if (std::ranges::find(others, name, &NamedChardev::name) != others.end()) {
    return Fail(Error::Usage(format("port={}: comes twice", name)));
  }
  if (others.size() == kMostPorts) {
    return Fail(
        Error::Usage(format("port={}: is one more than the {} that a console has", name, kMostPorts - 1)));
  }
  return {};
}

Result<std::unique_ptr<VirtioDevice>> Create(const DeviceContext& context, const Properties& properties) {
  const bool packed = TRY(properties.OnOff("packed", false));
  devices::Chardevs& chardevs = *context.chardevs;
  const std::string label = chardevs.NewLabel("console");
  std::vector<NamedChardev> ports;
  ports.push_back(
      {.name = {}, .chardev = TRY(chardevs.Add(label, std::string(properties.Get("to").value_or("null"))))});
  for (const std::string_view port : properties.All("port")) {
    const std::string_view name = port.substr(0, port.find(':'));
    const std::string_view target = port.substr(std::min(port.size(), name.size() + 1));
    TRY(CheckName(name, ports));
    auto chardev = chardevs.Add(format("{}.{}", label, name), std::string(target));
    if (!chardev) {
      return Fail(std::move(chardev).error().Within(format("port={}", name)));
    }
    ports.push_back({.name = std::string(name), .chardev = *chardev});
  }
  return std::make_unique<Console>(context, ports, packed);
}

}  // namespace

const Module& ConsoleModule() {
  static constexpr Module kModule = {
      .option = "console",
      .help =
          "give it a console, hvc0, and named ports (Linux: virtio_console); targets are those of --serial",
      .properties = kProperties,
      .create = Create,
  };
  return kModule;
}

}  // namespace gyre::virtio
