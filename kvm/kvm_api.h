// <linux/kvm.h> as C sees it. Its flexible arrays are declared by a macro with an
// empty structure, which has a size in C++: kvm_cpuid2, kvm_msrs, kvm_xsave and
// kvm_irq_routing would grow, and with them the numbers of their ioctls. Every
// file that needs <linux/kvm.h> includes this instead.
#pragma once
#pragma GCC system_header  // flexible arrays are no ISO C++

#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]  // NOLINT: the kernel's name
#include <linux/kvm.h>

// Of Linux 6.8 on: KVM_EXIT_MEMORY_FAULT, and what the exits' union has then.
inline constexpr unsigned kExitMemoryFault = 39;
struct MemoryFault {
  __u64 flags;
  __u64 gpa;
  __u64 size;
};

static_assert(sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8 && sizeof(kvm_irq_routing) == 8 &&
              sizeof(kvm_xsave) == 4096);
