#include "gyre/devices/platform/firmware.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "devices/platform/byte_ports.h"
#include "gyre/base/check.h"
#include "gyre/base/log.h"

namespace gyre::devices {
namespace {

constexpr std::string_view kSignatureText = "QEMU";
constexpr std::uint32_t kTraditional = 1;  // of kId
constexpr std::size_t kMostLine = 200;     // bytes of one line of the log

// The directory's numbers are big-endian.
struct BigEndian32 {
  std::array<std::uint8_t, 4> bytes{};
  explicit BigEndian32(std::size_t value)
      : bytes{static_cast<std::uint8_t>(value >> 24), static_cast<std::uint8_t>(value >> 16),
              static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)} {}
};
struct DirectoryEntry {
  BigEndian32 size;
  std::array<std::uint8_t, 2> key{};
  std::array<std::uint8_t, 2> reserved{};
  std::array<char, FwCfg::kMostName + 1> name{};
};
static_assert(sizeof(DirectoryEntry) == 64);

struct State {
  std::uint64_t at = 0;
  std::uint64_t selected = 0;
};
constexpr std::uint32_t kStateVersion = 1;

template <typename T>
std::span<const std::byte> BytesOf(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

FwCfg::FwCfg() {
  const std::array<std::uint8_t, 4> id{kTraditional, 0, 0, 0};
  Put(kSignature, std::as_bytes(std::span(kSignatureText)));
  Put(kId, BytesOf(id));
  Put(kDirectory, BytesOf(BigEndian32(0)));
}

void FwCfg::Put(std::uint16_t key, std::span<const std::byte> data) {
  items_[key].assign(data.begin(), data.end());
}

void FwCfg::AddFile(std::string_view name, std::span<const std::byte> data) {
  CHECK(name.size() <= kMostName);
  const auto key = static_cast<std::uint16_t>(kFirstFile + files_++);
  Put(key, data);
  DirectoryEntry entry{.size = BigEndian32(data.size()),
                       .key = {static_cast<std::uint8_t>(key >> 8), static_cast<std::uint8_t>(key)}};
  std::ranges::copy(name, entry.name.begin());
  std::vector<std::byte>& directory = items_[kDirectory];
  const BigEndian32 count(files_);
  std::memcpy(directory.data(), &count, sizeof(count));
  const auto bytes = BytesOf(entry);
  directory.insert(directory.end(), bytes.begin(), bytes.end());
}

void FwCfg::Reset() {
  selected_ = 0;
  at_ = 0;
}

SavedState FwCfg::SaveState() const { return SaveAs(kStateVersion, State{.at = at_, .selected = selected_}); }

bool FwCfg::LoadState(const SavedState& saved) {
  const auto state = LoadAs<State>(kStateVersion, saved);
  if (!state || state->selected > UINT16_MAX) {
    return false;
  }
  selected_ = static_cast<std::uint16_t>(state->selected);
  at_ = state->at;
  return true;
}

std::byte FwCfg::NextByte() {
  const auto found = items_.find(selected_);
  if (found == items_.end() || at_ >= found->second.size()) {
    return std::byte{0};
  }
  return found->second[at_++];
}

std::uint64_t FwCfg::Read(std::uint64_t offset, unsigned size) {
  return ReadByByte(offset, size, [this](std::uint64_t port) {
    return port == 1 ? std::to_integer<std::uint8_t>(NextByte()) : std::uint8_t{0};
  });
}

void FwCfg::Write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (offset == 0 && size == 2) {
    selected_ = static_cast<std::uint16_t>(value);
    at_ = 0;
  }
}

// The line so far.
SavedState DebugPort::SaveState() const {
  return StateWriter(kStateVersion).PutBytes(std::as_bytes(std::span(line_))).Take();
}

bool DebugPort::LoadState(const SavedState& saved) {
  const auto printable = [](std::byte letter) {
    return letter >= std::byte{' '} && letter <= std::byte{'~'};
  };
  if (saved.version != kStateVersion || saved.bytes.size() > kMostLine ||
      !std::ranges::all_of(saved.bytes, printable)) {
    return false;
  }
  line_.assign(reinterpret_cast<const char*>(saved.bytes.data()), saved.bytes.size());
  return true;
}

std::uint64_t DebugPort::Read(std::uint64_t /*offset*/, unsigned /*size*/) { return kPresent; }

void DebugPort::Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t value) {
  const char letter = static_cast<char>(value);
  if (letter != '\n' && line_.size() < kMostLine) {
    line_ += letter >= ' ' && letter <= '~' ? letter : '?';
    return;
  }
  log::Debug("firmware: {}", line_);
  line_.clear();
}

}  // namespace gyre::devices
