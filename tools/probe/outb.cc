// outb PORT VALUE: writes a byte to an I/O port. The kernels of our guests and of the nested machine have no
// /dev/port, and their exit ports must be reached from a shell script.
#include <sys/io.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: outb PORT VALUE\n", stderr);
    return 2;
  }
  const auto port = static_cast<unsigned short>(std::strtoul(argv[1], nullptr, 0));
  const auto value = static_cast<unsigned char>(std::strtoul(argv[2], nullptr, 0));
  if (ioperm(port, 1, 1) != 0) {
    std::perror("outb: ioperm");
    return 1;
  }
  outb(value, port);
  return 0;
}
