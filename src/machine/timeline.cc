#include "src/machine/timeline.h"

#include <algorithm>
#include <ctime>

#include "gyre/base/format.h"

namespace gyre::machine {
namespace {

std::int64_t NowNs(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

Timeline::Timeline() : exec_ns_(NowNs(CLOCK_MONOTONIC) - NowNs(CLOCK_PROCESS_CPUTIME_ID)) {
  entries_.reserve(16);
}

void Timeline::Mark(std::string_view name) { MarkAt(std::string(name), NowNs(CLOCK_MONOTONIC)); }

void Timeline::MarkAt(std::string name, std::int64_t monotonic_ns) {
  if (monotonic_ns != 0) {
    const auto later = std::ranges::upper_bound(entries_, monotonic_ns, {}, &Entry::monotonic_ns);
    entries_.insert(later, {std::move(name), monotonic_ns});
  }
}

std::string Timeline::Table() const {
  std::string table = format("{:>10} {:>10}  {}\n", "us", "step us", "mark");
  std::int64_t previous = exec_ns_;
  for (const auto& entry : entries_) {
    table += format("{:>10} {:>10}  {}\n", (entry.monotonic_ns - exec_ns_) / 1000,
                    (entry.monotonic_ns - previous) / 1000, entry.name);
    previous = entry.monotonic_ns;
  }
  return table;
}

}  // namespace gyre::machine
