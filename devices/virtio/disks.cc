#include <algorithm>
#include <utility>

#include "devices/virtio/throttle_group.h"
#include "gyre/base/format.h"
#include "gyre/devices/virtio/disk.h"

namespace gyre::virtio {
namespace {

constexpr std::size_t kMostErrors = 64;  // that wait to be told

}  // namespace

std::string_view Name(ErrorAction action) {
  static constexpr std::array<std::string_view, 3> kNames = {"report", "ignore", "stop"};
  return kNames.at(static_cast<std::size_t>(action));
}

bool DiskLimits::any() const {
  const auto limited = [](const Set& set) {
    return set.all.rate != 0 || set.read.rate != 0 || set.write.rate != 0;
  };
  return limited(bytes) || limited(operations);
}

Disks::Disks(loop::MainLoop& loop, std::function<void(const DiskError&)> on_error)
    : on_error_(std::move(on_error)), tell_(loop, [this] { TellAll(); }) {}

Disks::~Disks() = default;

DiskControl* Disks::Find(std::string_view id) const {
  const auto found = std::ranges::find(all_, id, &Entry::id);
  return found == all_.end() ? nullptr : found->disk;
}

Status Disks::Add(DiskControl& disk, const std::string& id) {
  if (Find(id) != nullptr) {
    return Fail(Error::Usage(format("id={}: is another disk's", id)));
  }
  all_.push_back({.id = id, .disk = &disk});
  return {};
}

void Disks::Remove(const DiskControl& disk) {
  std::erase_if(all_, [&](const Entry& entry) { return entry.disk == &disk; });
}

std::shared_ptr<ThrottleGroup> Disks::Group(const std::string& name) {
  auto& known = groups_[name];
  auto group = known.lock();
  if (!group) {
    group = std::make_shared<ThrottleGroup>(name);
    known = group;
  }
  std::erase_if(groups_, [](const auto& entry) { return entry.second.expired(); });
  return group;
}

void Disks::Tell(DiskError error) {
  {
    const MutexLock lock(mutex_);
    if (errors_.size() == kMostErrors) {
      return;
    }
    errors_.push_back(std::move(error));
  }
  tell_.Schedule();
}

void Disks::TellAll() {
  std::deque<DiskError> errors;
  {
    const MutexLock lock(mutex_);
    errors.swap(errors_);
  }
  for (const DiskError& error : errors) {
    on_error_(error);
  }
}

}  // namespace gyre::virtio
