// Where control sockets listen: what --qmp says, and the listening socket itself.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "gyre/base/unix_listener.h"

namespace gyre::control {

// unix:PATH or unix:@NAME (abstract) or fd:N (a socket that listens already), each with
// ,mode=OCTAL ,owner=USER[:GROUP] ,allow=USER (as often as needed) where it makes sense.
struct SocketSpec {
  std::string path;  // "@..." for an abstract name; empty: fd
  int fd = -1;       // with a path: bound there by an earlier process of ours
  unsigned mode = 0660;
  std::optional<uid_t> owner;
  std::optional<gid_t> group;
  std::vector<uid_t> allowed;  // besides root and gyred's own; empty: what the file's mode says

  // "unix:PATH", for clients and the log.
  std::string Describe() const;
};
// Errors of kind kUsage. Users and groups by number, or by name from /etc/passwd and /etc/group.
Result<SocketSpec> ParseSocketSpec(const std::string& text);

// A listening socket of our making (base's UnixListener) or one that was handed to us.
class ListeningSocket {
 public:
  // Replaces a socket that a dead process has left, and nothing else.
  static Result<ListeningSocket> Open(SocketSpec spec);
  ListeningSocket(ListeningSocket&& other) noexcept = default;
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;
  ~ListeningSocket() = default;

  int fd() const { return listener_ ? listener_->fd() : adopted_.get(); }
  const SocketSpec& spec() const { return spec_; }
  // Non-blocking; -1 with errno.
  UniqueFd Accept() const;
  bool Allows(const Peer& peer) const;

 private:
  explicit ListeningSocket(SocketSpec spec) : spec_(std::move(spec)) {}
  static Result<UniqueFd> Adopt(const SocketSpec& spec);

  SocketSpec spec_;
  std::optional<UnixListener> listener_;  // or
  UniqueFd adopted_;
  std::optional<NameLock> served_;  // says so to whoever looks, of one that was handed to us
  bool abstract_ = false;
};

}  // namespace gyre::control
