#include "gyre/memory/dirty_bitmap.h"

#include <algorithm>
#include <bit>

#include "gyre/base/check.h"
#include "gyre/base/checked.h"
#include "gyre/base/types.h"

namespace gyre::memory {
namespace {

constexpr std::uint64_t kWordBits = 64;

std::uint64_t WordsFor(std::uint64_t pages) { return (pages / kWordBits) + (pages % kWordBits != 0 ? 1 : 0); }

// The bits of word `index` that stand for pages [first, end); the word has at least one.
std::uint64_t BitsWithin(std::uint64_t index, std::uint64_t first, std::uint64_t end) {
  const std::uint64_t start = index * kWordBits;
  std::uint64_t bits = UINT64_MAX;
  if (first > start) {
    bits &= UINT64_MAX << (first - start);
  }
  if (end - start < kWordBits) {
    bits &= (std::uint64_t{1} << (end - start)) - 1;
  }
  return bits;
}

template <typename Visit>
void ForEachWord(std::uint64_t first, std::uint64_t end, const Visit& visit) {
  for (std::uint64_t index = first / kWordBits; index * kWordBits < end; ++index) {
    visit(index, BitsWithin(index, first, end));
  }
}

}  // namespace

bool DirtyPages::Test(std::uint64_t page) const {
  const std::uint64_t bit = page - first_page;
  return page >= first_page && bit / kWordBits < words.size() &&
         (words[bit / kWordBits] >> (bit % kWordBits) & 1) != 0;
}

std::uint64_t DirtyPages::count() const {
  std::uint64_t sum = 0;
  for (const std::uint64_t word : words) {
    sum += static_cast<unsigned>(std::popcount(word));
  }
  return sum;
}

void DirtyPages::ForEachRun(
    const std::function<void(std::uint64_t first, std::uint64_t count)>& visit) const {
  std::uint64_t length = 0;  // of the run that ends where we are
  const auto end_run = [&](std::uint64_t end) {
    if (length != 0) {
      visit(first_page + end - length, length);
      length = 0;
    }
  };
  for (std::uint64_t i = 0; i < words.size(); ++i) {
    for (unsigned bit = 0; bit < kWordBits;) {
      const std::uint64_t rest = words[i] >> bit;
      const auto zeros = std::min<unsigned>(static_cast<unsigned>(std::countr_zero(rest)), kWordBits - bit);
      if (zeros != 0) {
        end_run((i * kWordBits) + bit);
        bit += zeros;
        continue;
      }
      const auto ones = static_cast<unsigned>(std::countr_one(rest));
      length += ones;
      bit += ones;
    }
  }
  end_run(words.size() * kWordBits);
}

DirtyBitmaps::DirtyBitmaps(std::uint64_t size)
    : pages_((size / kPageSize) + (size % kPageSize != 0 ? 1 : 0)) {}

void DirtyBitmaps::Or(std::uint64_t index, std::uint64_t bits) {
  // Acquire: whoever sees a client sees its bitmap.
  const std::uint32_t clients = clients_.load(std::memory_order_acquire);
  for (std::size_t client = 0; client < kDirtyClients; ++client) {
    if ((clients >> client & 1) != 0) {
      // Release: whoever takes the bit sees what was stored before.
      words_[client][index].fetch_or(bits, std::memory_order_release);
    }
  }
}

void DirtyBitmaps::MarkTracked(std::uint64_t offset, std::uint64_t size) {
  CHECK(FitsWithin(offset, size, pages_ * kPageSize));
  if (size != 0) {
    const std::uint64_t end = ((offset + size - 1) / kPageSize) + 1;
    ForEachWord(offset / kPageSize, end,
                [this](std::uint64_t index, std::uint64_t bits) { Or(index, bits); });
  }
}

void DirtyBitmaps::MarkPages(std::uint64_t first_page, std::span<const std::uint64_t> words) {
  const auto mark = [this](std::uint64_t index, std::uint64_t bits) {
    if (bits != 0 && index < WordsFor(pages_)) {
      Or(index, bits & BitsWithin(index, 0, pages_));
    }
  };
  const std::uint64_t index = first_page / kWordBits;
  const unsigned shift = first_page % kWordBits;
  for (std::uint64_t i = 0; i < words.size(); ++i) {
    mark(index + i, words[i] << shift);
    if (shift != 0) {
      mark(index + i + 1, words[i] >> (kWordBits - shift));
    }
  }
}

std::uint64_t DirtyBitmaps::Count(DirtyClient client) const {
  std::uint64_t sum = 0;
  if ((clients_.load(std::memory_order_acquire) & MaskOf(client)) != 0) {
    const Word* const words = words_[static_cast<std::size_t>(client)].get();
    for (std::uint64_t i = 0; i < WordsFor(pages_); ++i) {
      sum += static_cast<unsigned>(std::popcount(words[i].load(std::memory_order_relaxed)));
    }
  }
  return sum;
}

void DirtyBitmaps::Start(DirtyClient client) {
  auto& words = words_[static_cast<std::size_t>(client)];
  if (words == nullptr) {
    words = std::make_unique<Word[]>(WordsFor(pages_));
  }
  ForEachWord(0, pages_, [&words](std::uint64_t index, std::uint64_t bits) {
    words[index].store(bits, std::memory_order_relaxed);
  });
  clients_.fetch_or(MaskOf(client), std::memory_order_release);
}

DirtyPages DirtyBitmaps::Take(DirtyClient client, std::uint64_t first, std::uint64_t count) {
  CHECK(FitsWithin(first, count, pages_));
  CHECK(tracked_by(client));
  Word* const words = words_[static_cast<std::size_t>(client)].get();
  DirtyPages taken{.first_page = AlignDown(first, kWordBits), .words = {}};
  if (count != 0) {
    taken.words.reserve(WordsFor(first + count - taken.first_page));
    ForEachWord(first, first + count, [&](std::uint64_t index, std::uint64_t bits) {
      // One that is marked just now is taken next time.
      const bool any = (words[index].load(std::memory_order_relaxed) & bits) != 0;
      taken.words.push_back(any ? words[index].fetch_and(~bits, std::memory_order_acquire) & bits : 0);
    });
  }
  return taken;
}

}  // namespace gyre::memory
