// One client of a control socket: its connection, and its place among the clients.
//
// Two sides. The I/O side (reading, parsing, writing) belongs to the session's
// loop: the main loop, or the monitor thread's once the client has enabled `oob`.
// The main side (commands, events, the client's state) belongs to the main loop,
// as the big lock's holder. On the main loop they call each other directly; else
// each posts to the other's loop, in order. The specification is QMP's wire.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "gyre/base/unique_fd.h"
#include "gyre/loop/io_thread.h"
#include "gyre/loop/main_loop.h"
#include "src/control/json.h"
#include "src/control/request.h"

namespace gyre::control {

class Session;
using SessionPtr = std::shared_ptr<Session>;

// What clients have sent of values that are not whole yet, and of requests without their reply: bytes of
// memory.
struct HeldInput {
  std::atomic<std::size_t> now{0};
  std::atomic<bool> much{false};  // it has been worth giving back
};

// Who executes what sessions read.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  // In-band, one after the other a session: ends in one Session::Deliver. Main side.
  virtual void Execute(const SessionPtr& session, Request request) = 0;
  // Out of band: on the session's thread, without the big lock.
  virtual Outcome ExecuteOob(Session& session, Request request) = 0;
  // An in-band request of that name takes a file descriptor that came along. Any thread.
  virtual bool TakesFd(std::string_view name) const = 0;
  // The connection is closed. Main side.
  virtual void Ended(Session& session) = 0;
  // Where sessions with out-of-band commands go; null: they stay. Main side.
  virtual loop::IoThread* monitor_thread() = 0;
  // Of all sessions together. Any thread.
  virtual HeldInput& held() = 0;
  // File descriptors that a client has sent along are lost. Any thread.
  virtual void LostFds(const Session& session) = 0;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  static constexpr std::size_t kQueueLimit = 8;           // requests of a client with `oob`
  static constexpr std::size_t kPauseUnread = 64U << 10;  // bytes not read: its requests wait
  // Of events behind what a client has not read: then it is cut off. Its replies it has asked for.
  static constexpr std::size_t kMostUnread = 1U << 20;
  // Of all clients' values that are not whole, and of their requests that wait or are executed. Who then
  // holds more than its share is cut off.
  static constexpr std::size_t kMostHeld = 32U << 20;
  static constexpr std::size_t kShareOfHeld = 128U << 10;
  // Of requests without their reply: the next one waits, as behind kQueueLimit.
  static constexpr std::size_t kPauseQueued = 1U << 20;

  Session(SessionHost& host, loop::MainLoop& main_loop, UniqueFd socket, std::string peer);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  // --- main side ---
  // Sends the greeting and begins to read.
  void Start();
  ClientState& client() { return client_; }
  // The reply to the request that is being executed; the next one waits for it.
  void Deliver(std::string line);
  // To clients that have negotiated.
  void SendEvent(const std::shared_ptr<const std::string>& line);
  // Nothing more is read, what is executed still answers.
  void StopReading();
  // Waits at most until then (CLOCK_MONOTONIC) for the client to take what there is, and closes.
  void FlushAndClose(std::int64_t deadline_ns);
  // "pid 123, uid 0", for the log.
  const std::string& peer() const { return peer_; }
  bool ended() const { return ended_; }
  // The host is about to go.
  void MarkEnded() { ended_ = true; }
  bool on_monitor_thread() const { return loop_ != &main_loop_; }
  // Requests that wait for the one that is being executed.
  std::deque<Request>& waiting() { return waiting_; }
  bool& busy() { return busy_; }

 private:
  // --- I/O side ---
  void Attach();
  void OnReady(unsigned events);
  void Read();
  void TakeFds(const msghdr& message);
  void Process();
  bool ProcessForATurn();
  void TakeAnotherTurn();
  void CountHeld();
  bool MustMove() const;
  bool MayProcess() const;
  void Handle(JsonParser::Parsed parsed, std::size_t size);
  void Dispatch(Request request, std::size_t size);
  void Answer(std::string_view line);
  void Send(std::string_view line);
  void SendUnasked(std::string_view line);
  void Flush();
  void UpdateWatch();
  void EndIfDone();
  void Close();
  std::size_t unread() const { return out_.size() - sent_; }
  void MoveToMonitorThread();

  // Runs it on the I/O side.
  template <typename Function>
  void OnIoSide(Function function);

  SessionHost& host_;
  loop::MainLoop& main_loop_;
  const std::string peer_;

  loop::EventLoop* loop_;  // the I/O side's; changed on the main side, before the other exists
  UniqueFd socket_;
  std::optional<loop::Watch> watch_;
  unsigned events_ = 0;
  JsonParser parser_;
  std::string input_;              // read, not yet parsed
  std::deque<UniqueFd> sent_fds_;  // that came with what is being parsed
  std::string out_;
  std::size_t sent_ = 0;                 // of out_
  std::size_t unasked_ = 0;              // bytes of events put there since it was last empty
  std::deque<std::size_t> outstanding_;  // in-band requests without their reply, by their bytes of memory
  std::size_t queued_ = 0;               // the sum of these
  bool oob_ = false;
  std::size_t held_ = 0;  // of the host's count
  bool processing_ = false;
  bool another_turn_ = false;  // is to come
  bool reading_ = true;        // the client has not ended its input
  bool stopped_ = false;       // by StopReading: nothing more is executed
  bool closed_ = false;

  ClientState client_;
  std::deque<Request> waiting_;
  bool busy_ = false;
  bool ended_ = false;
};

}  // namespace gyre::control
