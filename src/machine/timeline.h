// When each step of a start was done, for --boot-timeline. Main loop's thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gyre::machine {

class Timeline {
 public:
  // Takes the process's start to be now less the CPU time it has used: exec
  // itself leaves no finer trace.
  Timeline();

  void Mark(std::string_view name);
  // CLOCK_MONOTONIC nanoseconds; ignored if 0 (it has not happened).
  void MarkAt(std::string name, std::int64_t monotonic_ns);
  // A table of microseconds since exec, in order of time.
  std::string Table() const;

 private:
  struct Entry {
    std::string name;
    std::int64_t monotonic_ns;
  };
  std::int64_t exec_ns_;
  std::vector<Entry> entries_;  // in order of time
};

}  // namespace gyre::machine
