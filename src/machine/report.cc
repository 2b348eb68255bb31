#include "src/machine/report.h"

#include <array>
#include <string_view>

#include "gyre/base/cycles.h"
#include "gyre/base/format.h"
#include "gyre/base/histogram.h"

namespace gyre::machine {
namespace {

constexpr double kNsPerUs = 1000;

double Us(std::int64_t ns) { return static_cast<double>(ns) / kNsPerUs; }

// Of a histogram of cycles; the percentiles are powers of two.
std::string Times(const HistogramCounts& counts) {
  const auto us = [](std::uint64_t cycles) { return Us(static_cast<std::int64_t>(CyclesToNs(cycles))); };
  return format("half below {:.1f} us, 99% below {:.1f} us, longest {:.1f} us", us(Percentile(counts, 50)),
                us(Percentile(counts, 99)), us(counts.most));
}

constexpr std::array<std::string_view, loop::kSourceKinds> kSources{"bottom halves", "ready sources",
                                                                    "timers", "notifiers"};

}  // namespace

std::string ReportState(RunState state) { return format("state: {}\n", Name(state)); }

std::string ReportBigLock(const BigLock::Stats& stats) {
  std::string text =
      format("big lock: taken {} times, {} of them after a wait\n", stats.acquired, stats.contended);
  if (stats.contended != 0) {
    text += format("  waits: {}\n", Times(stats.waits));
  }
  if (stats.holds.count != 0) {
    text += format("  holds: {}\n", Times(stats.holds));
  }
  return text;
}

std::string ReportLoop(std::string_view name, const loop::LoopStats& stats) {
  std::string text = format("{}: {} iterations, {} sleeps, {} wake-ups, {} operations\n", name,
                            stats.iterations, stats.waits, stats.wakeups, stats.operations);
  for (std::size_t kind = 0; kind < kSources.size(); ++kind) {
    const auto& calls = stats.calls.at(kind);
    if (calls.calls != 0) {
      text += format("  {}: {} calls, {:.1f} us\n", kSources.at(kind), calls.calls, Us(calls.time_ns));
    }
  }
  return text + format("  slowest: {:.1f} us, of the {}; {} too slow\n", Us(stats.slowest_ns),
                       kSources.at(static_cast<std::size_t>(stats.slowest)), stats.slow_calls);
}

std::string ReportIoThreads(const IoThreads& threads) {
  std::string text;
  for (const auto& [config, thread] : threads.all()) {
    text += ReportLoop(format("I/O thread {}", config.id), thread->loop().stats());
  }
  return text;
}

std::string ReportVcpus(const kvm::Vcpus& vcpus) {
  std::string text;
  for (std::uint32_t i = 0; i < vcpus.count(); ++i) {
    const auto exits = vcpus.counters(VcpuIndex(i));
    text += format(
        "vCPU {}: exits: {} pio, {} mmio, {} halt, {} interrupted, {} ioapic-eoi, {} dirty-ring-full, {} "
        "other\n",
        i, exits.pio, exits.mmio, exits.halt, exits.interrupted, exits.ioapic_eoi, exits.dirty_ring_full,
        exits.other);
  }
  return text;
}

std::string ReportSpace(const memory::AddressSpace& space, const memory::Annotate& annotate) {
  const auto counters = space.counters();
  return format(
      "address space {}: {} unassigned reads, {} unassigned writes, {} writes to read-only memory, {} "
      "refused\n{}"
      "flat view:\n{}",
      space.name(), counters.unassigned_reads, counters.unassigned_writes, counters.readonly_writes,
      counters.refused, memory::DumpTree(*space.root()), memory::DumpFlatView(*space.view(), annotate));
}

}  // namespace gyre::machine
