// The journal's native protocol: one datagram an entry, of fields
// (systemd's "Native Journal Protocol"). Any thread.
#pragma once

#include <string>
#include <string_view>

#include "gyre/base/unique_fd.h"

namespace gyre::log {

struct JournalEntry {
  char priority = '6';  // syslog's, as a digit
  std::string_view vm = {};
  std::string_view state = {};
  std::string_view message = {};

  // The datagram; empty fields are left out.
  std::string Text() const;
};

class JournalSocket {
 public:
  static constexpr const char* kPath = "/run/systemd/journal/socket";

  explicit JournalSocket(const char* path = kPath);
  explicit operator bool() const { return static_cast<bool>(fd_); }
  // False if the journal did not take it, at once.
  bool Send(const JournalEntry& entry) const;

 private:
  UniqueFd fd_;
};

}  // namespace gyre::log
