// Where the host's clients come in: each says "CONNECT port\n" to a socket of the device's
// and is handed on. Where there are messages, that is the first one, with the newline or
// without. Private; the device's loop.
#pragma once

#include <cstdint>
#include <list>
#include <string>

#include "gyre/base/unix_listener.h"
#include "gyre/loop/event_loop.h"

namespace gyre::virtio {

class VsockDoor {
 public:
  class Owner {
   public:
    virtual bool HasRoom() = 0;
    virtual void Enter(UniqueFd client, std::uint16_t type, std::uint32_t port) = 0;

   protected:
    ~Owner() = default;
  };
  // `type`: of the connections, as in packets.
  VsockDoor(loop::EventLoop& loop, UnixListener listener, std::uint16_t type, Owner& owner);
  VsockDoor(const VsockDoor&) = delete;
  VsockDoor& operator=(const VsockDoor&) = delete;

 private:
  struct Client {
    Client(loop::EventLoop& loop, UniqueFd socket, std::int64_t limit, VsockDoor& door);
    UniqueFd fd;
    std::int64_t deadline;
    std::string line;
    loop::Watch watch;
    std::list<Client>::iterator self;
  };
  void Accept();
  void Pause(std::int64_t now);
  // True while there is more to come.
  static bool ReadLine(Client& client);
  static bool ReadMessage(Client& client);
  void Serve(Client& client);
  void Tick();
  std::int64_t Now() const { return loop_.Now(loop::ClockType::kRealtime); }

  loop::EventLoop& loop_;
  UnixListener listener_;
  const std::uint16_t type_;
  Owner& owner_;
  std::list<Client> clients_;  // by their deadlines
  std::int64_t resume_ = 0;    // when to listen again; 0: it listens
  loop::Timer timer_;
  loop::Watch watch_;
};

}  // namespace gyre::virtio
