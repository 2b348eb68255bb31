#include <utility>

#include "gyre/devices/platform/legacy.h"
#include "gyre/loop/clock.h"

namespace gyre::devices {
namespace {

constexpr std::size_t kMaxMarks = 256;

}  // namespace

ExitPort::ExitPort(std::move_only_function<void(int status)> request_exit)
    : request_exit_(std::move(request_exit)) {}

std::uint64_t ExitPort::Read(std::uint64_t /*offset*/, unsigned /*size*/) { return 0; }

void ExitPort::Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t value) {
  request_exit_(static_cast<int>(((value << 1) | 1) & 0x7fffffff));
}

std::uint64_t BootMarkPort::Read(std::uint64_t /*offset*/, unsigned /*size*/) { return 0xff; }

void BootMarkPort::Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t value) {
  if (marks_.size() < kMaxMarks) {
    marks_.push_back(
        {.code = static_cast<std::uint8_t>(value), .monotonic_ns = loop::KernelTime().MonotonicNs()});
  }
}

}  // namespace gyre::devices
