// deny_syscall NAME ERRNO PROGRAM [ARGUMENT...]: runs a program to whom the kernel
// answers a system call with an error, as a seccomp sandbox would.
#include <seccomp.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: deny_syscall NAME ERRNO PROGRAM [ARGUMENT...]\n");
    return 126;
  }
  const int number = ::seccomp_syscall_resolve_name(argv[1]);
  const auto error = static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 10));
  scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
  if (filter == nullptr || ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(error & 0xffff), number, 0) != 0 ||
      ::seccomp_load(filter) != 0) {
    std::fprintf(stderr, "deny_syscall: cannot forbid %s\n", argv[1]);
    return 126;
  }
  ::execv(argv[3], argv + 3);
  std::perror(argv[3]);
  return 127;
}
