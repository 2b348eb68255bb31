// Assertions for our own invariants. Never use one on a value that a guest, an
// image or a control client can influence: those get an Error or a counter.
#pragma once

namespace gyre {

// Prints the failed condition with its location to stderr and aborts.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

}  // namespace gyre

#define CHECK(condition)                                   \
  do {                                                     \
    if (!(condition)) [[unlikely]] {                       \
      ::gyre::CheckFailed(#condition, __FILE__, __LINE__); \
    }                                                      \
  } while (false)
