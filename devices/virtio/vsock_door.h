// Where the host's clients come in: each says "CONNECT port\n" to the device's socket and
// is handed on. Private; the device's loop.
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
    virtual void Enter(UniqueFd client, std::uint32_t port) = 0;

   protected:
    ~Owner() = default;
  };
  VsockDoor(loop::EventLoop& loop, UnixListener listener, Owner& owner);
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
  bool ReadLine(Client& client) const;
  void Serve(Client& client);
  void Tick();
  std::int64_t Now() const { return loop_.Now(loop::ClockType::kRealtime); }

  loop::EventLoop& loop_;
  UnixListener listener_;
  Owner& owner_;
  std::list<Client> clients_;  // by their deadlines
  std::int64_t resume_ = 0;    // when to listen again; 0: it listens
  loop::Timer timer_;
  loop::Watch watch_;
};

}  // namespace gyre::virtio
