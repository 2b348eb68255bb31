// Who may use a socket's name in the file system: one process at a time, by a lock on NAME.lock beside it.
// What is at the name can then be looked at, removed and made anew with nobody in between. The kernel drops
// the lock of a process that dies, whatever it dies of; the file that such a one leaves is taken over by the
// next.
#pragma once

#include <optional>
#include <string>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre {

class NameLock {
 public:
  // Of no name.
  NameLock() = default;
  // Does not wait. The error (kUsage) speaks of `who`: somebody else has it, or the file cannot be made.
  static Result<NameLock> Take(const std::string& name, const std::string& who);
  // Whether somebody has it, found out without touching it. Nothing: it cannot be told, such as of a process
  // that is not seen from here.
  static std::optional<bool> IsTaken(const std::string& name);
  NameLock(NameLock&&) noexcept = default;
  NameLock& operator=(NameLock&&) = delete;
  NameLock(const NameLock&) = delete;
  NameLock& operator=(const NameLock&) = delete;
  // Removes the file.
  ~NameLock();

 private:
  NameLock(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd fd_;
};

}  // namespace gyre
