#include "tests/fuzz/virtio_ring.h"

#include <array>
#include <bit>
#include <utility>
#include <vector>

#include "gyre/devices/virtio/queue.h"
#include "tests/fuzz/virtio_world.h"

namespace gyre::virtio {
namespace {

constexpr std::uint64_t kRing = 0x1000;  // its descriptors; the other areas follow
constexpr std::uint64_t kDriverArea = 0x400;
constexpr std::uint64_t kDeviceArea = 0x500;
constexpr std::uint64_t kRingEnd = 0x700;
constexpr std::uint64_t kTable = 0x2000;
constexpr std::uint64_t kData = 0x3000;
constexpr std::uint16_t kNext = 1, kIndirect = 4;

class Fuzzed {
 public:
  Fuzzed(FuzzWorld& world, Script& script) : world_(world) {
    const std::uint8_t choice = script.Byte();
    features_ = {.packed = (choice & 1) != 0,
                 .indirect = (choice & 2) != 0,
                 .event_index = (choice & 4) != 0,
                 .in_order = (choice & 8) != 0};
    const std::uint32_t size = script.Byte() % 32 + 1U;
    layout_ = {.size = features_.packed ? size : std::bit_floor(size),
               .descriptors = GuestAddress(kRing),
               .driver = GuestAddress(kRing + kDriverArea),
               .device = GuestAddress(kRing + kDeviceArea)};
    if (choice >= 0xf8) {
      layout_.driver = GuestAddress(script.Number(3));
      layout_.device = GuestAddress(script.Number(3));
    }
    std::memset(world.At(kRing), 0, kData - kRing);
    queue_.emplace(*world.space, layout_, features_,
                   Queue::Owner{.broken = [this](Violation) { CHECK(!std::exchange(broke_, true)); },
                                .completed = [] {}});
    broke_ = broke_ || queue_->broken();
  }
  Fuzzed(const Fuzzed&) = delete;
  Fuzzed& operator=(const Fuzzed&) = delete;
  ~Fuzzed() {
    held_.clear();
    CHECK(queue_->in_flight() == 0);
  }

  void Step(Script& script) {
    switch (script.Byte() % 12) {
      case 0:
      case 1: {
        const std::uint64_t value = script.Number(8);
        std::memcpy(world_.At(kRing + script.Number(2) % (kRingEnd - kRing)), &value, 1 + script.Byte() % 8U);
        return;
      }
      case 2:
        return WriteDescriptor(kTable + 16 * std::uint64_t{script.Byte() % 40U}, script);
      case 3:
        return WriteDescriptor(kRing + 16 * std::uint64_t{script.Byte() % layout_.size}, script);
      case 4:
      case 5:
        return Offer(script);
      case 6:
        return Serve(script.Byte() % 40U);
      case 7:
        return Return(script.Byte(), script.Number(4));
      case 8:
        (void)queue_->Flush();
        return;
      case 9:
        return LookAndGiveBack();
      case 10:
        (void)queue_->Waiting();
        (void)queue_->HasChains();
        (void)queue_->AskForKick();
        return;
      default:
        return SaveAndLoad();
    }
  }

 private:
  // The fields as the format has them; `id` or `next` is the last.
  void Put(std::uint64_t at, std::uint64_t address, std::uint32_t size, std::uint16_t flags,
           std::uint16_t link) const {
    std::memcpy(world_.At(at), &address, 8);
    std::memcpy(world_.At(at) + 8, &size, 4);
    std::memcpy(world_.At(at) + 12, features_.packed ? &link : &flags, 2);
    std::memcpy(world_.At(at) + 14, features_.packed ? &flags : &link, 2);
  }
  static std::uint64_t Address(Script& script) {
    const std::uint8_t kind = script.Byte();
    return kind == 255   ? script.Number(8)
           : kind >= 250 ? FuzzWorld::kRamSize - 8
                         : kData + 0x10 * std::uint64_t{kind};
  }
  void WriteDescriptor(std::uint64_t at, Script& script) const {
    const std::uint64_t address = Address(script);
    const auto size = static_cast<std::uint32_t>(script.Number(script.Byte() >= 240 ? 4 : 1));
    const auto flags =
        static_cast<std::uint16_t>(script.Number(2) & (script.Byte() >= 240 ? 0xffff : 0x8087));
    Put(at, address, size, flags, static_cast<std::uint16_t>(script.Byte() % 40U));
  }

