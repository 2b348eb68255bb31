// What RamBlock asks the kernel about a backend's pages: where they come from, that
// they be there, and why one is not. Private to this floor. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "gyre/base/result.h"
#include "gyre/memory/ram.h"

namespace gyre::memory {

// Whether policy and nodes go together, and the host has the nodes.
Status CheckNuma(const std::string& name, const RamOptions& options);
// mbind(2), before the pages are there; those that a file has already are moved.
Status SetNumaPolicy(const std::string& name, const RamOptions& options, std::span<std::byte> pages);

// Has every page of `unit` bytes allocated, by `threads` threads. What takes longer
// than a second is told in the log (info) and to `progress`, if there is one. 0 or an errno.
int PopulatePages(const std::string& name, std::span<std::byte> pages, std::uint64_t unit, unsigned threads,
                  const std::function<void(std::uint64_t done, std::uint64_t total)>& progress);

// "its file system has 4096 bytes free"
std::string DescribeNoSpace(int fd);

}  // namespace gyre::memory
