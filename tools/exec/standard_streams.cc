#include "tools/exec/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

namespace gyre::exec {

void FillStandardStreams() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDONLY | O_NOCTTY);  // the lowest that is free
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd > STDERR_FILENO) {
    ::close(fd);
  }
}

}  // namespace gyre::exec
