// Copies of memory that somebody else, a guest, may write at any time: what is checked is what is used.
#pragma once

#include <cstddef>
#include <cstring>

namespace gyre {

// memcpy(3), but the copy is made once and here: a compiler that sees through a plain one may read `from`
// again where the copy is used. `size` is not 0.
inline void CopyOnce(void* to, const void* from, std::size_t size) {
  std::memcpy(to, from, size);
  asm volatile("" : : "r"(to) : "memory");
}

}  // namespace gyre
