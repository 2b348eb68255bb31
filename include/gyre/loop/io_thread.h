// A thread with an event loop of its own, without the big lock: for devices
// whose I/O should not wait for the main loop. Its clocks are the main loop's.
//
// Thread: made and destroyed on any thread, before and after those that use it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/loop/main_loop.h"

namespace gyre::loop {

class IoThread {
 public:
  struct Config {
    std::string name;            // the thread's, cut to 15 bytes
    std::vector<unsigned> cpus;  // where it may run; empty: everywhere
    PollLimits poll = {};
  };
  // The error is no reason to give up the process: the device can stay with the main loop.
  static Result<std::unique_ptr<IoThread>> Create(MainLoop& main_loop, Config config);
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;
  // Stops the loop and joins the thread; gives up the big lock meanwhile if the caller holds it. The loop's
  // sources must be gone (RunAndWait is the way to destroy them).
  ~IoThread();

  // Its sources belong to its thread: make them by Run or RunAndWait.
  EventLoop& loop() const;
  const std::string& name() const;
  int tid() const;  // for `query-iothreads` and the like

  // Runs it on the thread, in order. Any thread. Control tier: not in the middle of a WaitForIo.
  void Run(Callback callback);
  // The same, and waits until it has run. Any thread (at once if it is this one). Gives up the big lock
  // meanwhile if the caller holds it: look at the state again.
  void RunAndWait(Callback callback);
  // The same, but keeps the big lock, and runs in the middle of a WaitForIo too: for threads whose callbacks
  // never wait for that lock. What the caller and the callback see of each other's is in order.
  void RunKeepingLock(const std::function<void()>& callback);

 private:
  struct Impl;
  explicit IoThread(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::loop
