// Where control sockets listen: what --qmp says, and the listening socket itself.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "src/control/name_lock.h"

namespace gyre::control {

// unix:PATH or unix:@NAME (abstract) or fd:N (a socket that listens already), each with
// ,mode=OCTAL ,owner=USER[:GROUP] ,allow=USER (as often as needed) where it makes sense.
struct SocketSpec {
  std::string path;  // "@..." for an abstract name; empty: fd
  int fd = -1;
  unsigned mode = 0660;
  std::optional<uid_t> owner;
  std::optional<gid_t> group;
  std::vector<uid_t> allowed;  // besides root and gyred's own; empty: what the file's mode says

  // "unix:PATH", for clients and the log.
  std::string Describe() const;
};
// Errors of kind kUsage. Users and groups by number, or by name from /etc/passwd and /etc/group.
Result<SocketSpec> ParseSocketSpec(const std::string& text);

// Who is at the other end.
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
};
Result<Peer> PeerOf(int socket);

// A listening socket; the file in the file system goes with the object, if it is still the same. Its name is
// locked as long: of several processes that start on one name, one listens and the others get an error.
class ListeningSocket {
 public:
  // Replaces a socket that a dead process has left, and nothing else.
  static Result<ListeningSocket> Open(SocketSpec spec);
  ListeningSocket(ListeningSocket&& other) noexcept = default;
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;
  ~ListeningSocket();

  int fd() const { return fd_.get(); }
  const SocketSpec& spec() const { return spec_; }
  // Non-blocking; -1 with errno.
  UniqueFd Accept() const;
  bool Allows(const Peer& peer) const;

 private:
  ListeningSocket(SocketSpec spec, NameLock lock, UniqueFd fd)
      : spec_(std::move(spec)), lock_(std::move(lock)), fd_(std::move(fd)) {}
  static Result<UniqueFd> Bind(const SocketSpec& spec);
  static Result<UniqueFd> Adopt(const SocketSpec& spec);
  Status NoteName();

  SocketSpec spec_;
  NameLock lock_;  // ends last
  UniqueFd fd_;
  dev_t device_ = 0;  // of the file that we made
  ino_t inode_ = 0;   // 0: none
  bool abstract_ = false;
};

}  // namespace gyre::control
