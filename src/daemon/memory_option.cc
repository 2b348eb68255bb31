#include "src/daemon/memory_option.h"

#include <algorithm>
#include <string>

#include "gyre/base/format.h"
#include "gyre/base/key_values.h"
#include "gyre/base/numbers.h"

namespace gyre::daemon {
namespace {

using memory::HugePages;
using memory::RamBackend;
using memory::RamOptions;

Result<bool> OnOff(std::string_view key, std::string_view value) {
  if (value != "on" && value != "off") {
    return Fail(Error::Usage(format("{}={}: is neither on nor off", key, value)));
  }
  return value == "on";
}

Result<RamBackend> Backend(std::string_view value) {
  if (value == "anonymous") {
    return RamBackend::kAnonymous;
  }
  if (value == "memfd") {
    return RamBackend::kMemfd;
  }
  if (value == "file") {
    return RamBackend::kFile;
  }
  return Fail(Error::Usage(format("backend={}: must be one of anonymous, memfd, file", value)));
}

Result<HugePages> Huge(std::string_view value) {
  if (value == "off") {
    return HugePages::kOff;
  }
  if (value == "transparent") {
    return HugePages::kTransparent;
  }
  if (value == "2M") {
    return HugePages::k2M;
  }
  if (value == "1G") {
    return HugePages::k1G;
  }
  return Fail(Error::Usage(format("hugepages={}: must be one of off, transparent, 2M, 1G", value)));
}

Result<memory::NumaPolicy> Policy(std::string_view value) {
  using memory::NumaPolicy;
  if (value == "default") {
    return NumaPolicy::kDefault;
  }
  if (value == "preferred") {
    return NumaPolicy::kPreferred;
  }
  if (value == "bind") {
    return NumaPolicy::kBind;
  }
  if (value == "interleave") {
    return NumaPolicy::kInterleave;
  }
  return Fail(Error::Usage(format("policy={}: must be one of default, preferred, bind, interleave", value)));
}

// "3" or "0-2"; more than one by giving the key again.
Status AddNodes(std::string_view value, std::vector<unsigned>& nodes) {
  constexpr unsigned kMost = 1023;  // Linux has no more
  const auto range = ParseRange(value);
  if (!range || range->last > kMost) {
    return Fail(
        Error::Usage(format("numa={}: is not a NUMA node or a range of them, such as 0 or 0-3", value)));
  }
  for (unsigned node = range->first; node <= range->last; ++node) {
    nodes.push_back(node);
  }
  return {};
}

Result<unsigned> Threads(std::string_view value) {
  const auto count = ParseNumber<unsigned>(value);
  if (!count || *count == 0 || *count > 256) {
    return Fail(Error::Usage(format("prealloc-threads={}: must be 1 to 256", value)));
  }
  return *count;
}

Status ApplyOne(std::string_view key, std::string_view value, RamOptions& options) {
  if (key == "size") {
    options.size = TRY(ParseSize(value));
  } else if (key == "backend") {
    options.backend = TRY(Backend(value));
  } else if (key == "path") {
    options.path = value;
  } else if (key == "share") {
    options.share = TRY(OnOff(key, value));
  } else if (key == "hugepages") {
    options.huge_pages = TRY(Huge(value));
  } else if (key == "prealloc") {
    options.prealloc = TRY(OnOff(key, value));
  } else if (key == "prealloc-threads") {
    options.prealloc_threads = TRY(Threads(value));
  } else if (key == "locked") {
    options.locked = TRY(OnOff(key, value));
  } else if (key == "dump") {
    options.dump = TRY(OnOff(key, value));
  } else if (key == "merge") {
    options.merge = TRY(OnOff(key, value));
  } else if (key == "numa") {
    TRY(AddNodes(value, options.numa_nodes));
  } else if (key == "policy") {
    options.numa_policy = TRY(Policy(value));
  } else {
    return Fail(
        Error::Usage(format("'{}' is not one of size, backend, path, share, hugepages, prealloc, "
                            "prealloc-threads, locked, dump, merge, numa, policy",
                            key)));
  }
  return {};
}

}  // namespace

Result<std::uint64_t> ParseSize(std::string_view text) {
  const auto bytes = ParseAmount(text, kMiB);
  if (!bytes) {
    return Fail(Error::Usage(format("'{}' is not a size such as 256M or 2G", text)));
  }
  return *bytes;
}

Result<RamOptions> ParseMemory(std::string_view text) {
  RamOptions options;
  bool sized = false;
  if (text.find('=') == std::string_view::npos) {
    options.size = TRY(ParseSize(text));
    return options;
  }
  for (const auto& [key, value] : TRY(SplitKeyValues(text))) {
    TRY(ApplyOne(key, value, options));
    sized = sized || key == "size";
  }
  if (!sized) {
    return Fail(Error::Usage("size=SIZE is missing"));
  }
  return options;
}

}  // namespace gyre::daemon
