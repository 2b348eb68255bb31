// Operations on files, with their results gathered.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fixture.h"
#include "gyre/loop/async_op.h"

namespace gyre::loop {

using Bytes = std::vector<std::byte>;

inline Bytes ToBytes(std::string_view text) {
  Bytes bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

inline std::string ToText(std::span<const std::byte> bytes) {
  std::string text(bytes.size(), '\0');
  std::memcpy(text.data(), bytes.data(), bytes.size());
  return text;
}

class AsyncOpTest : public LoopTest {
 protected:
  // An operation whose memory is the test's; its results are gathered.
  std::unique_ptr<AsyncOp> NewOp() {
    return std::make_unique<AsyncOp>(loop(), nullptr,
                                     [this](std::int32_t result) { results_.push_back(result); });
  }
  std::int32_t Finish() {
    const std::size_t before = results_.size();
    EXPECT_TRUE(RunUntil([&] { return results_.size() > before; }));
    return results_.empty() ? INT32_MIN : results_.back();
  }
  UniqueFd TemporaryFile() {
    UniqueFd file(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    EXPECT_TRUE(file);
    return file;
  }

  std::vector<std::int32_t> results_;
};

}  // namespace gyre::loop
