// Errors as values. A host or configuration mistake becomes an Error that says
// what was tried, on what, and why it failed; it is printed once, at the top.
// Any thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace gyre {

// Whose mistake it is; decides the exit status (see gyred(8)).
enum class ErrorKind : std::uint8_t {
  kUsage,  // an option, a file or an image that we were given: exit status 2
  kHost,   // the host refused something it should have been able to do: 1
};

class [[nodiscard]] Error {
 public:
  Error(ErrorKind kind, std::string message, int sys_errno = 0)
      : kind_(kind), errno_(sys_errno), message_(std::move(message)) {}

  static Error Usage(std::string message) { return {ErrorKind::kUsage, std::move(message)}; }
  static Error Host(std::string message) { return {ErrorKind::kHost, std::move(message)}; }
  // `operation` failed with `sys_errno`: "operation: No such file or directory".
  static Error Sys(std::string_view operation, int sys_errno, ErrorKind kind = ErrorKind::kHost);

  // Puts "context: " in front of the message.
  Error&& Within(std::string_view context) &&;

  ErrorKind kind() const { return kind_; }
  int sys_errno() const { return errno_; }
  const std::string& message() const { return message_; }

 private:
  ErrorKind kind_;
  int errno_;
  std::string message_;
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

inline std::unexpected<Error> Fail(Error error) { return std::unexpected(std::move(error)); }

}  // namespace gyre

#define GYRE_CONCAT_INNER(a, b) a##b
#define GYRE_CONCAT(a, b) GYRE_CONCAT_INNER(a, b)
#define GYRE_TRY(name, ...)                            \
  __extension__({                                      \
    auto name = (__VA_ARGS__);                         \
    if (!name) [[unlikely]] {                          \
      return std::unexpected(std::move(name).error()); \
    }                                                  \
    *std::move(name);                                  \
  })
// The value of a Result, or an early return of its Error from this function. Not behind what owns something
// in the same expression (within braces, as an argument of new): compilers destroy nothing of that on the
// return.
#define TRY(...) GYRE_TRY(GYRE_CONCAT(gyre_try_, __COUNTER__), __VA_ARGS__)
