// Guest programs as assembler text in the test, for the assembler to assemble.
#pragma once

#include <cstddef>
#include <span>

// `mode` is 16, 32 or 64; `text` is AT&T syntax. Defines GuestCode_<name>(), for
// this file alone, as are the assembler's symbols.
#define GUEST_CODE(name, mode, text)                                                   \
  asm(".pushsection .rodata\n.code" #mode "\nguest_" #name ":\n" text "\nguest_" #name \
      "_end:\n.code64\n.popsection\n");                                                \
  extern "C" const std::byte guest_##name[];                                           \
  extern "C" const std::byte guest_##name##_end[];                                     \
  [[maybe_unused]] static std::span<const std::byte> GuestCode_##name() {              \
    return {guest_##name, guest_##name##_end};                                         \
  }
