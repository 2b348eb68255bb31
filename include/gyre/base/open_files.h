// How many files this process may have open at a time (RLIMIT_NOFILE). Any thread, but for what says
// otherwise.
#pragma once

namespace gyre {

// As many as the hard limit allows: clients, connections and their descriptors are files, and the usual soft
// limit is for programs that call select(2). Once, at the start; where it cannot be, all stays as it is.
void RaiseOpenFileLimit();

// Makes the kernel's table of this process's files large enough for what most machines and their clients
// open. It grows by itself, but in a process with several threads each time after a grace period (15 ms on
// some hosts), for which whoever opens a file waits. So: before there is a second thread, and after the limit
// is raised.
void MakeRoomForFiles();

// While it lives the soft limit is the one that this process was started with: for programs that are started
// meanwhile. What is open stays open. One at a time.
class OpenFileLimitForChildren {
 public:
  OpenFileLimitForChildren();
  OpenFileLimitForChildren(const OpenFileLimitForChildren&) = delete;
  OpenFileLimitForChildren& operator=(const OpenFileLimitForChildren&) = delete;
  ~OpenFileLimitForChildren();
};

// Of a descriptor that has just been made: it is one of the last few that there are, which are for this
// process's own work and not for whoever brings more and more. The kernel gives the lowest number that is
// free.
bool IsOfTheLastFiles(int fd);

}  // namespace gyre
