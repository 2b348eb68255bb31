// PVH entry (Xen's "x86/HVM direct boot ABI"): 32-bit, paging off, EBX points to the start info.
#include "layout.h"

  .section .note.Xen, "a", @note
  .long 4, 4, 18  // XEN_ELFNOTE_PHYS32_ENTRY
  .asciz "Xen"
  .long guest_entry

  .section .text.boot, "ax", @progbits
  .code32
  .global guest_entry
guest_entry:
  movl $PROTOCOL_PVH, %edi
  jmp start32

  .section .note.GNU-stack, "", @progbits
