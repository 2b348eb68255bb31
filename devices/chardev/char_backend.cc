#include "gyre/devices/char_backend.h"

#include <fcntl.h>

#include <bit>
#include <optional>
#include <string_view>

#include "devices/chardev/backends.h"
#include "devices/chardev/fd_backend.h"
#include "gyre/base/format.h"
#include "gyre/base/numbers.h"
#include "gyre/devices/ring_buffer.h"

namespace gyre::devices {
namespace {

constexpr std::string_view kFilePrefix = "file:";
constexpr std::string_view kAppendPrefix = "append:";
constexpr std::string_view kUnixPrefix = "unix:";
constexpr std::string_view kFdPrefix = "fd:";
constexpr std::string_view kRingBuffer = "ringbuf";
constexpr std::string_view kRingBufferPrefix = "ringbuf:";

class NullBackend final : public CharBackend {
 public:
  std::size_t Write(std::span<const std::uint8_t> bytes) override { return bytes.size(); }
  void SetFrontend(CharFrontend* /*frontend*/) override {}
  void ResumeInput() override {}
  std::string filename() const override { return "null"; }
};

// What follows `prefix`, if `spec` begins with it.
std::optional<std::string> After(std::string_view prefix, const std::string& spec) {
  if (!spec.starts_with(prefix)) {
    return std::nullopt;
  }
  return spec.substr(prefix.size());
}

Status CheckFilePath(std::string_view kind, const std::string& path) {
  if (path.empty() || path.contains('\0')) {
    return Fail(Error::Usage(format("{} needs a path after it", kind)));
  }
  return {};
}

Result<int> ParseFd(const std::string& text) {
  const int fd = ParseNumber<int>(text).value_or(-1);
  if (fd < 0) {
    return Fail(Error::Usage(format("fd:{}: not the number of a file descriptor", text)));
  }
  return fd;
}

Result<std::size_t> ParseRingSize(const std::string& text) {
  const auto size = ParseNumber<std::size_t>(text).value_or(0);
  if (!std::has_single_bit(size) || size > RingBuffer::kMostSize) {
    return Fail(Error::Usage(format("ringbuf:{}: the size must be a power of two, {} bytes at most", text,
                                    RingBuffer::kMostSize)));
  }
  return size;
}

}  // namespace

Status CheckCharSpec(const std::string& spec) {
  if (spec == "stdio" || spec == "null" || spec == "pty" || spec == kRingBuffer) {
    return {};
  }
  for (const std::string_view kind : {kFilePrefix, kAppendPrefix}) {
    if (const auto path = After(kind, spec)) {
      return CheckFilePath(kind, *path);
    }
  }
  if (const auto size = After(kRingBufferPrefix, spec)) {
    (void)TRY(ParseRingSize(*size));
    return {};
  }
  if (const auto path = After(kUnixPrefix, spec)) {
    return CheckUnixPath(*path);
  }
  if (const auto number = After(kFdPrefix, spec)) {
    (void)TRY(ParseFd(*number));
    return {};
  }
  return Fail(
      Error::Usage(format("'{}' is none of stdio, null, file:PATH, append:PATH, pty, unix:PATH, fd:N, "
                          "ringbuf[:SIZE]",
                          spec)));
}

Result<std::unique_ptr<CharBackend>> NewFileBackend(loop::MainLoop& loop, const std::string& path,
                                                    bool append) {
  IgnoreSigpipe();
  // O_NONBLOCK is for FIFOs and terminals: opening must not wait, nor writing.
  auto fd =
      TRY(OpenFile(path, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC) | O_NONBLOCK | O_NOCTTY, 0640));
  return std::make_unique<FdBackend>(loop, CharFd{}, CharFd{.fd = std::move(fd)},
                                     FdBackend::Options{.filename = format("file:{}", path)});
}

Result<std::unique_ptr<CharBackend>> NewCharBackend(loop::MainLoop& loop, const std::string& spec) {
  TRY(CheckCharSpec(spec));
  if (spec == "stdio") {
    return NewStdioBackend(loop);
  }
  if (spec == "pty") {
    return NewPtyBackend(loop);
  }
  if (const auto path = After(kFilePrefix, spec)) {
    return NewFileBackend(loop, *path, false);
  }
  if (const auto path = After(kAppendPrefix, spec)) {
    return NewFileBackend(loop, *path, true);
  }
  if (spec == kRingBuffer) {
    return std::make_unique<RingBuffer>(RingBuffer::kUsualSize);
  }
  if (const auto size = After(kRingBufferPrefix, spec)) {
    return std::make_unique<RingBuffer>(TRY(ParseRingSize(*size)));
  }
  if (const auto path = After(kUnixPrefix, spec)) {
    return NewUnixBackend(loop, *path);
  }
  if (const auto number = After(kFdPrefix, spec)) {
    return NewPassedUnixBackend(loop, TRY(ParseFd(*number)));
  }
  return std::make_unique<NullBackend>();
}

}  // namespace gyre::devices
