#include "gyre/loop/io_thread.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/mutex.h"
#include "loop/event_loop_impl.h"

namespace gyre::loop {
namespace {

class IoLoop final : public EventLoop {
 public:
  explicit IoLoop(std::unique_ptr<Impl> impl) : EventLoop(std::move(impl)) {}
  ~IoLoop() = default;
  void RunUntil(const std::atomic<bool>& stop) {
    while (!stop.load()) {
      (void)impl().Wait(-1, Scope::kAll);
      impl().RunBottomHalvesAndReady(Scope::kAll);
      impl().RunTimers(Scope::kAll);
    }
    impl().RunBottomHalvesAndReady(Scope::kAll);  // what was posted before the stop
    impl().DrainOrphans();
  }
};

Status BindTo(const std::vector<unsigned>& cpus) {
  if (cpus.empty()) {
    return {};
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const unsigned cpu : cpus) {
    if (cpu >= CPU_SETSIZE) {
      return Fail(Error::Usage(format("CPU {} is beyond the last that a thread can be bound to", cpu)));
    }
    CPU_SET(cpu, &set);
  }
  if (const int error = ::pthread_setaffinity_np(::pthread_self(), sizeof(set), &set); error != 0) {
    return Fail(Error::Sys("pthread_setaffinity_np", error, ErrorKind::kUsage));
  }
  return {};
}

// Gives up the big lock if the calling thread holds it.
class BigLockLeft {
 public:
  explicit BigLockLeft(BigLock& lock) NO_THREAD_SAFETY_ANALYSIS : lock_(lock), held_(lock.HeldByMe()) {
    if (held_) {
      lock_.Unlock();
    }
  }
  BigLockLeft(const BigLockLeft&) = delete;
  BigLockLeft& operator=(const BigLockLeft&) = delete;
  ~BigLockLeft() NO_THREAD_SAFETY_ANALYSIS {
    if (held_) {
      lock_.Lock();
    }
  }

 private:
  BigLock& lock_;
  const bool held_;
};

}  // namespace

struct IoThread::Impl {
  Impl(MainLoop& owner, Config with) : main_loop(owner), config(std::move(with)) {}
  void Main();
  Status SetUp();
  template <typename Function>
  void CallAndWait(Function& callback, Tier tier) {
    std::atomic<bool> done{false};
    BottomHalf::ScheduleOnce(
        *loop,
        [&] {
          callback();
          done.store(true);
          done.notify_one();
        },
        tier);
    done.wait(false);
  }

  MainLoop& main_loop;
  const Config config;
  std::thread thread;
  std::atomic<bool> stop{false};
  int tid = 0;
  std::unique_ptr<IoLoop> loop;  // made on the thread; destroyed after it has ended, for others wake it

  Mutex mutex;
  CondVar changed;
  std::optional<Status> ready GUARDED_BY(mutex);
};

Status IoThread::Impl::SetUp() {
  TRY(BindTo(config.cpus));
  EventLoop::Impl& main = main_loop.impl();
  loop =
      std::make_unique<IoLoop>(TRY(EventLoop::Impl::Create(nullptr, main.time, main.vm_clock, config.poll)));
  tid = ::gettid();
  return {};
}

void IoThread::Impl::Main() {
  ::pthread_setname_np(::pthread_self(), config.name.substr(0, 15).c_str());
  Status status = SetUp();
  const bool failed = !status;
  {
    const MutexLock lock(mutex);
    ready = std::move(status);
    changed.NotifyAll();
  }
  if (!failed) {
    loop->RunUntil(stop);
  }
}

IoThread::IoThread(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<IoThread>> IoThread::Create(MainLoop& main_loop, Config config) {
  auto impl = std::make_unique<Impl>(main_loop, std::move(config));
  // Signals are the main thread's: the new thread takes none.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::sigdelset(&all, SIGBUS);  // its own, of guest memory (base/bus_error.h)
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    impl->thread = std::thread([raw = impl.get()] { raw->Main(); });
  } catch (const std::system_error& error) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return Fail(Error::Sys("I/O thread", error.code().value()));
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  std::optional<Status> status;
  {
    const MutexLock lock(impl->mutex);
    while (!impl->ready) {
      impl->changed.Wait(impl->mutex);
    }
    status = std::move(impl->ready);
  }
  if (!*status) {
    impl->thread.join();
    return Fail(std::move(*status).error().Within("I/O thread " + impl->config.name));
  }
  return std::unique_ptr<IoThread>(new IoThread(std::move(impl)));
}

IoThread::~IoThread() {
  const BigLockLeft left(impl_->main_loop.big_lock());
  impl_->stop.store(true);
  impl_->loop->Wake();
  impl_->thread.join();
}

EventLoop& IoThread::loop() const { return *impl_->loop; }

const std::string& IoThread::name() const { return impl_->config.name; }

int IoThread::tid() const { return impl_->tid; }

void IoThread::Run(Callback callback) { BottomHalf::ScheduleOnce(*impl_->loop, std::move(callback)); }

void IoThread::RunAndWait(Callback callback) {
  if (impl_->loop->OnLoopThread()) {
    callback();
    return;
  }
  const BigLockLeft left(impl_->main_loop.big_lock());
  impl_->CallAndWait(callback, Tier::kControl);
}

void IoThread::RunKeepingLock(const std::function<void()>& callback) {
  if (impl_->loop->OnLoopThread()) {
    callback();
  } else {
    impl_->CallAndWait(callback, Tier::kIo);
  }
}

}  // namespace gyre::loop
