#include "gyre/memory/ram.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "gyre/base/check.h"
#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "gyre/memory/discard.h"

namespace gyre::memory {
namespace {

// Below this, giving pages back costs more than writing zeros.
constexpr std::uint64_t kDiscardWorthwhile = 64 * kKiB;

}  // namespace

Result<std::shared_ptr<RamBlock>> RamBlock::NewAnonymous(std::string name, std::uint64_t size) {
  if (size == 0 || size % kPageSize != 0) {
    return Fail(Error::Usage(format("memory {}: {} bytes are not whole pages", name, size)));
  }
  auto mapping = Mapping::Anonymous(size);
  if (!mapping) {
    return Fail(std::move(mapping).error().Within(format("memory {}", name)));
  }
  auto block = std::make_shared<RamBlock>(std::move(name), *std::move(mapping));
  block->anonymous_ = true;
  block->return_ = Return::kAdvice;
  return block;
}

RamBlock::RamBlock(std::string name, Mapping mapping)
    : name_(std::move(name)), mapping_(std::move(mapping)), dirty_(mapping_.size()) {}

RamBlock::~RamBlock() { CHECK(bans_ == 0 && managers_ == 0); }

// Whoever looks at the pages is told before and after the step, which gives them back.
template <typename Step>
auto RamBlock::Telling(Extent extent, const Step& step) {
  for (DiscardListener* listener : discard_listeners_) {
    listener->BeforeDiscard(*this, extent.offset, extent.size);
  }
  auto result = step();
  for (DiscardListener* listener : discard_listeners_) {
    listener->AfterDiscard(*this, extent.offset, extent.size);
  }
  return result;
}

int RamBlock::GiveBack(Extent extent) {
  // A hole in the file does not show where a bus error has exchanged the file's pages for
  // private ones; nobody knows where that is, and the file's own pages lose nothing by it.
  const bool advise = return_ == Return::kAdvice || guard_.exchanged();
  return Telling(extent, [&] {
    int result = advise ? ::madvise(host() + extent.offset, extent.size, MADV_DONTNEED) : 0;
    if (result == 0 && return_ == Return::kHole) {
      result = ::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           static_cast<off_t>(extent.offset), static_cast<off_t>(extent.size));
    }
    const int error = result == 0 ? 0 : errno;
    if (error == 0 || advise) {
      MarkDirty(extent.offset, extent.size);
    }
    return error;
  });
}

bool RamBlock::ShowsFile(Extent extent) const {
  return std::ranges::any_of(file_extents_, [&](const Extent& other) {
    return other.offset < extent.offset + extent.size && extent.offset < other.offset + other.size;
  });
}

Status RamBlock::Clear() {
  Status status = ClearPages();
  MarkDirty(0, size());
  return status;
}

Status RamBlock::ClearPages() {
  const Extent all{.offset = 0, .size = size()};
  if (!anonymous()) {
    if (bans_ != 0 || return_ != Return::kHole || GiveBack(all) != 0) {
      std::memset(host(), 0, size());
    }
    return {};
  }
  // MADV_DONTNEED brings a private file mapping back to the file's bytes, not to zeros.
  for (const Extent& extent : file_extents_) {
    TRY(RemapAnonymous(extent));
  }
  file_extents_.clear();
  if (const int error = GiveBack(all); error != 0) {
    return Fail(Error::Sys(format("memory {}: madvise of {} bytes", name_, size()), error));
  }
  return {};
}

void RamBlock::Zero(std::uint64_t offset, std::uint64_t size) {
  CHECK(FitsWithin(offset, size, this->size()));
  const auto first_page = CheckedAlignUp(offset, kPageSize);
  const std::uint64_t end_page = AlignDown(offset + size, kPageSize);
  std::byte* start = host() + offset;
  if (!anonymous() || ShowsFile({offset, size}) || !first_page ||
      *first_page + kDiscardWorthwhile > end_page ||
      GiveBack({.offset = *first_page, .size = end_page - *first_page}) != 0) {
    std::memset(start, 0, size);
  } else {
    std::memset(start, 0, *first_page - offset);
    std::memset(host() + end_page, 0, offset + size - end_page);
  }
  MarkDirty(offset, size);
}

Status RamBlock::MapFile(std::uint64_t offset, std::uint64_t size, int fd, std::uint64_t file_offset) {
  CHECK(anonymous());
  CHECK(FitsWithin(offset, size, this->size()));
  CHECK((offset | size | file_offset) % kPageSize == 0);
  const Extent extent{.offset = offset, .size = size};
  void* mapped = ::mmap(host() + offset, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, static_cast<off_t>(file_offset));
  if (mapped == MAP_FAILED) {
    auto error = Error::Sys(format("memory {}: mmap of {} bytes of a file", name_, size), errno);
    // A failed MAP_FIXED may have unmapped what was there.
    TRY(RemapAnonymous(extent));
    MarkDirty(offset, size);
    return Fail(std::move(error));
  }
  // What it covers whole is gone: a guest that reboots for ever must not grow the list.
  std::erase_if(file_extents_, [&extent](const Extent& old) {
    return old.offset >= extent.offset && old.offset + old.size <= extent.offset + extent.size;
  });
  file_extents_.push_back(extent);
  MarkDirty(offset, size);
  return {};
}

Status RamBlock::RemapAnonymous(Extent extent) {
  void* mapped = ::mmap(host() + extent.offset, extent.size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    return Fail(Error::Sys(format("memory {}: mmap of {} bytes", name_, extent.size), errno));
  }
  return {};
}

}  // namespace gyre::memory