  // One to four descriptors behind each other, made available as the format has it.
  void Offer(Script& script) {
    const std::uint8_t shape = script.Byte();
    const unsigned count = shape % 4U + 1;
    const std::uint8_t writes = script.Byte();
    const auto first = static_cast<std::uint16_t>(features_.packed ? next_ : script.Byte() % layout_.size);
    std::uint16_t first_flags = 0;
    for (unsigned i = 0; i < count; ++i) {
      const std::uint32_t entry = (first + i) % layout_.size;
      auto flags = static_cast<std::uint16_t>((i + 1 < count ? kNext : 0) | ((writes >> i & 1) != 0 ? 2 : 0));
      std::uint64_t address = Address(script);
      std::uint32_t size = script.Byte() + 1U;
      if (shape >= 224 && i + 1 == count) {
        flags = static_cast<std::uint16_t>(flags | kIndirect);
        address = kTable;
        size = size % 40 * 16;
      }
      if (features_.packed) {
        flags = static_cast<std::uint16_t>(flags | (wrap_ ? 0x80 : 0x8000));
        first_flags = i == 0 ? flags : first_flags;
        if (++next_ == layout_.size) {
          next_ = 0;
          wrap_ = !wrap_;
        }
      }
      const auto link = static_cast<std::uint16_t>(features_.packed ? first : (entry + 1) % layout_.size);
      Put(kRing + 16 * std::uint64_t{entry}, address, size, flags, link);
    }
    if (!features_.packed) {
      std::byte* const driver = world_.At(kRing + kDriverArea);
      std::uint16_t index = 0;
      std::memcpy(&index, driver + 2, 2);
      std::memcpy(driver + 4 + std::size_t{2} * (index % layout_.size), &first, 2);
      ++index;
      std::memcpy(driver + 2, &index, 2);
    }
  }

  void CheckChain(const Chain& chain) const {
    std::uint64_t size = 0;
    for (const auto pieces : {chain.readable(), chain.writable()}) {
      for (const iovec& piece : pieces) {
        const auto* const start = static_cast<const std::byte*>(piece.iov_base);
        CHECK(piece.iov_len != 0 && start >= world_.block->host() &&
              piece.iov_len <= FuzzWorld::kRamSize - static_cast<std::size_t>(start - world_.block->host()));
        size += piece.iov_len;
      }
    }
    CHECK(size == chain.readable_size() + chain.writable_size());
  }

  void Serve(unsigned most) {
    queue_->BeginBatch();
    std::uint32_t taken = 0;
    while (held_.size() < 64 && taken < most) {
      const bool broken = broke_;
      auto chain = queue_->Pop();
      CHECK(!chain || !broken);
      if (!chain) {
        break;
      }
      CHECK(++taken <= layout_.size);
      CheckChain(*chain);
      held_.push_back(*std::move(chain));
    }
    CHECK(queue_->in_flight() == held_.size() && held_.size() <= layout_.size);
    (void)queue_->EndBatch();
  }

  // What a device that finds no use for a chain does.
  void LookAndGiveBack() {
    queue_->BeginBatch();
    if (queue_->parked() == 0) {
      if (auto chain = queue_->Pop()) {
        queue_->Unpop(*std::move(chain));
      }
    }
    (void)queue_->EndBatch();
  }

  void Return(std::uint8_t which, std::uint64_t written) {
    if (held_.empty()) {
      return;
    }
    const auto place = held_.begin() + static_cast<std::ptrdiff_t>(which / 4U % held_.size());
    Chain chain = std::move(*place);
    held_.erase(place);
    std::array<std::byte, 64> bytes{};
    const std::size_t got = chain.Read(which, bytes);
    chain.Write(which, std::span(bytes).first(got));
    if (which % 4 == 3) {
      chain.Park();
    } else if (which % 4 != 2) {
      chain.Complete(static_cast<std::uint32_t>(written));
    }
  }

  // As a save of the VM finds it, with nothing in flight.
  void SaveAndLoad() {
    held_.clear();
    (void)queue_->Flush();
    const auto parked = queue_->SaveParked();
    const QueuePosition position = queue_->position();
    if (broke_ || (features_.in_order && !parked.empty())) {
      return;
    }
    queue_.emplace(*world_.space, layout_, features_,
                   Queue::Owner{.broken = [this](Violation) { CHECK(!std::exchange(broke_, true)); },
                                .completed = [] {}},
                   position);
    broke_ = broke_ || queue_->broken();
    CHECK(broke_ || queue_->LoadParked(parked));
  }

  FuzzWorld& world_;
  RingFeatures features_;
  QueueLayout layout_;
  std::optional<Queue> queue_;
  std::vector<Chain> held_;
  bool broke_ = false;
  std::uint32_t next_ = 0;  // of a packed ring
  bool wrap_ = true;
};

}  // namespace

void FuzzVirtioRing(std::span<const std::byte> bytes) {
  static FuzzWorld& world = *new FuzzWorld;  // for ever: an io_uring's end takes long
  Script script(bytes);
  Fuzzed fuzzed(world, script);
  for (int steps = 0; steps < 1000 && !script.empty(); ++steps) {
    fuzzed.Step(script);
  }
}

}  // namespace gyre::virtio
