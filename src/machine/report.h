// What a running VM has done so far and how its memory is laid out, as text for
// people (SIGUSR2). Main loop's thread, big lock held.
#pragma once

#include <string>
#include <string_view>

#include "gyre/base/big_lock.h"
#include "gyre/kvm/vcpus.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/dump.h"
#include "src/machine/io_threads.h"
#include "src/machine/run_state.h"

namespace gyre::machine {

// "state: running", a line.
std::string ReportState(RunState state);
// How often it was taken and waited for, and percentiles of the times.
std::string ReportBigLock(const BigLock::Stats& stats);
std::string ReportLoop(std::string_view name, const loop::LoopStats& stats);
std::string ReportIoThreads(const IoThreads& threads);
// A line each vCPU: exits by reason.
std::string ReportVcpus(const kvm::Vcpus& vcpus);
// What accesses met, the region tree, and the flat view.
std::string ReportSpace(const memory::AddressSpace& space, const memory::Annotate& annotate = {});

}  // namespace gyre::machine
