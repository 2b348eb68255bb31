// vCPU threads against a real /dev/kvm: pause, resume, reset, work, several vCPUs.
#include <sys/ioctl.h>

#include <array>
#include <string>
#include <tuple>

#include "floor_fixture.h"
#include "kvm/kvm_api.h"

GUEST_CODE(change_state, 32, R"(
  movl $0x12345678, %ebx
  movl $0x176, %ecx
  movl $0xabcd, %eax
  xorl %edx, %edx
  wrmsr
  movl $0x1ff, 0xfee000f0
  incl 0x5000
  movb $7, %al
)" DONE)
GUEST_CODE(input_then_use, 32, R"(
  movw $0x120, %dx
  inb %dx, %al
  movzbl %al, %ebx
1: jmp 1b
)")
GUEST_CODE(start_other, 32, R"(
  movl $0x01000000, 0xfee00310
  movl $0x00004500, 0xfee00300
  movl $0x01000000, 0xfee00310
  movl $0x00004606, 0xfee00300
1: cli
  hlt
  jmp 1b
)")
GUEST_CODE(other_real_mode, 16, "movb $0x42, %al\n" DONE)
GUEST_CODE(start_other_and_call, 32, R"(
  movl $0x01000000, 0xfee00310
  movl $0x00004500, 0xfee00300
  movl $0x01000000, 0xfee00310
  movl $0x00004606, 0xfee00300
  movl $20, %ecx
1: outb %al, $0x80
  loop 1b
)" DONE)
GUEST_CODE(other_calls, 16, "movw $20, %cx\n1: outb %al, $0x80\nloop 1b\n" DONE)

