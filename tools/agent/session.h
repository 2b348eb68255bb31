// One connection of the agent's: a greeting, one command, its end. It has a process
// of its own, so that nothing that its client does is anybody else's business.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "tools/agent/command.h"
#include "tools/agent/streams.h"
#include "tools/exec/link.h"
#include "tools/exec/taken_signals.h"

namespace gyre::exec {

class Session {
 public:
  explicit Session(UniqueFd socket);
  // Until the command and the connection are over. SIGTERM ends both.
  void Run();

 private:
  using Clock = std::chrono::steady_clock;
  enum class Stage : std::uint8_t {
    kGreeting,  // until there is a command
    kRunning,
    kDraining,  // it has ended, but not all that it wrote is sent
    kParting,   // the client has to take the rest, and is listened to no more
    kOver,      // there is nobody to take anything
  };

  void Poll();
  int WaitMs() const;
  void Advance();
  void ServeSignals();
  void ServeLink(short events);
  // False: it broke the rules.
  Result<bool> Take(const Frame& frame);
  Result<bool> TakeForCommand(const Frame& frame);
  void Start(std::string_view payload);
  void CommandEnded(const ExitReport& report);
  bool OutputIsOver() const;
  void Refuse(const ErrorReport& report);
  void Part();
  void EndCommand();
  void SetDeadline(std::chrono::milliseconds after) { deadline_ = Clock::now() + after; }

  TakenSignals signals_;
  Link link_;
  Stage stage_ = Stage::kGreeting;
  std::optional<Clock::time_point> deadline_;
  bool finished_sending_ = false;
  std::optional<Command> command_;
  std::optional<InputStream> input_;
  std::optional<OutputStream> output_;
  std::optional<OutputStream> errors_;
  ExitReport end_;
};

}  // namespace gyre::exec
