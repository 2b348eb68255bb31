// Multiboot 1 entry: 32-bit, paging off, EAX holds the magic number, EBX points to the information.
// With ADDRESS_OVERRIDE the header says where the image goes and the file need not be an ELF.
#include "layout.h"

#define HEADER_MAGIC 0x1badb002
#define LOADER_MAGIC 0x2badb002
#ifdef ADDRESS_OVERRIDE
#define HEADER_FLAGS 0x10003  // page-aligned modules, memory map, address fields
#else
#define HEADER_FLAGS 0x3
#endif

  .section .multiboot, "ax", @progbits
  .balign 4
multiboot_header:
  .long HEADER_MAGIC, HEADER_FLAGS, -(HEADER_MAGIC + HEADER_FLAGS)
#ifdef ADDRESS_OVERRIDE
  .long multiboot_header, image_start, image_data_end, image_end, guest_entry
#endif

  .section .text.boot, "ax", @progbits
  .code32
  .global guest_entry
guest_entry:
  xorl %edi, %edi
  cmpl $LOADER_MAGIC, %eax
  jne 1f
  movl $PROTOCOL_MULTIBOOT, %edi
1:
  jmp start32

  .section .note.GNU-stack, "", @progbits
