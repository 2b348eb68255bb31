// From a 32-bit entry to C++ in ring 3. Ring 0 may be interpreted by the host, so
// it does no loops: the tables are data, and whatever can wait is done in ring 3.
#include "layout.h"

#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define CR4_PAE_OSFXSR_OSXMMEXCPT 0x620
#define CR0_PG_WP_NE_ET_MP_PE 0x80010033
#define IO_BITMAP_SIZE 8192
#define TSS_HEADER_SIZE 104

// Present, writable, user; and a 2 MiB page.
#define TABLE 0x07
#define LARGE_PAGE 0x87
#define MAPPED_GIB 8

  .section .data.page_tables, "aw", @progbits
  .balign 4096
  .global page_map
page_map:
  .quad page_directory_pointers + TABLE
  .fill 511, 8, 0
page_directory_pointers:
  .set i, 0
  .rept MAPPED_GIB
  .quad page_directories + i * 4096 + TABLE
  .set i, i + 1
  .endr
  .fill 512 - MAPPED_GIB, 8, 0
page_directories:
  .set i, 0
  .rept MAPPED_GIB * 512
  .quad i * 0x200000 + LARGE_PAGE
  .set i, i + 1
  .endr

  .data
  .balign 16
  .global descriptors
descriptors:
  .quad 0
  .quad 0x00cf9b000000ffff  // KERNEL_CODE32
  .quad 0x00cf93000000ffff  // KERNEL_DATA
  .quad 0x00af9b000000ffff  // KERNEL_CODE64
  .quad 0
  .quad 0x00cff3000000ffff  // USER_DATA
  .quad 0x00affb000000ffff  // USER_CODE64
  // The boot processor's TSS; its base is put in at start. The others' are made in ring 3.
  .word TSS_HEADER_SIZE + IO_BITMAP_SIZE, 0, 0x8900, 0
  .quad 0
  .fill (MAX_PROCESSORS - 1) * 2, 8, 0
descriptors_end:

  .balign 16
  .global boot_tss
boot_tss:
  .long 0
  .quad boot_kernel_stack_end  // RSP0
  .fill 45, 2, 0
  .word TSS_HEADER_SIZE  // where the I/O bitmap begins
  .fill IO_BITMAP_SIZE, 1, 0
  .byte 0xff

descriptors_pointer:
  .word descriptors_end - descriptors - 1
  .quad descriptors
interrupt_gates_pointer:
  .word 256 * 16 - 1
  .quad interrupt_gates

  .global boot_protocol, boot_info
boot_protocol: .long 0
boot_info: .long 0

// What the processor that starts next is given; set by its starter, one at a time.
  .balign 8
  .global next_processor
next_processor:
  .quad 0  // top of its ring 3 stack
  .quad 0  // its ring 3 function's argument
  .quad 0  // its TSS selector

  .bss
  .balign 4096
  .global interrupt_gates
interrupt_gates:
  .skip 256 * 16
boot_kernel_stack:
  .skip KERNEL_STACK_SIZE
boot_kernel_stack_end:
  .skip USER_STACK_SIZE
boot_user_stack_end:

  .section .text.boot, "ax", @progbits
// EDI: PROTOCOL_*, EBX: its information.
  .code32
  .global start32
start32:
  cli
  cld
  movl %edi, boot_protocol
  movl %ebx, boot_info
  movl $boot_tss, %eax
  movw %ax, descriptors + FIRST_TSS + 2
  shrl $16, %eax
  movb %al, descriptors + FIRST_TSS + 4
  movb %ah, descriptors + FIRST_TSS + 7
  movl $boot64, %ebp

// EBP: where to go on in 64-bit mode.
enter_long_mode:
  lgdtl descriptors_pointer
  movl $CR4_PAE_OSFXSR_OSXMMEXCPT, %eax
  movl %eax, %cr4
  movl $page_map, %eax
  movl %eax, %cr3
  movl $MSR_EFER, %ecx
  movl $EFER_LME, %eax
  xorl %edx, %edx
  wrmsr
  movl $CR0_PG_WP_NE_ET_MP_PE, %eax
  movl %eax, %cr0
  ljmpl $KERNEL_CODE64, $1f
  .code64
1:
  movl $KERNEL_DATA, %eax
  movl %eax, %ss
  movl %eax, %ds
  movl %eax, %es
  lidt interrupt_gates_pointer
  jmp *%rbp

boot64:
  movl $boot_kernel_stack_end, %esp
  movl $FIRST_TSS, %eax
  ltr %ax
  pushq $USER_DATA
  pushq $boot_user_stack_end - 8  // as after a call
  pushq $2                        // interrupts off until ring 3 asks for them
  pushq $USER_CODE64
  pushq $GuestStart
  iretq

// A started processor: real mode, copied to TRAMPOLINE.
  .global trampoline_begin, trampoline_end
  .code16
trampoline_begin:
  cli
  movw %cs, %ax
  movw %ax, %ds
  lgdtl trampoline_descriptors_pointer - trampoline_begin
  movl $0x11, %eax  // ET, PE
  movl %eax, %cr0
  ljmpl $KERNEL_CODE32, $processor32
trampoline_descriptors_pointer:
  .word descriptors_end - descriptors - 1
  .long descriptors
trampoline_end:

  .code32
processor32:
  movl $KERNEL_DATA, %eax
  movl %eax, %ds
  movl %eax, %ss
  movl $processor64, %ebp
  jmp enter_long_mode

  .code64
processor64:
  movq next_processor + 16, %rax
  ltr %ax
  // The ring 3 stack serves here too: nothing interrupts before the iretq.
  movq next_processor, %rsp
  movq %rsp, %rax
  movq next_processor + 8, %rdi
  pushq $USER_DATA
  pushq %rax
  pushq $2
  pushq $USER_CODE64
  pushq $ProcessorStart
  iretq

  .text
// CallRing0(function, argument): the one #UD that is a request. INT and SYSCALL
// do not work on every KVM; a fault does.
  .global CallRing0, call_ring0_fault
CallRing0:
call_ring0_fault:
  ud2
  ret

// 256 stubs of 16 bytes: an error code where the processor pushes none, then the vector.
  .balign 16
  .global interrupt_stubs
interrupt_stubs:
  .set vector, 0
  .rept 256
  .balign 16
  .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
  .else
  pushq $0
  .endif
  pushq $vector
  jmp interrupt_common
  .set vector, vector + 1
  .endr
  .balign 16

interrupt_common:
  pushq %r11
  pushq %r10
  pushq %r9
  pushq %r8
  pushq %rdi
  pushq %rsi
  pushq %rdx
  pushq %rcx
  pushq %rax
  movq %rsp, %rdi
  cld
  call HandleInterrupt
  popq %rax
  popq %rcx
  popq %rdx
  popq %rsi
  popq %rdi
  popq %r8
  popq %r9
  popq %r10
  popq %r11
  addq $16, %rsp
  iretq

  .section .note.GNU-stack, "", @progbits
