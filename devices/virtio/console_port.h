// A port of the console device (virtio 1.2, 5.3): its two queues, its char device, and what the
// driver is still to be told of it. Nothing of a queue is kept: a chain is completed where it is
// taken, and what the host does not take at once waits in a bounded buffer, with the queue. Main
// loop's thread, big lock held.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "gyre/base/endian.h"
#include "gyre/devices/chardevs.h"
#include "gyre/devices/virtio/queue.h"

namespace gyre::virtio {

// 5.3.6.2.
struct ControlMessage {
  enum Event : std::uint16_t {
    kDeviceReady = 0,
    kDeviceAdd = 1,
    kDeviceRemove = 2,
    kPortReady = 3,
    kConsolePort = 4,
    kResize = 5,
    kPortOpen = 6,
    kPortName = 7,
  };
  Le32 id;
  Le16 event;
  Le16 value;
};

class ConsolePort final : public devices::CharFrontend {
 public:
  // What the device is to do, on its loop.
  struct Owner {
    std::function<void()> give;     // the receive queue can be served
    std::function<void()> send;     // the transmit queue can
    std::function<void()> tell;     // there is something to tell the driver
    std::function<void()> resized;  // size() is another
  };
  struct State {
    bool ready = false;
    bool guest_open = false;
    bool told_open = false;
    std::uint8_t due = 0;
    std::string input;
    std::string output;
    bool operator==(const State&) const = default;
  };
  static constexpr std::size_t kInputSize = 4096;       // bytes from the host that the guest has not got yet
  static constexpr std::size_t kOutputSize = 1U << 20;  // of the guest's that the host does not take yet
  static constexpr std::size_t kMostInARow = 256U
                                             << 10;  // in one go; the loop serves others before it goes on

  // A port without a name is a console. The char device outlives it.
  ConsolePort(std::uint32_t id, std::string name, devices::Chardev& chardev, Owner owner);
  ConsolePort(const ConsolePort&) = delete;
  ConsolePort& operator=(const ConsolePort&) = delete;
  ~ConsolePort() override;

  devices::WindowSize size() const { return chardev_.size(); }
  // That the guest has not got yet.
  bool has_input() const { return !state_.input.empty(); }

  // Fills chains of the receive queue from what has come; what comes later is told by `give`.
  void Give(Queue& queue);
  // Takes chains of the transmit queue while the host does. False: `send` is called when it goes on.
  bool Send(Queue& queue);
  // 5.3.4: a character that no queue carried.
  void SendEmergency(std::uint8_t character);

  // The driver is there. With several ports it opens them itself.
  void Activate(bool multiport);
  void Deactivate();
  // The driver's messages.
  void Announce();
  void SetReady(bool ready);
  void SetOpen(bool open);
  // The next message to the driver, if any, with what follows its head; Told when it is in a buffer.
  std::optional<std::vector<std::byte>> NextMessage() const;
  void Told();

  State Save() const;
  // After Activate. False if a port cannot be in it.
  bool Load(const State& state);

  // CharFrontend.
  std::size_t ReceiveRoom() const override;
  void Receive(std::span<const std::uint8_t> bytes) override;
  void WriteReady() override;
  devices::CharUse use() const override;
  void OpenChanged(bool open) override;
  void Resized() override;

 private:
  // What the driver is to be told, in this order.
  static constexpr unsigned kAdd = 1, kConsole = 2, kName = 4, kClose = 8, kOpen = 16, kResize = 32,
                            kAllDue = 63;
  bool console() const { return name_.empty(); }
  unsigned NextDue() const;
  void SetDue(unsigned due);
  std::size_t Take(const Chain& chain);
  void Keep(std::span<const std::uint8_t> bytes);

  const std::uint32_t id_;
  const std::string name_;
  devices::Chardev& chardev_;
  const Owner owner_;
  bool active_ = false;
  bool multiport_ = false;
  State state_;
};

}  // namespace gyre::virtio
