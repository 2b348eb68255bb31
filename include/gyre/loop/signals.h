// Signals as loop events: blocked, and read from a signalfd.
//
// Thread: made on the main loop's thread, before any other thread is started, so
// that all inherit the mask and none takes such a signal. Big lock's holder.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "gyre/base/result.h"
#include "gyre/loop/event_loop.h"

namespace gyre::loop {

class SignalWatch {
 public:
  // The signal's number, and the process that sent it (0: the kernel).
  using Handler = std::move_only_function<void(int signo, int pid)>;

  // Blocks `signals` in the calling thread. They stay blocked when the watch is
  // gone: a second SIGTERM must not kill a teardown halfway.
  static Result<std::unique_ptr<SignalWatch>> Create(EventLoop& loop, std::span<const int> signals,
                                                     Handler handler);
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  ~SignalWatch();  // from its own handler too

 private:
  struct Impl;
  explicit SignalWatch(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace gyre::loop
