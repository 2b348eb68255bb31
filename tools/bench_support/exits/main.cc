// What an exit costs by gyre's own classes beside bare KVM calls, in turn in one process.
// Run by `tools/bench exits`. A line of JSON a sample: {"benchmark", "peer", "ns"}.
//
// The guest is one vCPU in 32-bit mode without paging. Its programs count their passes in
// guest memory, which is where the time is taken from; none of them ever ends.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "machine.h"

namespace gyre::bench {
namespace {

constexpr auto kSample = std::chrono::milliseconds(60);
constexpr int kInterruptsASample = 100;
constexpr int kKicksASample = 50;
constexpr std::int64_t kPatienceNs = 5'000'000'000;

std::int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void LetRun() { std::this_thread::sleep_for(std::chrono::microseconds(200)); }

void Print(const char* benchmark, const char* peer, std::int64_t ns) {
  std::printf("{\"benchmark\": \"%s\", \"peer\": \"%s\", \"ns\": %lld}\n", benchmark, peer,
              static_cast<long long>(ns));
}

std::uint32_t Passes(const Machine& machine) {
  return std::atomic_ref(*machine.counter()).load(std::memory_order_acquire);
}

void AwaitPassAfter(const Machine& machine, std::uint32_t before) {
  const std::int64_t end = Now() + kPatienceNs;
  while (Passes(machine) == before) {
    if (Now() > end) {
      Die("the guest does not count");
    }
  }
}

// Time of a pass of the guest's loop, which is one exit.
std::int64_t MeasureLoop(const Machine& machine) {
  AwaitPassAfter(machine, Passes(machine));
  const std::uint32_t first = Passes(machine);
  const std::int64_t begin = Now();
  std::this_thread::sleep_for(kSample);
  const std::uint32_t passes = Passes(machine) - first;
  const std::int64_t elapsed = Now() - begin;
  if (passes == 0) {
    Die("the guest does not count");
  }
  return elapsed / passes;
}

std::int64_t Median(std::vector<std::int64_t>& values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values.at(values.size() / 2);
}

// From the write to the eventfd to the handler's count; the guest halts in between.
std::int64_t MeasureInterrupt(const Machine& machine) {
  AwaitPassAfter(machine, 0);  // an interrupt before the guest's set-up would be lost
  std::vector<std::int64_t> times;
  for (int i = 0; i < kInterruptsASample; ++i) {
    LetRun();
    const std::uint32_t before = Passes(machine);
    const std::int64_t begin = Now();
    if (::eventfd_write(machine.interrupt(), 1) != 0) {
      Die("eventfd_write");
    }
    AwaitPassAfter(machine, before);
    times.push_back(Now() - begin);
  }
  return Median(times);
}

std::int64_t MeasureKick(Machine& machine) {
  std::vector<std::int64_t> times;
  for (int i = 0; i < kKicksASample; ++i) {
    LetRun();
    const std::int64_t begin = Now();
    machine.Pause();
    times.push_back(Now() - begin);
    machine.Resume();
  }
  return Median(times);
}

using Make = std::unique_ptr<Machine> (*)(Program);

void MeasureAll(Make make, const char* peer) {
  for (const auto& [name, program] : {std::pair{"port read", Program::kPortReads},
                                      {"memory read", Program::kMemoryReads},
                                      {"ioeventfd", Program::kDoorbell}}) {
    Print(name, peer, MeasureLoop(*make(program)));
  }
  Print("irqfd", peer, MeasureInterrupt(*make(Program::kInterrupts)));
  Print("kick", peer, MeasureKick(*make(Program::kTurn)));
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 9;
  for (int round = 0; round < rounds; ++round) {
    gyre::bench::MeasureAll(gyre::bench::NewBare, "bare");
    gyre::bench::MeasureAll(gyre::bench::NewGyre, "gyre");
  }
  return 0;
}
