// A QMP client on a Unix socket. Nothing that a server does, or does not do,
// holds it longer than the deadline or makes it grow without bound. One thread.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "gyre/base/unique_fd.h"
#include "tools/gyrectl/deadline.h"
#include "tools/gyrectl/outcome.h"
#include "tools/gyrectl/wire.h"

namespace gyre::ctl {

class Client {
 public:
  // Connects to a path, or an abstract socket where it begins with @, and negotiates.
  static Outcome<Client> Connect(const std::string& address, const Deadline& deadline);

  // The command's return value. An error reply is kRefused with its description, and the class
  // in last_error_class. `fd`: sent along (SCM_RIGHTS).
  Outcome<Json> Execute(const std::string& command, const Json& arguments, const Deadline& deadline,
                        int fd = -1);
  // The next event; nothing if the deadline passes first. One that has come is returned even then. The
  // server's end is kBroken.
  Outcome<std::optional<Json>> NextEvent(const Deadline& deadline);

  // Called for each event that comes while a command is waited for; it is kept for NextEvent as well.
  void set_event_watch(std::function<void(const Json& event)> watch) { event_watch_ = std::move(watch); }
  // While `fd` can be read, waiting for the server fails (kTimeout); the connection stays good. -1: never.
  void set_interrupt_fd(int fd) { interrupt_fd_ = fd; }

  const Json& greeting() const { return greeting_; }
  const std::string& last_error_class() const { return last_error_class_; }
  int fd() const { return fd_.get(); }

 private:
  explicit Client(UniqueFd fd) : fd_(std::move(fd)) {}
  Outcome<void> Send(std::string_view text, int fd, const Deadline& deadline);
  Outcome<std::size_t> SendSome(std::string_view text, int fd);
  // Nothing: the deadline passed.
  Outcome<std::optional<Json>> Receive(const Deadline& deadline);
  void Keep(const Json& event);

  UniqueFd fd_;
  int interrupt_fd_ = -1;
  std::function<void(const Json& event)> event_watch_;
  MessageReader reader_;
  std::deque<std::string> events_;  // a parsed one may take many times its text
  std::size_t event_bytes_ = 0;
  Json greeting_;
  std::string last_error_class_;
  std::int64_t last_id_ = 0;
};

}  // namespace gyre::ctl
