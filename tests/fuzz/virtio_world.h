// What the virtio fuzzers share: a script of bytes, guest memory, and a loop.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "gyre/base/big_lock.h"
#include "gyre/base/check.h"
#include "gyre/base/irq.h"
#include "gyre/base/log.h"
#include "gyre/loop/main_loop.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"

namespace gyre::virtio {

// Numbers from what the fuzzer gives; zeros when it is used up.
class Script {
 public:
  explicit Script(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::uint8_t Byte() { return static_cast<std::uint8_t>(Number(1)); }
  std::uint64_t Number(std::size_t size) {
    std::uint64_t value = 0;
    size = std::min(size, bytes_.size());
    std::memcpy(&value, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
};

class NoLine final : public EdgeLine {
 public:
  void Connect() override {}
  void Trigger() override {}
  void SetResend(std::function<void()> /*resend*/) override {}
};

// What all rounds share: making a loop and memory for each would take most of the time. The big lock is held.
struct FuzzWorld {
  static constexpr std::uint64_t kRamSize = 0x20000;

  FuzzWorld() NO_THREAD_SAFETY_ANALYSIS {
    log::SetLevel(log::Level::kError);
    lock.Lock();
    loop = loop::MainLoop::Create(lock).value();
    loop->EnableClock(loop::ClockType::kVirtual, true);
    block = memory::RamBlock::NewAnonymous("ram", kRamSize).value();
    root = memory::MemoryRegion::NewContainer(topology, "root", memory::kWholeSpace);
    CHECK(root->Add(0, memory::MemoryRegion::NewRam(topology, "ram", block)).has_value());
    space.emplace(topology, "memory", root);
  }
  void Run() NO_THREAD_SAFETY_ANALYSIS { loop->RunOnce(true); }
  std::byte* At(std::uint64_t address) const { return block->host() + address; }

  BigLock lock;
  memory::Topology topology{lock};
  std::unique_ptr<loop::MainLoop> loop;
  std::shared_ptr<memory::RamBlock> block;
  memory::RegionPtr root;
  std::optional<memory::AddressSpace> space;
};

}  // namespace gyre::virtio
