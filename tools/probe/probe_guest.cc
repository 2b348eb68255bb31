#include "tools/probe/probe_guest.h"

// Position-dependent on nothing but labels of its own: every address it loads is relative or a constant
// below. The constants are those of probe_guest.h; the assembler cannot read them.
asm(R"(
  .pushsection .rodata.probe_guest, "a"
  .balign 16
  .globl gyre_probe_guest_start, gyre_probe_guest_end, gyre_probe_gate
  .code64
gyre_probe_guest_start:
  mov $333333, %ecx
1: lea 1(%rax), %rax
  dec %ecx
  jnz 1b
  mov $1, %al
  outb %al, $0xe9

  lgdt 5f(%rip)
  lidt 6f(%rip)
  mov $0x28, %eax
  ltr %ax
  mov %cr3, %rax
  mov %rax, %cr3
  invlpg 0x7000
  mov $2, %al
  outb %al, $0xe9

  mov $0xc0000080, %ecx
  rdmsr
  or $1, %eax
  wrmsr
  mov $0xc0000081, %ecx
  xor %eax, %eax
  mov $0x00130008, %edx
  wrmsr
  inc %ecx
  lea 3f(%rip), %rax
  xor %edx, %edx
  wrmsr
  mov $0xc0000084, %ecx
  mov $0x200, %eax
  wrmsr
  swapgs
  swapgs
  xor %eax, %eax
  xor %ecx, %ecx
  cpuid
  rdtsc
  mov $3, %al
  outb %al, $0xe9

  xor %r15d, %r15d
  int $0x80
  int3
  pushfq
  popfq
  sti
  nop
  cli
  cmp $2, %r15d
  jne 9f
  mov $4, %al
  outb %al, $0xe9

  fxsave 0x7000
  fxrstor 0x7000
  movups 0x7000, %xmm0
  movups %xmm0, 0x7200
  xorps %xmm0, %xmm0
  mov $1, %ebx
  lock xadd %ebx, 0x7300
  lock cmpxchg8b 0x7308
  lock cmpxchg16b 0x7310
  lock btsl $3, 0x7320
  bsf 0x7320, %eax
  bswap %eax
  mov $0x7400, %edi
  mov $64, %ecx
  rep stosq
  mov $5, %al
  outb %al, $0xe9

  pushq $0x1b
  pushq $0x30000
  pushq $0x2
  pushq $0x23
  lea 2f(%rip), %rax
  pushq %rax
  xor %r14d, %r14d
  iretq
2: syscall
  syscall
  ud2
3: mov %cs, %eax
  cmp $8, %eax
  jne 9f
  inc %r14d
  cmp $2, %r14d
  je 4f
  sysretq
4: mov $6, %al
  outb %al, $0xe9
9: cli
  hlt
  jmp 9b
  .balign 16
gyre_probe_gate:
  inc %r15d
  iretq
  .balign 8
5: .word 0x37
  .quad 0x4000
6: .word 0xfff
  .quad 0x5000
gyre_probe_guest_end:
  .popsection
)");

extern "C" {
extern const std::byte gyre_probe_guest_start[];
extern const std::byte gyre_probe_guest_end[];
extern const std::byte gyre_probe_gate[];
}

namespace gyre::probe {

std::span<const std::byte> GuestCode() { return {gyre_probe_guest_start, gyre_probe_guest_end}; }

std::uint64_t GateAddress(unsigned vector) {
  if (vector != 3 && vector != 0x80) {
    return 0;
  }
  return kCode + static_cast<std::uint64_t>(gyre_probe_gate - gyre_probe_guest_start);
}

const char* GroupName(Progress progress) {
  switch (progress) {
    case Progress::kNothing:
      return "nothing";
    case Progress::kLoop:
      return "a loop";
    case Progress::kTables:
      return "descriptor table loads";
    case Progress::kRegisters:
      return "machine-specific registers";
    case Progress::kInterrupts:
      return "software interrupts";
    case Progress::kData:
      return "SSE and wide exchanges";
    case Progress::kSystemCalls:
      return "system calls";
  }
  return "unknown";
}

}  // namespace gyre::probe
