// The control server: listening sockets, clients, dispatch of their commands, and
// events to all of them. At the start it is no more than its sockets with a watch
// each; the rest is made when somebody comes. Big lock's holder.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gyre/base/log.h"
#include "gyre/loop/io_thread.h"
#include "gyre/loop/main_loop.h"
#include "src/control/admission.h"
#include "src/control/command.h"
#include "src/control/event_sender.h"
#include "src/control/services.h"
#include "src/control/session.h"
#include "src/control/socket.h"
#include "src/machine/machine.h"

namespace gyre::control {

struct ServerConfig {
  std::vector<SocketSpec> sockets;
  Identity identity;
  CommandTable commands = &AllCommands;
};

class Server final : private SessionHost {
 public:
  // `machine`: null in tests of the wire. It outlives the server's serving, not the server.
  static Result<std::unique_ptr<Server>> Create(loop::MainLoop& loop, machine::Machine* machine,
                                                ServerConfig config);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  // Clients get what has been written for them, if they read within a second, and then their end.
  ~Server() override;

  // A client on a connected socket, whoever it is.
  void AddClient(UniqueFd socket);
  // No commands and no clients any more: the machine is about to go. Long work is cancelled.
  void Retire();
  EventSender& events() { return events_; }
  std::size_t clients() const;
  // The listening sockets that we have bound ourselves, borrowed.
  std::vector<int> own_listeners() const;

 private:
  struct Listener {
    ListeningSocket socket;
    std::unique_ptr<loop::Watch> watch;
  };
  struct Client {
    SessionPtr session;
    uid_t user = 0;
    std::size_t listener = 0;
  };

  Server(loop::MainLoop& loop, machine::Machine* machine, ServerConfig config);
  Status Listen(SocketSpec spec);
  void OnConnection(std::size_t listener);
  void AddClient(UniqueFd socket, const Result<Peer>& peer, std::size_t listener);
  UniqueFd Accept(std::size_t listener);
  // Empty: it is let in.
  std::string WhyNot(const ListeningSocket& socket, int connection, const Peer& peer) const;
  void PauseListening(bool paused);
  void Broadcast(const std::shared_ptr<const std::string>& line);
  void Purge();
  Outcome Admit(const Command* command, const ClientState& client, const Request& request) const;
  void Run(const SessionPtr& session, Request request);
  void Finish(const SessionPtr& session, const Outcome& outcome, const std::optional<Json>& id);
  Status StartMonitorThread();

  void Execute(const SessionPtr& session, Request request) override;
  Outcome ExecuteOob(Session& session, Request request) override;
  bool TakesFd(std::string_view name) const override;
  void Ended(Session& session) override;
  loop::IoThread* monitor_thread() override { return monitor_thread_.get(); }
  HeldInput& held() override { return held_; }
  void LostFds(const Session& session) override;

  loop::MainLoop& loop_;
  EventSender events_;
  std::unique_ptr<loop::IoThread> monitor_thread_;
  Services services_;
  std::vector<Listener> listeners_;
  std::vector<Client> clients_;
  loop::BottomHalf purge_;
  loop::Timer retry_accept_;
  machine::EventBus::Subscription machine_events_;
  HeldInput held_;
  log::RateLimit refusals_;
  log::RateLimit lost_fds_;
  bool out_of_files_ = false;  // and it has been said
  bool retired_ = false;
};

}  // namespace gyre::control
