// Sets of file descriptors that clients have handed over (add-fd), by number. They go
// when the last client does. Big lock's holder.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "gyre/base/unique_fd.h"
#include "src/control/command.h"
#include "src/control/json.h"

namespace gyre::control {

class FdSets {
 public:
  static constexpr std::size_t kMostFds = 128;  // in all sets together

  // To that set, or to a new one; {"fdset-id", "fd"}.
  Outcome Add(std::optional<std::int64_t> set, std::optional<std::string> opaque, UniqueFd fd);
  // One fd of a set, or all of them, and then the set.
  Outcome Remove(std::int64_t set, std::optional<std::int64_t> fd);
  Json Describe() const;
  // Any fd of the set; -1 if there is none.
  int Find(std::int64_t set) const;
  void Clear() { sets_.clear(); }

 private:
  struct Entry {
    UniqueFd fd;
    std::optional<std::string> opaque;
  };
  std::map<std::int64_t, std::map<int, Entry>> sets_;
};

}  // namespace gyre::control
