// Unix sockets by their names: the address of one, who is at its other end, and a
// listening socket that takes its name safely. Any thread.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <optional>
#include <string>
#include <vector>

#include "gyre/base/name_lock.h"
#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre {

// The longest path, or abstract name with its '@'.
inline constexpr std::size_t kMaxUnixPath = sizeof(sockaddr_un::sun_path) - 1;

// Of a path, or of an abstract name "@NAME"; at most kMaxUnixPath bytes.
class UnixAddress {
 public:
  explicit UnixAddress(const std::string& path);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address_); }
  socklen_t size() const { return size_; }

 private:
  sockaddr_un address_{};
  socklen_t size_ = 0;
};

// Non-blocking, close-on-exec; SOCK_STREAM, or SOCK_SEQPACKET.
Result<UniqueFd> NewUnixSocket(int type = SOCK_STREAM);

// Who is at the other end, as it was when it connected.
struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups = {};  // the supplementary ones

  bool IsIn(gid_t group) const;
};
Result<Peer> PeerOf(int socket);

// A connection, non-blocking; none with errno.
UniqueFd AcceptFrom(int listener);
// Of accept(2): there is no file or no memory for another one. Who has connected waits, and the listener
// stays readable: it is to be left alone for a while.
bool IsShortage(int error);

// A listening socket; the file in the file system goes with the object, if it is still the same. Its name is
// locked as long: of several processes that start on one name, one listens and the others get an error.
class UnixListener {
 public:
  struct Config {
    std::string path;      // or an abstract name
    std::string who;       // for errors, which are of kind kUsage
    unsigned mode = 0660;  // of the file
    std::optional<uid_t> owner = {};
    std::optional<gid_t> group = {};
    int backlog = 64;
    int type = SOCK_STREAM;
  };
  // Replaces a socket that a dead process has left, and nothing else. `bound`: one that an earlier process of
  // ours has bound to that name, and that listens still.
  static Result<UnixListener> Open(const Config& config, UniqueFd bound = {});
  UnixListener(UnixListener&&) noexcept = default;
  UnixListener& operator=(UnixListener&&) = delete;
  UnixListener(const UnixListener&) = delete;
  UnixListener& operator=(const UnixListener&) = delete;
  ~UnixListener();

  int fd() const { return fd_.get(); }

 private:
  UnixListener(std::string path, NameLock lock, UniqueFd fd)
      : path_(std::move(path)), lock_(std::move(lock)), fd_(std::move(fd)) {}

  std::string path_;
  NameLock lock_;  // ends last
  UniqueFd fd_;
  dev_t device_ = 0;  // of the file that we made
  ino_t inode_ = 0;   // 0: none
};

}  // namespace gyre
