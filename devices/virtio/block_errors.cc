#include "devices/virtio/block_errors.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace gyre::virtio {
namespace {

bool IsNoSpace(std::int32_t error) { return error == -ENOSPC || error == -EDQUOT; }

}  // namespace

void BlockErrors::SetNames(std::string id, std::string path) {
  const MutexLock lock(mutex_);
  id_ = std::move(id);
  path_ = std::move(path);
}

bool BlockErrors::may_stop() const {
  return policies_.read == ErrorPolicy::kStop || policies_.write == ErrorPolicy::kStop ||
         policies_.write == ErrorPolicy::kNoSpace;
}

ErrorAction BlockErrors::Decide(const Failure& failure) const {
  switch (failure.read ? policies_.read : policies_.write) {
    case ErrorPolicy::kReport:
      break;
    case ErrorPolicy::kIgnore:
      return ErrorAction::kIgnore;
    case ErrorPolicy::kStop:
      return ErrorAction::kStop;
    case ErrorPolicy::kNoSpace:
      return IsNoSpace(failure.error) ? ErrorAction::kStop : ErrorAction::kReport;
  }
  return ErrorAction::kReport;
}

ErrorAction BlockErrors::Fail(const Failure& failure) {
  const ErrorAction action = Decide(failure);
  const bool no_space = IsNoSpace(failure.error);
  const char* const reason = failure.error == 0 ? "the image ends before it" : std::strerror(-failure.error);
  std::uint64_t suppressed = 0;
  const MutexLock lock(mutex_);
  // Others that fail before the VM stands say nothing new.
  const bool tell = action == ErrorAction::kStop
                        ? status_.exchange(no_space ? IoStatus::kNoSpace : IoStatus::kFailed) == IoStatus::kOk
                        : limit_.Allow(&suppressed);
  if (!tell) {
    return action;
  }
  log::Warning("{} ({}): {} at byte {}: {}; {} ({} more not told)", id_, path_,
               failure.read ? "read" : "write", failure.offset, reason, Name(action), suppressed);
  if (disks_ != nullptr) {
    disks_->Tell(
        {.disk = id_, .read = failure.read, .action = action, .no_space = no_space, .reason = reason});
  }
  return action;
}

}  // namespace gyre::virtio
