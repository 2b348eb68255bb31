// /dev/kvm: opened once, checked for every capability that gyred cannot do
// without. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::kvm {

struct Limits {
  unsigned recommended_vcpus = 1;
  unsigned max_vcpus = 1;
  unsigned memory_slots = 32;
  std::size_t vcpu_mapping_size = 0;
  unsigned coalesced_page = 0;  // of a vCPU's mapping: the ring of coalesced writes; 0: none
  bool coalesced_ports = false;
};

class System {
 public:
  // Errors are the caller's one line: no such device, no permission (and what to
  // do about it), not KVM, a missing capability by its name.
  static Result<System> Open(const std::string& path = "/dev/kvm");

  int fd() const { return fd_.get(); }
  const Limits& limits() const { return limits_; }

 private:
  System(UniqueFd fd, Limits limits) : fd_(std::move(fd)), limits_(limits) {}
  UniqueFd fd_;
  Limits limits_;
};

}  // namespace gyre::kvm
