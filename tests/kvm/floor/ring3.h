// vCPUs that begin in ring 3, where guest code runs natively on every host: set up
// by their registers, without a line of ring-0 code. They have no interrupts, no
// ports and no system calls; what they have to say they write to memory.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>
#include <span>

#include "floor_fixture.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {

class RingThreeTest : public FloorTest {
 protected:
  // The first GiB, one to one, for ring 3.
  std::uint64_t MakeUserPageTables() const {
    constexpr std::uint64_t kUser = 7;
    SetRam<std::uint64_t>(0x1'0000, 0x1'1000 | kUser);
    SetRam<std::uint64_t>(0x1'1000, 0x1'2000 | kUser);
    for (std::uint64_t i = 0; i < 512; ++i) {
      SetRam<std::uint64_t>(0x1'2000 + (8 * i), (i << 21) | 0x80 | kUser);
    }
    return 0x1'0000;
  }

  // Every vCPU at `code`, with its index in RDI; all are paused.
  void RunAll(unsigned count, std::span<const std::byte> code) {
    Load(kCode, code);
    EntryState entry = Flat32();
    entry.mode = EntryState::Mode::kLong64;
    entry.cr3 = MakeUserPageTables();
    const Status status = vcpus->ResetAll(entry);
    ASSERT_TRUE(status) << status.error().message();
    kvm_sregs sregs{};
    ASSERT_EQ(::ioctl(vcpus->fd(VcpuIndex(0)), KVM_GET_SREGS, &sregs), 0);
    for (kvm_segment* segment : {&sregs.cs, &sregs.ss, &sregs.ds, &sregs.es}) {
      segment->dpl = 3;
      segment->selector = segment == &sregs.cs ? 0x33 : 0x2b;
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      const int fd = vcpus->fd(VcpuIndex(i));
      kvm_sregs own{};
      ASSERT_EQ(::ioctl(fd, KVM_GET_SREGS, &own), 0);
      sregs.apic_base = own.apic_base;
      kvm_regs regs{};
      regs.rip = kCode;
      regs.rsp = 0xe000 - (0x400 * i);
      regs.rdi = i;
      regs.rflags = 2;
      kvm_mp_state runnable{.mp_state = KVM_MP_STATE_RUNNABLE};
      ASSERT_EQ(::ioctl(fd, KVM_SET_SREGS, &sregs), 0);
      ASSERT_EQ(::ioctl(fd, KVM_SET_REGS, &regs), 0);
      ASSERT_EQ(::ioctl(fd, KVM_SET_MP_STATE, &runnable), 0);
    }
    vcpus->ResumeAll();
  }

  // The big lock to others for a moment, as the main loop's wait gives it.
  void GiveTurn() NO_THREAD_SAFETY_ANALYSIS {
    big_lock.Unlock();
    big_lock.Lock();
  }

  // True if that becomes so in time; others have the big lock meanwhile.
  template <typename Condition>
  bool AwaitThat(const Condition& holds) NO_THREAD_SAFETY_ANALYSIS {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(4 * kWaitMs);
    bool is = holds();
    while (!is && std::chrono::steady_clock::now() < deadline) {
      big_lock.Unlock();
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      big_lock.Lock();
      is = holds();
    }
    return is;
  }
};

}  // namespace gyre::kvm
