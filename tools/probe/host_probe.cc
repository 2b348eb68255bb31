// host_probe: can this host's KVM run a stock kernel? Found by trying, in a fifth of a second at most: some
// hosts' KVM interprets a guest's ring 0, thousands of times slower than hardware and without instructions
// that kernels need. Prints one line of facts. Exit status: 0 it can, 3 it cannot, 4 no usable /dev/kvm.
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/base/mapping.h"
#include "gyre/base/unique_fd.h"
#include "tools/probe/probe_guest.h"

namespace gyre::probe {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kCan = 0;
constexpr int kCannot = 3;
constexpr int kNoKvm = 4;
constexpr long kBoundNanoseconds = 200'000'000;
constexpr std::uint32_t kMaxCpuidEntries = 256;

volatile std::uint8_t* g_immediate_exit = nullptr;  // the run area's field, for the signal handler

void OnTimer(int /*signal*/) { *g_immediate_exit = 1; }

struct Machine {
  UniqueFd kvm, vm, vcpu;
  Mapping memory, run_area;
  // Page-aligned, as mmap(2) gives it.
  kvm_run* run() const {
    return static_cast<kvm_run*>(
        static_cast<void*>(run_area.data()));  // NOLINT(bugprone-casting-through-void)
  }
};

struct Outcome {
  Progress progress = Progress::kNothing;
  double loop_seconds = 0;
  bool timed_out = false;
  std::uint32_t exit_reason = 0;
};

int Say(const std::string& line, int status) {
  std::puts(line.c_str());
  return status;
}

int NoKvm(const char* what) {
  const int error = errno;
  return Say(gyre::format("no usable KVM: {}: {}", what, std::strerror(error)), kNoKvm);
}

void Put64(const Machine& machine, std::uint64_t address, std::uint64_t value) {
  std::memcpy(machine.memory.data() + address, &value, sizeof(value));
}

void WriteGate(const Machine& machine, unsigned vector) {
  const std::uint64_t handler = GateAddress(vector);
  const std::uint64_t ring3_interrupt_gate = 0xee00;
  Put64(machine, kIdt + std::uint64_t{vector} * 16,
        (handler & 0xffff) | std::uint64_t{kKernelCs} << 16 | ring3_interrupt_gate << 32 |
            (handler >> 16 & 0xffff) << 48);
  Put64(machine, kIdt + std::uint64_t{vector} * 16 + 8, handler >> 32);
}

void LayOutMemory(const Machine& machine) {
  const std::uint64_t present_write_user = 7;
  const std::uint64_t large = 0x80;
  Put64(machine, kPml4, kPdpt | present_write_user);
  Put64(machine, kPdpt, kPageDirectory | present_write_user);
  Put64(machine, kPageDirectory, large | present_write_user);
  const std::array<std::uint64_t, 7> gdt = {
      0,
      0x00af9b000000ffff,  // ring-0 code, 64-bit
      0x00cf93000000ffff,  // ring-0 data
      0x00cff3000000ffff,  // ring-3 data
      0x00affb000000ffff,  // ring-3 code, 64-bit
      0x0000890000000067 | (kTss & 0xffffff) << 16,
      0,
  };
  for (std::size_t i = 0; i < gdt.size(); ++i) {
    Put64(machine, kGdt + i * 8, gdt.at(i));
  }
  WriteGate(machine, 3);
  WriteGate(machine, 0x80);
  Put64(machine, kTss + 4, kStack);  // RSP0
  const auto code = GuestCode();
  std::memcpy(machine.memory.data() + kCode, code.data(), code.size());
}

bool SetCpuid(const Machine& machine) {
  // <linux/kvm.h>'s kvm_cpuid2 is 8 bytes and its entries in C, but 12 in C++, where its empty struct has a
  // size; the ioctls' numbers hold the size. So both are spelled out here.
  constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
  constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
  std::vector<kvm_cpuid_entry2> header_and_entries(kMaxCpuidEntries + 1);
  std::memcpy(header_and_entries.data(), &kMaxCpuidEntries, sizeof(kMaxCpuidEntries));
  return ioctl(machine.kvm.get(), kGetSupportedCpuid, header_and_entries.data()) == 0 &&
         ioctl(machine.vcpu.get(), kSetCpuid2, header_and_entries.data()) == 0;
}

bool SetRegisters(const Machine& machine) {
  kvm_sregs sregs{};
  if (ioctl(machine.vcpu.get(), KVM_GET_SREGS, &sregs) != 0) {
    return false;
  }
  kvm_segment code{};
  code.limit = 0xffffffff;
  code.selector = kKernelCs;
  code.type = 11;
  code.present = 1;
  code.s = 1;
  code.l = 1;
  code.g = 1;
  kvm_segment data = code;
  data.selector = kKernelDs;
  data.type = 3;
  data.l = 0;
  data.db = 1;
  sregs.cs = code;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.gdt = {.base = kGdt, .limit = 0x37, .padding = {}};
  sregs.cr0 = 0x80010033;  // PG, WP, NE, ET, MP, PE
  sregs.cr3 = kPml4;
  sregs.cr4 = 0x620;   // OSXMMEXCPT, OSFXSR, PAE
  sregs.efer = 0x501;  // LMA, LME, SCE
  kvm_regs regs{};
  regs.rip = kCode;
  regs.rsp = kStack;
  regs.rflags = 2;
  return ioctl(machine.vcpu.get(), KVM_SET_SREGS, &sregs) == 0 &&
         ioctl(machine.vcpu.get(), KVM_SET_REGS, &regs) == 0;
}

// What failed, or nullptr; errno has the reason.
const char* CreateMachine(Machine& machine) {
  machine.kvm = UniqueFd(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!machine.kvm) {
    return "/dev/kvm";
  }
  machine.vm = UniqueFd(ioctl(machine.kvm.get(), KVM_CREATE_VM, 0));
  if (!machine.vm) {
    return "KVM_CREATE_VM";
  }
  auto memory = Mapping::Anonymous(kMemory);
  if (!memory) {
    return "guest memory";
  }
  machine.memory = std::move(*memory);
  LayOutMemory(machine);
  kvm_userspace_memory_region region{};
  region.memory_size = kMemory;
  region.userspace_addr = reinterpret_cast<std::uint64_t>(machine.memory.data());
  if (ioctl(machine.vm.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
    return "KVM_SET_USER_MEMORY_REGION";
  }
  machine.vcpu = UniqueFd(ioctl(machine.vm.get(), KVM_CREATE_VCPU, 0));
  if (!machine.vcpu) {
    return "KVM_CREATE_VCPU";
  }
  const int run_size = ioctl(machine.kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  auto run_area = run_size > 0 ? Mapping::File(machine.vcpu.get(), 0, static_cast<std::size_t>(run_size),
                                               PROT_READ | PROT_WRITE, MAP_SHARED)
                               : Result<Mapping>(Mapping());
  if (!run_area || !*run_area) {
    return "the vCPU's run area";
  }
  machine.run_area = std::move(*run_area);
  return SetCpuid(machine) && SetRegisters(machine) ? nullptr : "the vCPU's registers";
}

bool StartTimer(kvm_run* run) {
  g_immediate_exit = &run->immediate_exit;
  struct sigaction action = {};
  action.sa_handler = OnTimer;
  sigaction(SIGALRM, &action, nullptr);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGALRM;
  timer_t timer = nullptr;
  itimerspec bound{};
  bound.it_value.tv_nsec = kBoundNanoseconds;
  return timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &bound, nullptr) == 0;
}

Outcome RunGuest(const Machine& machine) {
  Outcome outcome;
  kvm_run* run = machine.run();
  const auto start = Clock::now();
  while (outcome.progress != kLastProgress) {
    if (ioctl(machine.vcpu.get(), KVM_RUN, 0) != 0) {
      outcome.timed_out = errno == EINTR && run->immediate_exit != 0;
      outcome.exit_reason = KVM_EXIT_UNKNOWN;
      if (outcome.timed_out || errno != EINTR) {
        return outcome;
      }
      continue;
    }
    outcome.exit_reason = run->exit_reason;
    if (run->exit_reason != KVM_EXIT_IO || run->io.port != kProgressPort || run->io.size != 1) {
      return outcome;
    }
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(run) + run->io.data_offset;
    outcome.progress = static_cast<Progress>(*bytes);
    if (outcome.progress == Progress::kLoop) {
      outcome.loop_seconds = std::chrono::duration<double>(Clock::now() - start).count();
    }
  }
  return outcome;
}

const char* ExitName(std::uint32_t reason) {
  switch (reason) {
    case KVM_EXIT_HLT:
      return "a wrong result";
    case KVM_EXIT_SHUTDOWN:
      return "a triple fault";
    case KVM_EXIT_INTERNAL_ERROR:
      return "an instruction that it cannot emulate";
    case KVM_EXIT_FAIL_ENTRY:
      return "a refused entry";
    default:
      return "an unexpected exit";
  }
}

int Report(const Outcome& outcome) {
  constexpr double kMillions = static_cast<double>(kLoopInstructions) / 1e6;
  if (outcome.timed_out && outcome.progress == Progress::kNothing) {
    return Say(gyre::format(
                   "the host's KVM runs a guest's ring 0 at less than {:.0f} million instructions a second: "
                   "an interpreter",
                   kMillions / (static_cast<double>(kBoundNanoseconds) / 1e9)),
               kCannot);
  }
  if (outcome.progress != kLastProgress) {
    const auto failed = static_cast<Progress>(static_cast<std::uint8_t>(outcome.progress) + 1);
    return Say(gyre::format("the host's KVM fails at a guest's {}: {}", GroupName(failed),
                            outcome.timed_out ? "no end" : ExitName(outcome.exit_reason)),
               kCannot);
  }
  return Say(gyre::format("the host's KVM runs a guest's ring 0 at {:.0f} million instructions a second, "
                          "with all that kernels need",
                          kMillions / outcome.loop_seconds),
             kCan);
}

int Main() {
  Machine machine;
  if (const char* failed = CreateMachine(machine); failed != nullptr) {
    return NoKvm(failed);
  }
  if (!StartTimer(machine.run())) {
    return NoKvm("a timer");
  }
  return Report(RunGuest(machine));
}

}  // namespace
}  // namespace gyre::probe

int main() { return gyre::probe::Main(); }
