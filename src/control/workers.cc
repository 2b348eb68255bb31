#include "src/control/workers.h"

#include <pthread.h>

#include <algorithm>
#include <system_error>

namespace gyre::control {

void Workers::Run(Work work, Done done, Cancelled cancelled) {
  if (stopped_) {
    return done(Refuse("gyred is about to end"));
  }
  if (workers_.size() >= kMost) {
    return done(Refuse("Too many long commands at once"));
  }
  auto worker = std::make_unique<Worker>();
  worker->done = std::move(done);
  worker->cancelled = std::move(cancelled);
  Worker* const self = worker.get();
  try {
    worker->thread = std::thread([this, self, work = std::move(work), alive = alive_]() mutable {
      ::pthread_setname_np(::pthread_self(), "qmp-work");
      self->outcome = work(*self->cancelled);
      loop::BottomHalf::ScheduleOnce(loop_, [this, self, alive = std::move(alive)] {
        if (*alive) {
          Finish(*self);
        }
      });
    });
  } catch (const std::system_error& error) {
    return worker->done(Refuse(Error::Sys("thread for a long command", error.code().value())));
  }
  workers_.push_back(std::move(worker));
}

void Workers::Finish(Worker& worker) {
  if (std::exchange(worker.ended, true)) {
    return;
  }
  worker.thread.join();
  auto done = std::move(worker.done);
  auto outcome = std::move(worker.outcome);
  std::erase_if(workers_, [&worker](const auto& entry) { return entry.get() == &worker; });
  done(std::move(outcome));
}

void Workers::Stop() {
  stopped_ = true;
  for (const auto& worker : workers_) {
    worker->cancelled->store(true, std::memory_order_relaxed);
  }
  while (!workers_.empty()) {
    Finish(*workers_.front());
  }
  *alive_ = false;
}

}  // namespace gyre::control