namespace gyre::kvm {
namespace {

std::uint64_t ClockNs(const Vm& vm) {
  kvm_clock_data data{};
  EXPECT_EQ(::ioctl(vm.fd(), KVM_GET_CLOCK, &data), 0);
  return data.clock;
}

TEST_F(FloorTest, ClockStopped_StandsUntilItIsStarted) {
  using std::chrono::steady_clock;
  Start();
  ASSERT_TRUE(vm->StartClock());
  const auto began = steady_clock::now();
  const std::uint64_t before = ClockNs(*vm);
  ASSERT_TRUE(vm->StopClock());
  const auto stood = steady_clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const auto goes_on = steady_clock::now();
  ASSERT_TRUE(vm->StartClock());
  const std::uint64_t after = ClockNs(*vm);
  const auto ran = (steady_clock::now() - began) - (goes_on - stood);
  EXPECT_GE(after, before);
  EXPECT_LE(after - before, static_cast<std::uint64_t>(std::chrono::nanoseconds(ran).count()));
}

TEST_F(FloorTest, ClockReset_CountsFromZeroWhetherItStandsOrRuns) {
  using std::chrono::steady_clock;
  Start();
  ASSERT_TRUE(vm->StartClock());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  auto reset = steady_clock::now();
  ASSERT_TRUE(vm->ResetClock());
  EXPECT_LE(ClockNs(*vm),
            static_cast<std::uint64_t>(std::chrono::nanoseconds(steady_clock::now() - reset).count()));
  ASSERT_TRUE(vm->StopClock());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ASSERT_TRUE(vm->ResetClock());
  reset = steady_clock::now();
  ASSERT_TRUE(vm->StartClock());
  EXPECT_LE(ClockNs(*vm),
            static_cast<std::uint64_t>(std::chrono::nanoseconds(steady_clock::now() - reset).count()));
}

TEST_F(FloorTest, PauseAndResume_WhileSpinning_NoKickIsLost) {
  Start();
  Run(GuestCode_spin());
  for (int i = 0; i < 3000; ++i) {
    vcpus->PauseAll();
    ASSERT_TRUE(vcpus->all_paused());
    vcpus->ResumeAll();
    if (i % 32 == 0) {
      ASSERT_TRUE(AwaitChange(0x5000)) << "round " << i;  // it does run in between
    }
  }
  vcpus->PauseAll();
  const auto count = Ram<std::uint32_t>(0x5000);
  EXPECT_GT(count, 0U);
  EXPECT_EQ(Ram<std::uint32_t>(0x5000), count);
}

TEST_F(FloorTest, Pause_CompletesAPendingInput) {
  Start();
  ports.on_read = [this] {
    EXPECT_TRUE(vcpus->OnVcpuThread());
    vcpus->StopCurrent();
    SignalEventFd(stopped_fd.get());
  };
  Run(GuestCode_input_then_use());
  ASSERT_TRUE(Await(stopped_fd.get()));
  vcpus->PauseAll();
  kvm_regs regs{};
  ASSERT_EQ(::ioctl(vcpus->fd(VcpuIndex(0)), KVM_GET_REGS, &regs), 0);
  EXPECT_EQ(regs.rax & 0xff, 0xa0U);
  EXPECT_EQ(regs.rip, kCode + 5);  // behind the IN
  EXPECT_EQ(regs.rbx, 0U);         // and not further
}

TEST_F(FloorTest, PauseAllFromAHandler_StopsTheCaller) {
  Start();
  ports.on_read = [this] {
    vcpus->PauseAll();
    SignalEventFd(stopped_fd.get());
  };
  Run(GuestCode_input_then_use());
  ASSERT_TRUE(Await(stopped_fd.get()));
  vcpus->PauseAll();
  EXPECT_TRUE(vcpus->all_paused());
}

TEST_F(FloorTest, ResetAll_RestoresStateAndRunsAgain) {
  Start();
  ASSERT_TRUE(vcpus->WaitReady());
  const int fd = vcpus->fd(VcpuIndex(0));
  const auto state = [fd] {
    kvm_regs regs{};
    kvm_sregs sregs{};
    kvm_lapic_state lapic{};
    kvm_mp_state mp{};
    EXPECT_EQ(::ioctl(fd, KVM_GET_REGS, &regs), 0);
    EXPECT_EQ(::ioctl(fd, KVM_GET_SREGS, &sregs), 0);
    EXPECT_EQ(::ioctl(fd, KVM_GET_LAPIC, &lapic), 0);
    EXPECT_EQ(::ioctl(fd, KVM_GET_MP_STATE, &mp), 0);
    return std::tuple(std::string(reinterpret_cast<char*>(&regs), sizeof(regs)),
                      std::string(reinterpret_cast<char*>(&sregs), sizeof(sregs)),
                      std::string(lapic.regs, sizeof(lapic.regs)), mp.mp_state);
  };
  Load(kCode, GuestCode_change_state());
  ASSERT_TRUE(vcpus->ResetAll(Flat32()));
  const auto before = state();
  for (std::uint32_t round = 1; round <= 5; ++round) {
    vcpus->ResumeAll();
    ASSERT_TRUE(AwaitDone());
    EXPECT_EQ(Ram<std::uint32_t>(0x5000), round);
    vcpus->PauseAll();
    EXPECT_NE(state(), before);
    ASSERT_TRUE(vcpus->ResetAll(Flat32()));
    EXPECT_EQ(state(), before);
  }
  alignas(kvm_msrs) std::array<std::byte, sizeof(kvm_msrs) + sizeof(kvm_msr_entry)> room{};
  // NOLINTNEXTLINE(bugprone-casting-through-void): aligned above
  auto* const msrs = static_cast<kvm_msrs*>(static_cast<void*>(room.data()));
  msrs->nmsrs = 1;
  msrs->entries[0].index = 0x176;
  ASSERT_EQ(::ioctl(fd, KVM_GET_MSRS, msrs), 1);
  EXPECT_EQ(msrs->entries[0].data, 0U);
}

TEST_F(FloorTest, InitAndSipi_StartTheOtherVcpuAndAgainAfterReset) {
  Start(2);
  Load(0x6000, GuestCode_other_real_mode());
  for (int round = 0; round < 3; ++round) {
    Run(GuestCode_start_other());
    ASSERT_TRUE(AwaitDone()) << "round " << round;
    EXPECT_EQ(done.writes.back().value, 0x42U);
    vcpus->PauseAll();
  }
  EXPECT_EQ(vcpus->counters(VcpuIndex(1)).pio, 3U);
  EXPECT_NE(vcpus->thread_id(VcpuIndex(0)), vcpus->thread_id(VcpuIndex(1)));
}

TEST_F(FloorTest, InitAndSipi_OfAFreshMachine_AlwaysArrive) {
  Load(0x6000, GuestCode_other_real_mode());
  for (int round = 0; round < 20; ++round) {
    Start(2);
    Run(GuestCode_start_other());
    ASSERT_TRUE(AwaitDone()) << "round " << round;
    Stop();
  }
}

TEST_F(FloorTest, RunOn_RunsOnTheVcpusThreadPausedOrNot) {
  Start();
  int paused_tid = 0;
  vcpus->RunOn(VcpuIndex(0), [&paused_tid] { paused_tid = ::gettid(); });
  EXPECT_EQ(paused_tid, vcpus->thread_id(VcpuIndex(0)));
  Run(GuestCode_spin());
  for (int i = 0; i < 100; ++i) {
    int tid = 0;
    vcpus->RunOn(VcpuIndex(0), [this, &tid] {
      tid = ::gettid();
      EXPECT_TRUE(big_lock.HeldByMe());
    });
    ASSERT_EQ(tid, paused_tid);
  }
}

TEST_F(FloorTest, RunOnEachOther_FromTwoVcpus_DoesNotDeadlock) {
  Start(2);
  int ran = 0;
  calls.on_write = [this, &ran] {
    const bool first = ::gettid() == vcpus->thread_id(VcpuIndex(0));
    vcpus->RunOn(VcpuIndex(first ? 1 : 0), [&ran] { ++ran; });
  };
  AddIo(io_root, 0x80, 1, calls);
  Load(0x6000, GuestCode_other_calls());
  Run(GuestCode_start_other_and_call());
  ASSERT_TRUE(AwaitDone());
  if (done.writes.size() < 2) {
    ASSERT_TRUE(AwaitDone());
  }
  EXPECT_EQ(ran, 40);
  vcpus.reset();
}

TEST_F(FloorTest, Destroy_WhileRunningAndWhileAHandlerWaitsForTheLock) {
  Start(2);
  Run(GuestCode_spin());
  vcpus.reset();
  auto again = Vcpus::Start(*vm, system, memory_space, io_space, 1);
  ASSERT_TRUE(again);
  EXPECT_TRUE((*again)->Begin({}));  // the VM still has the old vCPUs, so creation fails, but cleanly
  EXPECT_FALSE((*again)->WaitReady());
}

TEST_F(FloorTest, Destroy_OfVcpusThatNeverBegan_EndsTheirThreads) {
  vm = Vm::Create(system, vm_config).value();
  auto started = Vcpus::Start(*vm, system, memory_space, io_space, 3);
  ASSERT_TRUE(started) << started.error().message();
  const Status begun = (*started)->Begin({});
  ASSERT_FALSE(begun) << "there is no irq chip yet";
  EXPECT_TRUE(begun.error().message().contains("irq chip")) << begun.error().message();
  started->reset();
}

}  // namespace
}  // namespace gyre::kvm
