// What a device is in the midst of, by which an equal one goes on: the bytes of a plain State struct of the
// device's own, and the number of its layout. A loaded state may come from anywhere: whoever reads it checks
// each number. Any thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "gyre/base/endian.h"

namespace gyre::devices {

struct SavedState {
  std::uint32_t version = 0;
  std::vector<std::byte> bytes{};
  bool operator==(const SavedState&) const = default;
};

class StateWriter {
 public:
  explicit StateWriter(std::uint32_t version) : state_{.version = version} {}
  template <WirePod T>
  StateWriter& Put(const T& part) {
    return PutBytes(std::as_bytes(std::span(&part, 1)));
  }
  StateWriter& PutBytes(std::span<const std::byte> bytes) {
    state_.bytes.insert(state_.bytes.end(), bytes.begin(), bytes.end());
    return *this;
  }
  SavedState Take() const { return state_; }

 private:
  SavedState state_;
};

// Each call is false where the bytes end first.
class StateReader {
 public:
  explicit StateReader(std::span<const std::byte> bytes) : rest_(bytes) {}
  template <WirePod T>
  bool Get(T& part) {
    if (rest_.size() < sizeof(T)) {
      return false;
    }
    std::memcpy(&part, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return true;
  }
  bool GetBytes(std::size_t size, std::vector<std::byte>& bytes) {
    if (rest_.size() < size) {
      return false;
    }
    bytes.assign(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(size));
    rest_ = rest_.subspan(size);
    return true;
  }
  std::size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

// Of a device whose state is one struct.
template <WirePod T>
SavedState SaveAs(std::uint32_t version, const T& state) {
  return StateWriter(version).Put(state).Take();
}
template <WirePod T>
std::optional<T> LoadAs(std::uint32_t version, const SavedState& saved) {
  T state{};
  StateReader reader(saved.bytes);
  return saved.version == version && reader.Get(state) && reader.left() == 0 ? std::optional(state)
                                                                             : std::nullopt;
}

}  // namespace gyre::devices
