#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <numeric>
#include <unordered_set>

#include "gyre/base/check.h"
#include "gyre/base/checked.h"
#include "gyre/base/format.h"
#include "gyre/memory/ram.h"

namespace gyre::memory {
namespace {

// A mapping costs a VMA and a fault a page; below this a copy is cheaper.
constexpr std::uint64_t kMapWorthwhile = 64 * kKiB;

// A part of a guest range that lies in one block.
struct Piece {
  RamBlock* block = nullptr;
  std::uint64_t offset = 0;  // in the block
  std::uint64_t size = 0;

  std::byte* host() const { return block->host() + offset; }
  Piece Part(std::uint64_t from, std::uint64_t length) const {
    return {.block = block, .offset = offset + from, .size = length};
  }
};

Error NotRam(GuestAddress start, std::uint64_t size) {
  return Error::Usage(format("{:#x} bytes at {:#x} are not all guest RAM", size, start.value()));
}

// All pieces, or an error before anything has been touched.
Result<std::vector<Piece>> Cut(const std::vector<GuestRam::Range>& ranges, GuestAddress start,
                               std::uint64_t size) {
  std::vector<Piece> pieces;
  std::uint64_t at = start.value();
  std::uint64_t left = size;
  for (const GuestRam::Range& range : ranges) {
    if (left == 0) {
      break;
    }
    if (at < range.start.value() || at - range.start.value() >= range.size) {
      continue;
    }
    const std::uint64_t offset = at - range.start.value();
    const std::uint64_t length = std::min(left, range.size - offset);
    pieces.push_back({.block = range.block.get(), .offset = range.block_offset + offset, .size = length});
    at += length;
    left -= length;
  }
  if (left != 0) {
    return Fail(NotRam(start, size));
  }
  return pieces;
}

// Whether the file is one that may be mapped. That it holds all that will be
// mapped is a matter of safety: a page beyond its end is a SIGBUS at its first use.
Result<bool> IsMappable(int fd, std::uint64_t file_offset, std::uint64_t size) {
  const auto end = CheckedAdd(file_offset, size);
  if (!end || *end > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) {
    return Fail(Error::Usage(format("{:#x} bytes at {:#x} are beyond any file's end", size, file_offset)));
  }
  struct stat info{};
  if (::fstat(fd, &info) != 0) {
    return Fail(Error::Sys("fstat", errno));
  }
  if (!S_ISREG(info.st_mode)) {
    return false;
  }
  if (*end > static_cast<std::uint64_t>(info.st_size)) {
    return Fail(Error::Usage(format("file ends at {:#x}, before {:#x}", info.st_size, *end)));
  }
  return true;
}

Status ReadFile(const Piece& piece, int fd, std::uint64_t file_offset) {
  std::byte* const to = piece.host();
  const std::uint64_t size = piece.size;
  for (std::uint64_t done = 0; done < size;) {
    const ssize_t got = ::pread(fd, to + done, size - done, static_cast<off_t>(file_offset + done));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return Fail(Error::Sys(format("read of {:#x} bytes at {:#x}", size - done, file_offset + done), errno,
                             ErrorKind::kUsage));
    }
    if (got == 0) {
      return Fail(
          Error::Usage(format("file ends at {:#x}, before {:#x}", file_offset + done, file_offset + size)));
    }
    piece.block->MarkDirty(piece.offset + done, static_cast<std::uint64_t>(got));
    done += static_cast<std::uint64_t>(got);
  }
  return {};
}

// Maps the whole pages in the middle and reads the ends. What cannot be mapped
// (a file system without mmap, too many mappings) is read as well.
Status PlacePiece(const Piece& piece, int fd, std::uint64_t file_offset, bool mappable) {
  const auto first_page = CheckedAlignUp(piece.offset, kPageSize);
  const std::uint64_t end_page = AlignDown(piece.offset + piece.size, kPageSize);
  const bool congruent = piece.offset % kPageSize == file_offset % kPageSize;
  if (!mappable || !piece.block->anonymous() || !congruent || !first_page ||
      *first_page + kMapWorthwhile > end_page) {
    return ReadFile(piece, fd, file_offset);
  }
  const std::uint64_t head = *first_page - piece.offset;
  const std::uint64_t middle = end_page - *first_page;
  if (!piece.block->MapFile(*first_page, middle, fd, file_offset + head)) {
    return ReadFile(piece, fd, file_offset);
  }
  TRY(ReadFile(piece.Part(0, head), fd, file_offset));
  const std::uint64_t done = head + middle;
  return ReadFile(piece.Part(done, piece.size - done), fd, file_offset + done);
}

}  // namespace

void GuestRam::Add(Range range) {
  CHECK(range.block != nullptr && FitsWithin(range.block_offset, range.size, range.block->size()));
  const auto end = range.start.CheckedAdd(range.size);
  CHECK(end.has_value());
  CHECK(ranges_.empty() || ranges_.back().start.value() + ranges_.back().size <= range.start.value());
  ranges_.push_back(std::move(range));
}

std::uint64_t GuestRam::size() const {
  return std::transform_reduce(ranges_.begin(), ranges_.end(), std::uint64_t{0}, std::plus<>(),
                               [](const Range& range) { return range.size; });
}

Result<std::span<std::byte>> GuestRam::Span(GuestAddress start, std::uint64_t size) const {
  const auto pieces = TRY(Cut(ranges_, start, size));
  if (pieces.empty()) {
    return std::span<std::byte>();
  }
  if (pieces.size() != 1) {
    return Fail(NotRam(start, size));
  }
  return std::span(pieces.front().host(), size);
}

Status GuestRam::Write(GuestAddress start, std::span<const std::byte> bytes) const {
  for (const Piece& piece : TRY(Cut(ranges_, start, bytes.size()))) {
    std::memcpy(piece.host(), bytes.data(), piece.size);
    piece.block->MarkDirty(piece.offset, piece.size);
    bytes = bytes.subspan(piece.size);
  }
  return {};
}

Status GuestRam::Read(GuestAddress start, std::span<std::byte> bytes) const {
  for (const Piece& piece : TRY(Cut(ranges_, start, bytes.size()))) {
    std::memcpy(bytes.data(), piece.host(), piece.size);
    bytes = bytes.subspan(piece.size);
  }
  return {};
}

Status GuestRam::Zero(GuestAddress start, std::uint64_t size) const {
  for (const Piece& piece : TRY(Cut(ranges_, start, size))) {
    piece.block->Zero(piece.offset, piece.size);
  }
  return {};
}

Status GuestRam::PlaceFile(GuestAddress start, int fd, std::uint64_t file_offset, std::uint64_t size) const {
  const auto pieces = TRY(Cut(ranges_, start, size));
  const bool mappable = TRY(IsMappable(fd, file_offset, size));
  for (const Piece& piece : pieces) {
    TRY(PlacePiece(piece, fd, file_offset, mappable));
    file_offset += piece.size;
  }
  return {};
}

Status GuestRam::Clear() const {
  std::unordered_set<RamBlock*> blocks;
  for (const Range& range : ranges_) {
    blocks.insert(range.block.get());
  }
  for (RamBlock* block : blocks) {
    TRY(block->Clear());
  }
  return {};
}

}  // namespace gyre::memory
