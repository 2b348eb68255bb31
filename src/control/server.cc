#include "src/control/server.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/open_files.h"
#include "src/control/request.h"

namespace gyre::control {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

}  // namespace

Server::Server(loop::MainLoop& loop, machine::Machine* machine, ServerConfig config)
    : loop_(loop),
      events_(loop, [this](const std::shared_ptr<const std::string>& line) { Broadcast(line); }),
      services_{.loop = loop,
                .machine = machine,
                .identity = std::move(config.identity),
                .commands = config.commands,
                .events = events_,
                .fd_sets = {},
                .workers = Workers(loop),
                .dump = {},
                .statistics = {},
                .start_monitor_thread = [this] { return StartMonitorThread(); },
                .monitor_thread = [this] { return monitor_thread_.get(); },
                .sockets = {},
                .has_clients =
                    [this](std::size_t socket) {
                      return std::ranges::find(clients_, socket, &Client::listener) != clients_.end();
                    }},
      purge_(loop, [this] { Purge(); }),
      retry_accept_(loop, loop::ClockType::kRealtime, [this] { PauseListening(false); }) {
  if (machine != nullptr) {
    machine_events_ = machine->events().Subscribe(
        [this](const machine::Event& event) { events_.Send(Name(event), EventData(event)); });
  }
}

Result<std::unique_ptr<Server>> Server::Create(loop::MainLoop& loop, machine::Machine* machine,
                                               ServerConfig config) {
  auto sockets = std::move(config.sockets);
  std::unique_ptr<Server> server(new Server(loop, machine, std::move(config)));
  for (auto& spec : sockets) {
    TRY(server->Listen(std::move(spec)));
  }
  return server;
}

Server::~Server() {
  Retire();
  const std::int64_t deadline = loop_.Now(loop::ClockType::kRealtime) + kSecond;
  const auto close_those = [this, deadline](bool on_monitor_thread) {
    for (const auto& client : clients_) {
      if (client.session->on_monitor_thread() == on_monitor_thread) {
        client.session->FlushAndClose(deadline);
      }
    }
  };
  close_those(false);
  if (monitor_thread_) {
    monitor_thread_->RunAndWait([&close_those] { close_those(true); });
    monitor_thread_.reset();
  }
  for (const auto& client : clients_) {
    client.session->MarkEnded();
  }
}

void Server::Retire() {
  if (std::exchange(retired_, true)) {
    return;
  }
  listeners_.clear();
  machine_events_.Remove();
  for (const auto& client : clients_) {
    client.session->StopReading();
  }
  if (monitor_thread_) {
    monitor_thread_->RunAndWait([] {});  // what runs out of band, ends
  }
  services_.dump.StayStopped();
  services_.workers.Stop();
  services_.statistics.clear();
  services_.machine = nullptr;
}

// --- Clients ---

Status Server::Listen(SocketSpec spec) {
  const std::size_t index = listeners_.size();
  services_.sockets.push_back(spec.Describe());
  auto socket = ListeningSocket::Open(std::move(spec));
  if (!socket) {
    return Fail(std::move(socket).error().Within("--qmp"));
  }
  const int fd = socket->fd();
  listeners_.push_back(
      {.socket = *std::move(socket),
       .watch = std::make_unique<loop::Watch>(loop_, fd, loop::Watch::kRead,
                                              [this, index](unsigned) { OnConnection(index); })});
  return {};
}

void Server::PauseListening(bool paused) {
  for (const auto& listener : listeners_) {
    listener.watch->SetEvents(paused ? 0U : loop::Watch::kRead);
  }
}

// Said once, and tried again each second: who is there is served meanwhile.
UniqueFd Server::Accept(std::size_t listener) {
  const ListeningSocket& socket = listeners_.at(listener).socket;
  UniqueFd connection = socket.Accept();
  if (connection) {
    out_of_files_ = false;
  } else if (IsShortage(errno)) {
    if (!std::exchange(out_of_files_, true)) {
      log::Warning("{}: no more clients for now: {}", socket.spec().Describe(),
                   Error::Sys("accept", errno).message());
    }
    PauseListening(true);
    retry_accept_.Set(loop_.Now(loop::ClockType::kRealtime) + kSecond);
  }
  return connection;
}

std::string Server::WhyNot(const ListeningSocket& socket, int connection, const Peer& peer) const {
  if (!socket.Allows(peer)) {
    return "is not allowed";
  }
  const uid_t own = ::geteuid();
  if (!IsStranger(peer.uid, own)) {
    return {};
  }
  std::size_t his = 0;
  std::size_t all = 0;
  for (const Client& client : clients_) {
    if (!client.session->ended() && IsStranger(client.user, own)) {
      ++all;
      his += client.user == peer.uid ? 1U : 0U;
    }
  }
  if (!StrangerGetsAPlace(his, all)) {
    return format("its user has {} clients, and all such users {}", his, all);
  }
  return IsOfTheLastFiles(connection) ? "too many files are open" : "";
}

// Who may not come in is sent away: it would keep others waiting behind it.
void Server::OnConnection(std::size_t listener) {
  if (clients_.size() >= kMostClients) {
    return PauseListening(true);  // until one leaves
  }
  UniqueFd connection = Accept(listener);
  if (!connection) {
    return;
  }
  const ListeningSocket& socket = listeners_.at(listener).socket;
  const auto peer = PeerOf(connection.get());
  const std::string reason = peer ? WhyNot(socket, connection.get(), *peer) : peer.error().message();
  if (reason.empty()) {
    return AddClient(std::move(connection), peer, listener);
  }
  if (std::uint64_t others = 0; refusals_.Allow(&others)) {
    log::Warning("{}: refused pid {}, uid {}: {} ({} more since the last such line)",
                 socket.spec().Describe(), peer ? peer->pid : 0, peer ? peer->uid : 0, reason, others);
  }
}

