// What the machine does when guest RAM is no more what it was: a file cut short, a
// full file system, a hardware memory error. The VM stops, with its block and
// offset in the log; the process stays, to be asked and reset.
#include <algorithm>

#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "src/machine/machine.h"

namespace gyre::machine {

std::string Machine::Describe(const BusError& error) const {
  const auto blocks = memory_space_.topology().dirty().blocks();
  const auto block = std::ranges::find(blocks, error.memory, [](const auto& each) { return each->host(); });
  return block == blocks.end() ? "a bus error on guest memory"
                               : (*block)->DescribeFailure(error.offset, error.hardware);
}

std::string Machine::Describe(const kvm::VcpuEvent& failure) const {
  const auto view = memory_space_.view();
  const memory::FlatRange* range = nullptr;
  std::optional<std::uint64_t> offset;
  if (failure.address) {
    range = view->Find(failure.address->value());
  }
  auto block = range != nullptr ? range->region->ram() : nullptr;
  if (block != nullptr) {
    offset = range->region_offset + (failure.address->value() - range->start);
  } else if (!ram_.ranges().empty()) {
    block = ram_.ranges().front().block;
  }
  return format("{}: {}", failure.detail,
                block != nullptr ? block->DescribeFailure(offset, failure.hardware) : "no memory");
}

void Machine::ServeBusErrors() {
  bool used = false;
  for (const BusError& error : bus_errors_->Take()) {
    used = used || error.used;
    MemoryFailed(Describe(error), error.hardware, error.used);
  }
  // One that found no room: no vCPU goes on, and nobody else would say why.
  if (!used && bus_errors_->lost()) {
    MemoryFailed("a bus error on guest memory", false, true);
  }
}

std::optional<BusError> Machine::TakeFatalBusError() {
  std::optional<BusError> fatal;
  for (const BusError& error : bus_errors_->Take()) {
    if (error.hardware) {
      events_.Emit(MemoryFailureEvent{.action_required = error.used});
    }
    if (!error.used) {
      log::Warning("{}: not used yet; the guest goes on", Describe(error));
    } else if (!fatal) {
      fatal = error;
    }
  }
  return fatal;
}

// A guest whose memory is cut off under it falls over in ways that say nothing of
// that: KVM may see no page tables, no code, no stack.
bool Machine::ServeLostFile() {
  const auto& ranges = ram_.ranges();
  const auto lost = std::ranges::find_if(
      ranges, [](const memory::GuestRam::Range& range) { return range.block->truncated(); });
  if (lost == ranges.end()) {
    return false;
  }
  MemoryFailed(lost->block->DescribeFailure(std::nullopt, false), false, true);
  return true;
}

void Machine::MemoryFailed(const std::string& what, bool hardware, bool used) {
  if (hardware) {
    events_.Emit(MemoryFailureEvent{.action_required = used});
  }
  if (!used) {
    log::Warning("{}: not used yet; the guest goes on", what);
    return;
  }
  // A second one says nothing more: each vCPU may meet it.
  if (lifecycle_.state() == RunState::kInternalError) {
    return;
  }
  log::Error("{}", what);
  lifecycle_.GuestCrashed();
}

}  // namespace gyre::machine
