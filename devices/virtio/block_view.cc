#include "devices/virtio/block_view.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "gyre/base/checked.h"
#include "gyre/base/types.h"

namespace gyre::virtio {

std::unique_ptr<const ImageView> ImageView::Map(int fd, std::uint64_t size) {
  const auto pages = CheckedAlignUp(size, kPageSize);
  if (!pages) {
    return nullptr;
  }
  auto errors = BusErrors::Create();
  auto mapping = Mapping::File(fd, 0, *pages, PROT_READ, MAP_SHARED);
  // Without reading ahead: who asks for what is not there leaves that to the kernel's reads from then on.
  if (!errors || !mapping || ::madvise(mapping->data(), mapping->size(), MADV_RANDOM) != 0) {
    return nullptr;
  }
  return std::unique_ptr<const ImageView>(new ImageView(std::move(*mapping), std::move(*errors)));
}

ImageView::ImageView(Mapping mapping, std::unique_ptr<BusErrors> errors)
    : mapping_(std::move(mapping)),
      errors_(std::move(errors)),
      guard_(mapping_.bytes(), kPageSize, *errors_) {}

bool ImageView::Has(std::uint64_t offset, std::uint64_t bytes) const {
  return FitsWithin(offset, bytes, mapping_.size()) && !guard_.exchanged();
}

void ImageView::Prefetch(std::uint64_t offset, std::uint64_t bytes) const {
  constexpr std::uint64_t kCacheLine = 64;
  if (!FitsWithin(offset, bytes, mapping_.size())) {
    return;
  }
  const std::byte* const from = mapping_.data() + offset;
  for (std::uint64_t at = 0; at < std::min(bytes, kPageSize); at += kCacheLine) {
    __builtin_prefetch(from + at, 0, 2);
  }
}

ImageView::Outcome ImageView::Read(std::uint64_t offset, std::span<const iovec> into) const {
  const std::uint64_t met = BusErrorsMet();
  const std::byte* from = mapping_.data() + offset;
  for (const iovec& vector : into) {
    std::memcpy(vector.iov_base, from, vector.iov_len);
    from += vector.iov_len;
  }
  // By whoever's touch. What was copied is, before that is asked.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (guard_.exchanged()) [[unlikely]] {
    return Outcome::kNotThere;
  }
  return BusErrorsMet() == met ? Outcome::kCopied : Outcome::kMemoryLost;
}

}  // namespace gyre::virtio
