// A command in the VM, with this process's standard streams, terminal and signals as
// its own. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "gyre/base/unique_fd.h"
#include "tools/exec/link.h"
#include "tools/exec/taken_signals.h"
#include "tools/gyrectl/deadline.h"
#include "tools/gyrectl/escape.h"
#include "tools/gyrectl/outcome.h"

namespace gyre::ctl {

class ExecSession {
 public:
  // The exit status, or why the command could not be executed.
  using End = std::variant<int, exec::ErrorReport>;
  enum class Input : std::uint8_t {
    kOwn,     // ours alone
    kShared,  // others in this process read it later
    kKeys,    // a person's, who must be able to leave whatever the agent says
    kNone,
  };

  // `link`: to an agent that was asked to start a command. `on_terminal`: that one is.
  ExecSession(exec::Link& link, bool on_terminal, Input input);
  // Errors: that the agent or the connection fails, that we do, the deadline.
  Outcome<End> Run(const Deadline& deadline);

 private:
  // What is to be written to one of our own.
  struct Output {
    explicit Output(int stream);
    int fd;            // a stream of ours
    UniqueFd own;      // the same, which does not block, where that can be had without changing it for others
    std::size_t most;  // bytes that are written at once
    std::string pending = {};
    std::size_t written = 0;  // of that

    std::size_t left() const { return pending.size() - written; }
    void Clear() {
      pending.clear();
      written = 0;
    }
  };

  void Poll(const Deadline& deadline);
  bool MayRead() const;
  bool OutputsHaveRoom() const;
  bool MayTake() const;
  void ServeSignals();
  void EndBy(int signal);
  void ServeInput();
  void EndInput();
  void SendInput();
  void ServeOutput(Output& output);
  void ServeLink(short events);
  void TakeFrames();
  Result<bool> Take(const exec::Frame& frame);
  bool TakeCredit(std::uint32_t given);
  bool TakeEnd(const exec::ExitReport& report);
  void CloseInput();
  void Abort(Exit exit, std::string why);

  exec::Link& link_;
  const bool on_terminal_;
  const Input kind_;
  exec::TakenSignals signals_;
  unsigned unheard_ = 0;  // signals that were passed on since the agent last said something
  EscapeFilter escape_;
  std::array<Output, 2> outputs_;
  std::string input_;       // read, and not sent for want of credit or room
  bool ours_open_ = true;   // our standard input has not ended
  bool input_open_ = true;  // the command's neither
  bool input_ended_ = false;
  std::uint32_t credit_ = 0;
  bool peer_ended_ = false;
  bool sends_ = true;       // as long as the agent takes something
  std::optional<End> end_;  // once the outputs are written
  std::optional<Failure> failure_;
};

// This process's terminal's; zeros where there is none.
exec::WindowSize OwnWindowSize();

}  // namespace gyre::ctl
