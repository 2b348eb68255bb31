#include "devices/virtio/throttle_group.h"

#include <algorithm>

namespace gyre::virtio {
namespace {

std::size_t Index(ThrottleGroup::Way way) { return static_cast<std::size_t>(way); }

TokenBucket NewBucket(const DiskLimits::Limit& limit) {
  // Without a burst of its own, a tenth of a second's worth: a queue that is served by the batch would
  // otherwise wait between any two requests.
  const std::uint64_t burst = limit.burst != 0 ? limit.burst : std::max<std::uint64_t>(limit.rate / 10, 1);
  return {std::min(limit.rate, DiskLimits::kMost), std::min(burst, DiskLimits::kMost)};
}

}  // namespace

ThrottleGroup::Buckets ThrottleGroup::Fill(const DiskLimits::Set& set) {
  return {.all = NewBucket(set.all), .of = {NewBucket(set.read), NewBucket(set.write)}};
}

std::int64_t ThrottleGroup::Buckets::Wait(Way way, std::int64_t now_ns) {
  return std::max(all.Wait(now_ns), of.at(Index(way)).Wait(now_ns));
}

void ThrottleGroup::Buckets::Take(Way way, std::uint64_t tokens) {
  all.Take(tokens);
  of.at(Index(way)).Take(tokens);
}

DiskLimits ThrottleGroup::limits() const {
  const MutexLock lock(mutex_);
  return limits_;
}

void ThrottleGroup::Configure(const DiskLimits& limits) {
  const MutexLock lock(mutex_);
  limits_ = limits;
  bytes_ = Fill(limits.bytes);
  operations_ = Fill(limits.operations);
  limited_.store(limits.any(), std::memory_order_relaxed);
  for (const auto& line : lines_) {
    if (!line.empty()) {
      line.front()->WakeAt(0);
    }
  }
}

bool ThrottleGroup::Admit(Waiter& waiter, Way way, std::uint64_t bytes, std::int64_t now_ns) {
  const MutexLock lock(mutex_);
  auto& line = lines_.at(Index(way));
  const bool waits = std::ranges::find(line, &waiter) != line.end();
  if (!line.empty() && line.front() != &waiter) {
    if (!waits) {
      line.push_back(&waiter);
    }
    return false;
  }
  if (const std::int64_t wait = std::max(bytes_.Wait(way, now_ns), operations_.Wait(way, now_ns));
      wait != 0) {
    if (!waits) {
      line.push_back(&waiter);
    }
    waiter.WakeAt(now_ns + wait);
    return false;
  }
  const std::uint64_t unit = limits_.operation_size;
  bytes_.Take(way, bytes);
  operations_.Take(way, unit != 0 && bytes > unit ? (bytes - 1) / unit + 1 : 1);
  if (waits) {
    line.pop_front();
    if (!line.empty()) {
      line.front()->WakeAt(0);
    }
  }
  return true;
}

void ThrottleGroup::Leave(const Waiter& waiter, Way way) {
  const MutexLock lock(mutex_);
  auto& line = lines_.at(Index(way));
  const bool first = !line.empty() && line.front() == &waiter;
  std::erase(line, &waiter);
  if (first && !line.empty()) {
    line.front()->WakeAt(0);
  }
}

}  // namespace gyre::virtio
