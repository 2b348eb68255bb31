#include "src/control/fd_sets.h"

#include <utility>

#include "gyre/base/format.h"

namespace gyre::control {

Outcome FdSets::Add(std::optional<std::int64_t> set, std::optional<std::string> opaque, UniqueFd fd) {
  if (!fd) {
    return Refuse("No file descriptor supplied via SCM_RIGHTS");
  }
  if (set && *set < 0) {
    return Refuse("Invalid parameter 'fdset-id'");
  }
  std::size_t count = 0;
  for (const auto& [number, entries] : sets_) {
    count += entries.size();
  }
  if (count >= kMostFds) {
    return Refuse(
        format("there are {} file descriptors in sets already, which is all that may be", kMostFds));
  }
  std::int64_t number = 0;
  while (!set && sets_.contains(number)) {
    ++number;
  }
  number = set.value_or(number);
  const int raw = fd.get();
  sets_[number][raw] = Entry{.fd = std::move(fd), .opaque = std::move(opaque)};
  return Json{{"fdset-id", number}, {"fd", raw}};
}

Outcome FdSets::Remove(std::int64_t set, std::optional<std::int64_t> fd) {
  const auto found = sets_.find(set);
  const bool has_fd = found != sets_.end() &&
                      (!fd || (std::in_range<int>(*fd) && found->second.contains(static_cast<int>(*fd))));
  if (!has_fd) {
    return Refuse(fd ? format("File descriptor named 'fdset-id:{}, fd:{}' not found", set, *fd)
                     : format("File descriptor named 'fdset-id:{}' not found", set));
  }
  if (fd) {
    found->second.erase(static_cast<int>(*fd));
  }
  if (!fd || found->second.empty()) {
    sets_.erase(found);
  }
  return Nothing();
}

Json FdSets::Describe() const {
  Json sets = Json::array();
  for (const auto& [number, entries] : sets_) {
    Json fds = Json::array();
    for (const auto& [raw, entry] : entries) {
      Json fd{{"fd", raw}};
      if (entry.opaque) {
        fd["opaque"] = *entry.opaque;
      }
      fds.push_back(std::move(fd));
    }
    sets.push_back({{"fdset-id", number}, {"fds", std::move(fds)}});
  }
  return sets;
}

int FdSets::Find(std::int64_t set) const {
  const auto found = sets_.find(set);
  return found == sets_.end() ? -1 : found->second.begin()->first;
}

}  // namespace gyre::control
