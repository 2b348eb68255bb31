// Measures gyre's loop beside GLib's and bare liburing, in turn: one JSON object
// a line, {"benchmark", "peer", "parameter", "ns"}, the time of one thing done.
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is POSIX's
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "gyre/base/unique_fd.h"
#include "gyre/loop/main_loop.h"
#include "tools/bench_support/loop/peer.h"

namespace gyre::bench {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kSampleNs = 20'000'000;  // the least that one sample takes

using PeerMaker = std::function<std::unique_ptr<Peer>()>;

std::int64_t Now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * kSecond + now.tv_nsec;
}

UniqueFd NewBlockingEventFd() { return UniqueFd(::eventfd(0, EFD_CLOEXEC)); }

void Report(std::string_view benchmark, std::string_view peer, std::size_t parameter, double ns) {
  std::printf(R"({"benchmark": "%.*s", "peer": "%.*s", "parameter": %zu, "ns": %.2f})"
              "\n",
              static_cast<int>(benchmark.size()), benchmark.data(), static_cast<int>(peer.size()),
              peer.data(), parameter, ns);
}

// Repeats `round`, which does a number of things, until a sample is long enough; ns for one thing.
double Sample(const std::function<std::uint64_t()>& round) {
  round();
  std::uint64_t things = 0;
  const std::int64_t start = Now();
  std::int64_t end = start;
  while (end - start < kSampleNs) {
    things += round();
    end = Now();
  }
  return static_cast<double>(end - start) / static_cast<double>(things);
}

// All eventfds are written to, and the loop serves them: what an event costs, the write included, and
// without.
void Events(const PeerMaker& make, std::size_t count) {
  const auto peer = make();
  std::vector<UniqueFd> owned;
  std::vector<int> fds;
  for (std::size_t i = 0; i < count; ++i) {
    owned.push_back(NewEventFd().value());
    fds.push_back(owned.back().get());
  }
  std::uint64_t events = 0;
  peer->WatchEventFds(fds, events);
  peer->Iterate();
  std::int64_t writing = 0;
  std::uint64_t all = 0;
  const double ns = Sample([&] {
    const std::uint64_t goal = events + count;
    const std::int64_t start = Now();
    for (const int fd : fds) {
      SignalEventFd(fd);
    }
    writing += Now() - start;
    int left = 1000;
    while (events < goal && left-- > 0) {
      peer->Iterate();
    }
    if (events < goal) {
      std::fprintf(stderr, "%s lost an event\n", std::string(peer->name()).c_str());
      std::exit(1);
    }
    all += count;
    return count;
  });
  Report("event", peer->name(), count, ns);
  Report("event without its write", peer->name(), count,
         ns - static_cast<double>(writing) / static_cast<double>(all));
}

void Timers(const PeerMaker& make, std::size_t count) {
  const auto peer = make();
  if (!peer->has_timers()) {
    return;
  }
  std::uint64_t fired = 0;
  peer->MakeTimers(count, fired);
  std::mt19937_64 random(1);  // NOLINT(bugprone-random-generator-seed): the same for all
  const std::int64_t far = Now() + 3600 * kSecond;
  const auto later = [&] { return far + static_cast<std::int64_t>(random() % 1'000'000'000'000U); };
  std::int64_t start = Now();
  for (std::size_t i = 0; i < count; ++i) {
    peer->SetTimer(i, later());
  }
  Report("timer set", peer->name(), count, static_cast<double>(Now() - start) / static_cast<double>(count));
  Report("timer moved", peer->name(), count, Sample([&] {
           for (int i = 0; i < 100; ++i) {
             peer->SetTimer(random() % count, later());
           }
           return 100U;
         }));
  Report("iteration with timers", peer->name(), count, Sample([&] {
           peer->Iterate();
           return 1U;
         }));
  Report("timer fired", peer->name(), count, Sample([&] {
           for (std::size_t i = 0; i < count; ++i) {
             peer->SetTimer(i, static_cast<std::int64_t>(i));
           }
           const std::uint64_t goal = fired + count;
           while (fired < goal) {
             peer->Iterate();
           }
           return count;
         }));
}

void Deferred(const PeerMaker& make, std::size_t count) {
  const auto peer = make();
  if (!peer->has_timers()) {
    return;
  }
  std::uint64_t ran = 0;
  peer->MakeDeferred(count, ran);
  Report("deferred call", peer->name(), count, Sample([&] {
           for (std::size_t i = 0; i < count; ++i) {
             peer->Defer(i);
           }
           const std::uint64_t goal = ran + count;
           while (ran < goal) {
             peer->Iterate();
           }
           return count;
         }));
}

// As many 4 KiB reads in flight as `count`, from a file in memory: what a block device's request costs us.
void Reads(const PeerMaker& make, std::size_t count) {
  const auto peer = make();
  if (!peer->has_reads()) {
    return;
  }
  const UniqueFd file(::memfd_create("reads", MFD_CLOEXEC));
  if (::ftruncate(file.get(), static_cast<off_t>(count * kReadBytes)) != 0) {
    return;
  }
  std::uint64_t done = 0;
  peer->MakeReads(count, done);
  Report("read of 4 KiB", peer->name(), count, Sample([&] {
           const std::uint64_t goal = done + count;
           for (std::size_t i = 0; i < count; ++i) {
             peer->StartRead(i, file.get(), i * kReadBytes);
           }
           while (done < goal) {
             peer->Iterate();
           }
           return count;
         }));
}

