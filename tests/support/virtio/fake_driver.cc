#include "tests/support/virtio/fake_driver.h"

#include <cstring>

#include "gyre/base/check.h"
#include "gyre/base/checked.h"

namespace gyre::virtio::test {
namespace {

class SplitDriver final : public FakeDriver {
 public:
  SplitDriver(std::byte* memory, const QueueLayout& layout, RingFeatures features)
      : FakeDriver(memory, layout, features) {
    for (std::uint32_t i = layout.size; i-- > 0;) {
      free_.push_back(static_cast<std::uint16_t>(i));
    }
    in_use_.resize(layout.size);
  }

  std::uint16_t OfferRaw(std::span<const RawDescriptor> descriptors) override {
    std::vector<std::uint16_t> places;
    for (std::size_t i = 0; i < descriptors.size(); ++i) {
      CHECK(!free_.empty());
      places.push_back(free_.back());
      free_.pop_back();
    }
    for (std::size_t i = 0; i < descriptors.size(); ++i) {
      RawDescriptor descriptor = descriptors[i];
      if (descriptor.next_or_id < places.size()) {
        descriptor.next_or_id = places[descriptor.next_or_id];
      }
      WriteDescriptor(At(layout_.descriptors, 16 * std::uint64_t{places[i]}), descriptor, false);
    }
    const std::uint16_t head = places.front();
    in_use_[head] = std::move(places);
    Store<std::uint16_t>(layout_.driver, 4 + 2 * std::uint64_t{available_ % layout_.size}, head);
    Store<std::uint16_t>(layout_.driver, 2, ++available_);
    return head;
  }
  std::optional<Used> TakeUsed() override {
    if (Load<std::uint16_t>(layout_.device, 2) == used_) {
      return std::nullopt;
    }
    const std::uint64_t place = 4 + 8 * std::uint64_t{used_++ % layout_.size};
    const auto id = static_cast<std::uint16_t>(Load<std::uint32_t>(layout_.device, place));
    free_.insert(free_.end(), in_use_[id].rbegin(), in_use_[id].rend());
    in_use_[id].clear();
    return Used{.id = id, .written = Load<std::uint32_t>(layout_.device, place + 4)};
  }
  bool MustKick() override {
    const std::uint16_t before = std::exchange(kicked_, available_);
    if (!features_.event_index) {
      return before != available_ && (Load<std::uint16_t>(layout_.device, 0) & 1) == 0;
    }
    const auto event = Load<std::uint16_t>(layout_.device, 4 + 8 * std::uint64_t{layout_.size});
    return static_cast<std::uint16_t>(available_ - event - 1) <
           static_cast<std::uint16_t>(available_ - before);
  }
  void WantInterrupts(bool wanted) override { Store<std::uint16_t>(layout_.driver, 0, wanted ? 0 : 1); }
  void WantInterruptAfter(std::uint16_t more) override {
    Store(layout_.driver, 4 + 2 * std::uint64_t{layout_.size}, static_cast<std::uint16_t>(used_ + more - 1));
  }

 private:
  std::vector<std::uint16_t> free_;
  std::vector<std::vector<std::uint16_t>> in_use_;  // by head
  std::uint16_t available_ = 0;
  std::uint16_t kicked_ = 0;
  std::uint16_t used_ = 0;
};

class PackedDriver final : public FakeDriver {
 public:
  PackedDriver(std::byte* memory, const QueueLayout& layout, RingFeatures features)
      : FakeDriver(memory, layout, features), entries_(layout.size) {
    for (std::uint32_t i = layout.size; i-- > 0;) {
      ids_.push_back(static_cast<std::uint16_t>(i));
    }
  }

