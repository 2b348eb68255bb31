// Numbers that the runtime's assembly and C++ share.
#pragma once

// Selectors. The user ones are Linux's own values: KVMs that run ring 3 natively prefer them.
#define KERNEL_CODE32 0x08
#define KERNEL_DATA 0x10
#define KERNEL_CODE64 0x18
#define USER_DATA 0x2b
#define USER_CODE64 0x33
#define FIRST_TSS 0x38  // one of 16 bytes for each processor

#define MAX_PROCESSORS 64
#define KERNEL_STACK_SIZE 4096
#define USER_STACK_SIZE 16384

// Below 1 MiB, clear of where boot loaders put their tables; the start-up IPI's vector is its page.
#define TRAMPOLINE 0x40000

#define PROTOCOL_PVH 1
#define PROTOCOL_MULTIBOOT 2
