#include "gyre/base/histogram.h"

namespace gyre {

std::uint64_t Percentile(const HistogramCounts& counts, unsigned percent) {
  std::uint64_t below = 0;
  for (std::size_t bits = 0; bits < counts.buckets.size(); ++bits) {
    below += counts.buckets[bits];
    if (below != 0 && below * 100 >= counts.count * percent) {
      return bits < 64 ? std::uint64_t{1} << bits : UINT64_MAX;
    }
  }
  return 0;
}

}  // namespace gyre