  std::uint16_t OfferRaw(std::span<const RawDescriptor> descriptors) override {
    CHECK(!ids_.empty());
    const std::uint16_t id = ids_.back();
    ids_.pop_back();
    entries_[id] = static_cast<std::uint16_t>(descriptors.size());
    const std::uint64_t first = 16 * std::uint64_t{available_};
    std::uint16_t first_flags = 0;
    for (std::size_t i = 0; i < descriptors.size(); ++i) {
      RawDescriptor descriptor = descriptors[i];
      descriptor.next_or_id = id;
      descriptor.flags = static_cast<std::uint16_t>(descriptor.flags | (available_wrap_ ? 0x80 : 0x8000));
      const std::uint64_t place = 16 * std::uint64_t{available_};
      if (i == 0) {
        first_flags = descriptor.flags;
        descriptor.flags = Load<std::uint16_t>(layout_.descriptors, place + 14);
      }
      WriteDescriptor(At(layout_.descriptors, place), descriptor, true);
      if (++available_ == layout_.size) {
        available_ = 0;
        available_wrap_ = !available_wrap_;
      }
      ++offered_;
    }
    Store(layout_.descriptors, first + 14, first_flags);  // last (2.8.21.1)
    return id;
  }
  std::optional<Used> TakeUsed() override {
    const std::uint64_t place = 16 * std::uint64_t{used_};
    const auto flags = Load<std::uint16_t>(layout_.descriptors, place + 14);
    if (((flags & 0x80) != 0) != used_wrap_ || ((flags & 0x8000) != 0) != used_wrap_) {
      return std::nullopt;
    }
    const auto id = Load<std::uint16_t>(layout_.descriptors, place + 12);
    const auto written = Load<std::uint32_t>(layout_.descriptors, place + 8);
    CHECK(id < layout_.size);
    used_ += entries_[id];
    if (used_ >= layout_.size) {
      used_ = static_cast<std::uint16_t>(used_ - layout_.size);
      used_wrap_ = !used_wrap_;
    }
    ids_.push_back(id);
    return Used{.id = id, .written = (flags & kWrite) != 0 ? written : 0};
  }
  bool MustKick() override {
    const std::uint16_t offered = std::exchange(offered_, 0);
    const auto flags = static_cast<std::uint16_t>(Load<std::uint16_t>(layout_.device, 2) & 3);
    if (flags != 2) {
      return offered != 0 && flags == 0;
    }
    const auto where = Load<std::uint16_t>(layout_.device, 0);
    auto event = static_cast<std::uint16_t>(where & 0x7fff);
    if (((where & 0x8000) != 0) != available_wrap_) {
      event = static_cast<std::uint16_t>(event - layout_.size);
    }
    return static_cast<std::uint16_t>(available_ - event - 1) < offered;
  }
  void WantInterrupts(bool wanted) override { Store<std::uint16_t>(layout_.driver, 2, wanted ? 0 : 1); }
  void WantInterruptAfter(std::uint16_t more) override {
    std::uint32_t place = used_ + more - 1U;
    bool wrap = used_wrap_;
    if (place >= layout_.size) {
      place -= layout_.size;
      wrap = !wrap;
    }
    Store(layout_.driver, 0, static_cast<std::uint16_t>(place | (wrap ? 0x8000U : 0U)));
    Store<std::uint16_t>(layout_.driver, 2, 2);
  }

 private:
  std::vector<std::uint16_t> ids_;
  std::vector<std::uint16_t> entries_;  // by id
  std::uint16_t available_ = 0;
  std::uint16_t used_ = 0;
  bool available_wrap_ = true;
  bool used_wrap_ = true;
  std::uint16_t offered_ = 0;  // entries since the last look at whether to kick
};

}  // namespace

QueueLayout FakeDriver::LayoutAt(std::uint64_t base, std::uint32_t size, bool packed) {
  const std::uint64_t driver = base + 16 * std::uint64_t{size};
  const std::uint64_t device =
      packed ? driver + 16 : AlignDown(driver + 6 + 2 * std::uint64_t{size} + 15, 16);
  return {.size = size,
          .descriptors = GuestAddress(base),
          .driver = GuestAddress(driver),
          .device = GuestAddress(device)};
}

std::unique_ptr<FakeDriver> FakeDriver::New(std::byte* memory, const QueueLayout& layout,
                                            RingFeatures features) {
  std::memset(memory + layout.descriptors.value(), 0, RingBytes(layout.size));
  if (features.packed) {
    return std::make_unique<PackedDriver>(memory, layout, features);
  }
  return std::make_unique<SplitDriver>(memory, layout, features);
}

std::uint16_t FakeDriver::Offer(std::span<const Buffer> buffers, std::optional<std::uint64_t> table) {
  std::vector<RawDescriptor> descriptors;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const bool last = i + 1 == buffers.size();
    const bool chained = !last && !(table && features_.packed);
    descriptors.push_back(
        {.address = buffers[i].address,
         .size = buffers[i].size,
         .flags = static_cast<std::uint16_t>((buffers[i].write ? kWrite : 0) | (chained ? kNext : 0)),
         .next_or_id = static_cast<std::uint16_t>(i + 1)});
  }
  if (!table) {
    return OfferRaw(descriptors);
  }
  WriteTable(*table, descriptors);
  const RawDescriptor indirect{
      .address = *table, .size = static_cast<std::uint32_t>(16 * descriptors.size()), .flags = kIndirect};
  return OfferRaw(std::span(&indirect, 1));
}

void FakeDriver::WriteTable(std::uint64_t address, std::span<const RawDescriptor> descriptors) {
  for (std::size_t i = 0; i < descriptors.size(); ++i) {
    WriteDescriptor(memory_ + address + 16 * i, descriptors[i], features_.packed);
  }
}

void FakeDriver::WriteDescriptor(std::byte* to, const RawDescriptor& descriptor, bool packed_order) const {
  std::memcpy(to, &descriptor.address, 8);
  std::memcpy(to + 8, &descriptor.size, 4);
  std::memcpy(to + 12, packed_order ? &descriptor.next_or_id : &descriptor.flags, 2);
  std::memcpy(to + 14, packed_order ? &descriptor.flags : &descriptor.next_or_id, 2);
}

}  // namespace gyre::virtio::test
