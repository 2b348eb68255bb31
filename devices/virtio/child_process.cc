#include "devices/virtio/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "gyre/base/format.h"
#include "gyre/base/open_files.h"

namespace gyre::virtio {
namespace {

constexpr int kEndTimeoutMs = 1000;  // from SIGTERM to SIGKILL

}  // namespace

Result<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::vector<std::string>& arguments,
                                                          int socket) {
  std::vector<char*> words;
  for (const std::string& argument : arguments) {
    words.push_back(const_cast<char*>(argument.c_str()));  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  }
  words.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
  posix_spawn_file_actions_adddup2(&files, 0, 1);
  posix_spawn_file_actions_adddup2(&files, socket, kSocket);
  posix_spawn_file_actions_addclosefrom_np(&files, kSocket + 1);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t pid = -1;
  const int error = [&] {
    const OpenFileLimitForChildren limit;
    return ::posix_spawnp(&pid, words.front(), &files, &attributes, words.data(), environ);
  }();
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return Fail(Error::Sys(arguments.front(), error, ErrorKind::kUsage));
  }
  auto child = std::make_unique<ChildProcess>(pid);
  if (!child->pid_fd_) {
    return Fail(Error::Sys("pidfd_open", errno));
  }
  return child;
}

ChildProcess::ChildProcess(pid_t pid)
    : pid_(pid), pid_fd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}

std::string ChildProcess::End() {
  if (pid_ < 0) {
    return {};
  }
  ::kill(pid_, SIGTERM);
  pollfd ended{.fd = pid_fd_.get(), .events = POLLIN, .revents = 0};
  if (!pid_fd_ || ::poll(&ended, 1, kEndTimeoutMs) != 1) {
    ::kill(pid_, SIGKILL);
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? format("by signal {}", WTERMSIG(status))
                             : format("with status {}", WEXITSTATUS(status));
}

}  // namespace gyre::virtio
