// What gyred needs of a host's KVM. Pure; any thread.
#pragma once

#include <functional>

#include "gyre/base/result.h"

namespace gyre::kvm {

// `query` is KVM_CHECK_EXTENSION: above 0 where the capability is there. The
// error names every one that is missing.
Status CheckCapabilities(const std::function<int(long capability)>& query);

}  // namespace gyre::kvm
