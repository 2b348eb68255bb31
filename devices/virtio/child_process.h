// A program that carries a device out, started and ended by us. Big lock held.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::virtio {

// Ended and waited for at the latest with this.
class ChildProcess {
 public:
  static constexpr int kSocket = 3;  // its number in the child

  // `socket` is its only descriptor beside the standard ones, which are /dev/null but for stderr. A program
  // without '/' is looked for in PATH. Errors are of kind kUsage where it cannot be started.
  static Result<std::unique_ptr<ChildProcess>> Start(const std::vector<std::string>& arguments, int socket);
  explicit ChildProcess(pid_t pid);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess() { (void)End(); }

  // Readable when it has ended.
  int pid_fd() const { return pid_fd_.get(); }
  // How it ended, for people; it is ended if it has not by now.
  std::string End();

 private:
  pid_t pid_;
  UniqueFd pid_fd_;
};

}  // namespace gyre::virtio