constexpr int kWakes = 5000;

// 0 or 1, so that what is measured does not hang on where the scheduler puts two threads.
void PinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)::sched_setaffinity(0, sizeof(set), &set);
}

std::string_view WakeName(int cpu) { return cpu == 0 ? "wake, same CPU" : "wake, other CPU"; }

// Half of a round trip: this thread pokes the loop, whose thread answers by a bare eventfd.
void Wake(const PeerMaker& make, int cpu) {
  const UniqueFd answer = NewBlockingEventFd();
  int left = kWakes;
  std::atomic<Peer*> serving{nullptr};
  std::string_view name;
  std::thread thread([&] {
    PinTo(cpu);
    const auto peer = make();
    name = peer->name();
    serving.store(peer.get());
    serving.notify_one();
    peer->Serve([&] {
      if (--left == 0) {
        peer->Stop();
      }
      SignalEventFd(answer.get());
    });
  });
  serving.wait(nullptr);
  const std::int64_t start = Now();
  for (int i = 0; i < kWakes; ++i) {
    serving.load()->Poke();
    std::uint64_t value = 0;
    [[maybe_unused]] const auto got = ::read(answer.get(), &value, sizeof(value));
  }
  const std::int64_t end = Now();
  thread.join();
  Report(WakeName(cpu), name, 1, static_cast<double>(end - start) / (2.0 * kWakes));
}

void BareWake(int cpu) {
  const UniqueFd ping = NewBlockingEventFd();
  const UniqueFd pong = NewBlockingEventFd();
  std::thread thread([&] {
    PinTo(cpu);
    for (int i = 0; i < kWakes; ++i) {
      std::uint64_t value = 0;
      [[maybe_unused]] const auto got = ::read(ping.get(), &value, sizeof(value));
      SignalEventFd(pong.get());
    }
  });
  const std::int64_t start = Now();
  for (int i = 0; i < kWakes; ++i) {
    SignalEventFd(ping.get());
    std::uint64_t value = 0;
    [[maybe_unused]] const auto got = ::read(pong.get(), &value, sizeof(value));
  }
  const std::int64_t end = Now();
  thread.join();
  Report(WakeName(cpu), "eventfds", 1, static_cast<double>(end - start) / (2.0 * kWakes));
}

// Iterations of a loop that has watches and far timers and nothing to do, in a second.
void Idle() NO_THREAD_SAFETY_ANALYSIS {
  std::atomic<loop::MainLoop*> running{nullptr};
  std::atomic<bool> stop{false};
  std::thread thread([&]() NO_THREAD_SAFETY_ANALYSIS {
    BigLock big_lock;
    const BigLockGuard guard(big_lock);
    const auto main_loop = loop::MainLoop::Create(big_lock).value();
    const UniqueFd fd = NewEventFd().value();
    {
      const loop::Watch watch(*main_loop, fd.get(), loop::Watch::kRead, [](unsigned) {});
      loop::Timer far(*main_loop, loop::ClockType::kHost, [] {});
      far.Set(main_loop->Now(loop::ClockType::kHost) + 3600 * kSecond);
      running.store(main_loop.get());
      running.notify_one();
      while (!stop) {
        main_loop->RunOnce(false);
      }
    }
  });
  running.wait(nullptr);
  ::usleep(100'000);
  const std::uint64_t before = running.load()->stats().iterations;
  ::usleep(1'000'000);
  Report("wake-ups a second, idle", "gyre", 1,
         static_cast<double>(running.load()->stats().iterations - before));
  stop = true;
  running.load()->Wake();
  thread.join();
}

void RunAll(int rounds) {
  PinTo(0);
  const std::vector<PeerMaker> peers = {[] { return NewUring(false); }, [] { return NewGyre(false); },
                                        [] { return NewUring(true); }, [] { return NewGyre(true); }, NewGlib};
  for (int round = 0; round < rounds; ++round) {
    for (const std::size_t count : {1U, 10U, 100U, 1000U}) {
      for (const auto& peer : peers) {
        Events(peer, count);
      }
    }
    for (const std::size_t count : {10U, 100U, 1000U, 10'000U, 100'000U}) {
      Timers(peers[1], count);
      if (count <= 10'000) {
        Timers(peers[4], count);  // beyond, GLib takes minutes
      }
    }
    for (const std::size_t count : {1U, 100U, 1000U}) {
      Deferred(peers[1], count);
      Deferred(peers[4], count);
    }
    for (const std::size_t count : {1U, 32U, 256U}) {
      Reads(peers[0], count);
      Reads(peers[1], count);
    }
    for (const int cpu : {0, 1}) {
      BareWake(cpu);
      for (const std::size_t peer : {0U, 1U, 4U}) {
        Wake(peers[peer], cpu);
      }
    }
    std::fflush(stdout);
  }
  Idle();
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) {
  gyre::bench::RunAll(argc > 1 ? std::atoi(argv[1]) : 5);  // NOLINT(cert-err34-c): our own caller's
  return 0;
}