void Server::AddClient(UniqueFd socket) {
  const auto peer = PeerOf(socket.get());
  AddClient(std::move(socket), peer, 0);
}

void Server::AddClient(UniqueFd socket, const Result<Peer>& peer, std::size_t listener) {
  auto who = peer ? format("pid {}, uid {}", peer->pid, peer->uid) : std::string("unknown");
  log::Debug("control client: {}", who);
  auto session =
      std::make_shared<Session>(static_cast<SessionHost&>(*this), loop_, std::move(socket), std::move(who));
  clients_.push_back({.session = session, .user = peer ? peer->uid : 0, .listener = listener});
  session->Start();
}

std::size_t Server::clients() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(clients_, [](const Client& client) { return !client.session->ended(); }));
}

std::vector<int> Server::own_listeners() const {
  std::vector<int> fds;
  for (const Listener& listener : listeners_) {
    if (!listener.socket.spec().path.empty()) {
      fds.push_back(listener.socket.fd());
    }
  }
  return fds;
}

// A session may end while others walk through the list.
void Server::Ended(Session& session) {
  log::Debug("control client gone: {}", session.peer());
  session.client().gone->store(true, std::memory_order_relaxed);
  session.waiting().clear();
  if (!retired_) {
    purge_.Schedule();
  }
}

void Server::LostFds(const Session& session) {
  if (std::uint64_t others = 0; lost_fds_.Allow(&others)) {
    log::Warning(
        "control client ({}): file descriptors that it has sent are lost: too many at once, or too many "
        "files are "
        "open ({} more since the last such line)",
        session.peer(), others);
  }
}

void Server::Purge() {
  std::erase_if(clients_, [](const Client& client) { return client.session->ended(); });
  if (clients_.empty()) {
    services_.fd_sets.Clear();
  }
  if (held_.much.exchange(false, std::memory_order_relaxed)) {
    ::malloc_trim(0);  // what they have sent and never ended goes back to the host
  }
  PauseListening(false);
}

void Server::Broadcast(const std::shared_ptr<const std::string>& line) {
  for (std::size_t i = 0; i < clients_.size(); ++i) {  // by number: nothing is taken out meanwhile
    clients_[i].session->SendEvent(line);
  }
}

Status Server::StartMonitorThread() {
  if (!monitor_thread_) {
    monitor_thread_ = TRY(loop::IoThread::Create(loop_, {.name = "qmp", .cpus = {}}));
  }
  return {};
}

// --- Commands ---

bool Server::TakesFd(std::string_view name) const {
  const Command* const command = FindCommand(services_, name);
  return command != nullptr && (command->flags & Command::kTakesFd) != 0;
}

// Everything that can be wrong with a request, before it does anything.
Outcome Server::Admit(const Command* command, const ClientState& client, const Request& request) const {
  const bool negotiates = command != nullptr && (command->flags & Command::kNegotiates) != 0;
  if (!request.oob && !client.negotiated && !negotiates) {
    return Refuse("Expecting capabilities negotiation with 'qmp_capabilities'", ErrorClass::kCommandNotFound);
  }
  if (command == nullptr) {
    return Refuse(format("The command {} has not been found", request.name), ErrorClass::kCommandNotFound);
  }
  if (request.oob && (command->flags & Command::kAllowOob) == 0) {
    return Refuse(format("The command {} does not support OOB", request.name));
  }
  if (auto checked = CheckArguments(request.arguments, *command->arguments); !checked) {
    return Refuse(std::move(checked).error());
  }
  if (negotiates && client.negotiated) {
    return Refuse("Capabilities negotiation is already complete, command ignored",
                  ErrorClass::kCommandNotFound);
  }
  return request.oob ? Nothing() : AdmitNow(services_, *command);
}

void Server::Execute(const SessionPtr& session, Request request) {
  if (session->busy()) {
    session->waiting().push_back(std::move(request));
  } else {
    Run(session, std::move(request));
  }
}

void Server::Run(const SessionPtr& session, Request request) {
  const Command* const command = FindCommand(services_, request.name);
  if (auto admitted = Admit(command, session->client(), request); !admitted || retired_) {
    return Finish(session, admitted ? Refuse("gyred is about to end") : std::move(admitted), request.id);
  }
  Call call{.services = services_,
            .client = session->client(),
            .arguments = request.arguments,
            .fd = std::move(request.fd)};
  session->busy() = true;
  if (command->run != nullptr) {
    return Finish(session, command->run(call), request.id);
  }
  command->start(call, [this, session, id = std::move(request.id)](const Outcome& outcome) {
    Finish(session, outcome, id);
  });
}

void Server::Finish(const SessionPtr& session, const Outcome& outcome, const std::optional<Json>& id) {
  session->busy() = false;
  if (session->ended()) {
    session->waiting().clear();
    return;
  }
  session->Deliver(WriteReply(outcome, id));
  if (!session->busy() && !session->waiting().empty()) {
    Request next = std::move(session->waiting().front());
    session->waiting().pop_front();
    Run(session, std::move(next));
  }
}

// Of the client's state it may look at nothing: that is the main loop's.
Outcome Server::ExecuteOob(Session& session, Request request) {
  const Command* const command = FindCommand(services_, request.name);
  if (auto admitted = Admit(command, session.client(), request); !admitted) {
    return admitted;
  }
  Call call{.services = services_, .client = session.client(), .arguments = request.arguments, .fd = {}};
  return command->run(call);
}

}  // namespace gyre::control
