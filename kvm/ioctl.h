// One ioctl and its error, named. Any thread.
#pragma once

#include <sys/ioctl.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include "gyre/base/result.h"

namespace gyre::kvm {

// ioctl(2); `name` is the request's, for the error.
template <typename Arg>
Result<int> Call(int fd, unsigned long request, Arg arg, std::string_view name) {
  const int result = ::ioctl(fd, request, arg);
  if (result < 0) {
    return Fail(Error::Sys(name, errno));
  }
  return result;
}

inline Result<int> Call(int fd, unsigned long request, std::string_view name) {
  return Call(fd, request, 0UL, name);
}

// The same where only success matters.
template <typename Arg>
Status Do(int fd, unsigned long request, Arg arg, std::string_view name) {
  auto result = Call(fd, request, arg, name);
  if (!result) {
    return Fail(std::move(result).error());
  }
  return {};
}

struct FreeDeleter {
  void operator()(void* memory) const {
    std::free(memory);
  }  // NOLINT(cppcoreguidelines-no-malloc): see NewFlexible
};
template <typename Header>
using Flexible = std::unique_ptr<Header, FreeDeleter>;

// A kernel structure that ends in an array of `count` entries, all zero. C++ has
// no type for these, so the size is the allocation's.
template <typename Header, typename Entry>
Flexible<Header> NewFlexible(std::size_t count) {
  return Flexible<Header>(static_cast<Header*>(std::calloc(1, sizeof(Header) + (count * sizeof(Entry)))));
}

}  // namespace gyre::kvm
