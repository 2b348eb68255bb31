#include "gyre/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace gyre {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "gyre: internal error: %s does not hold at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace gyre
