// Signals that are read from a descriptor instead of being caught, until the object's
// end. Those that this process was started to ignore stay so. One thread; none other
// may have them unblocked.
#pragma once

#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX

#include <initializer_list>

#include "gyre/base/unique_fd.h"

namespace gyre::exec {

class TakenSignals {
 public:
  TakenSignals(std::initializer_list<int> signals);
  TakenSignals(const TakenSignals&) = delete;
  TakenSignals& operator=(const TakenSignals&) = delete;
  // What has come is forgotten.
  ~TakenSignals();
  int fd() const { return fd_.get(); }
  // The next one that has come; 0: none.
  int Next() const;

 private:
  sigset_t before_{};
  UniqueFd fd_;
};

}  // namespace gyre::exec
