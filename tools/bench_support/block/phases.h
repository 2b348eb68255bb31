// The phases that a peer of `tools/bench block` is told to do: MILLION_CYCLES,OP:SIZE:DEPTH:QUEUES,...
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "tools/bench_support/block/phase.h"

namespace gyre::bench {

// From behind the next `what`, or the text's end.
inline const char* After(const char* text, char what) {
  const char* const found = std::strchr(text, what);
  return found == nullptr ? text + std::strlen(text) : found + 1;
}

inline unsigned NumberAfter(const char*& text, char what) {
  text = After(text, what);
  return static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

// Calls run(phase, cycles) for each; the program's exit status.
template <typename Run>
int ForEachPhase(const char* phases, const Run& run) {
  const std::uint64_t cycles = std::strtoull(phases, nullptr, 10) * 1'000'000;
  for (const char* text = After(phases, ','); *text != 0; text = After(text, ',')) {
    const std::string_view op(text);
    Phase phase{.write = op.starts_with("randwrite") || op.starts_with("write"),
                .random = op.starts_with("rand")};
    const char* at = text;
    phase.size = NumberAfter(at, ':');
    phase.depth = NumberAfter(at, ':');
    phase.queues = NumberAfter(at, ':');
    if (phase.size == 0 || phase.size > kMaxSize || phase.depth == 0 || phase.depth > kMaxDepth ||
        phase.queues == 0 || phase.queues > kMaxQueues) {
      std::fputs("a phase that it cannot do\n", stderr);
      return 2;
    }
    run(phase, cycles);
  }
  return 0;
}

}  // namespace gyre::bench
