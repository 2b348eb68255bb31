// How gyrectl fails: an exit status (gyrectl(1)) and one line for people. Any thread.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

#include "gyre/base/result.h"

namespace gyre::ctl {

enum class Exit : std::uint8_t {
  kOk = 0,
  kRefused = 1,       // the server answered with an error, or the host did
  kUsage = 2,         // how we were called
  kNoConnection = 3,  // nobody listens there
  kTimeout = 4,       // the time was up
  kBroken = 5,        // the server hung up, or does not speak QMP
  kOwn = 255,         // each of these, where the status is a command's
};

struct [[nodiscard]] Failure {
  Exit exit = Exit::kRefused;
  std::string message;
  bool absent = false;  // there is no server, or no longer
};

template <typename T>
using Outcome = std::expected<T, Failure>;

inline std::unexpected<Failure> Fail(Exit exit, std::string message) {
  return std::unexpected(Failure{.exit = exit, .message = std::move(message)});
}
inline std::unexpected<Failure> Absent(Exit exit, std::string message) {
  return std::unexpected(Failure{.exit = exit, .message = std::move(message), .absent = true});
}

}  // namespace gyre::ctl
