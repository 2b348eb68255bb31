#include "gyre/devices/char_backend.h"

#include <fcntl.h>

#include <charconv>
#include <optional>
#include <string_view>

#include "devices/chardev/backends.h"
#include "devices/chardev/fd_backend.h"
#include "gyre/base/format.h"

namespace gyre::devices {
namespace {

constexpr std::string_view kFilePrefix = "file:";
constexpr std::string_view kUnixPrefix = "unix:";
constexpr std::string_view kFdPrefix = "fd:";

class NullBackend final : public CharBackend {
 public:
  std::size_t Write(std::span<const std::uint8_t> bytes) override { return bytes.size(); }
  void SetFrontend(CharFrontend* /*frontend*/) override {}
  void ResumeInput() override {}
  std::string description() const override { return {}; }
};

// What follows `prefix`, if `spec` begins with it.
std::optional<std::string> After(std::string_view prefix, const std::string& spec) {
  if (!spec.starts_with(prefix)) {
    return std::nullopt;
  }
  return spec.substr(prefix.size());
}

Status CheckFilePath(const std::string& path) {
  if (path.empty() || path.contains('\0')) {
    return Fail(Error::Usage("file: needs a path after it"));
  }
  return {};
}

Result<int> ParseFd(const std::string& text) {
  int fd = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fd);
  if (error != std::errc() || end != text.data() + text.size() || fd < 0) {
    return Fail(Error::Usage(format("fd:{}: not the number of a file descriptor", text)));
  }
  return fd;
}

}  // namespace

Status CheckCharSpec(const std::string& spec) {
  if (spec == "stdio" || spec == "null" || spec == "pty") {
    return {};
  }
  if (const auto path = After(kFilePrefix, spec)) {
    return CheckFilePath(*path);
  }
  if (const auto path = After(kUnixPrefix, spec)) {
    return CheckUnixPath(*path);
  }
  if (const auto number = After(kFdPrefix, spec)) {
    (void)TRY(ParseFd(*number));
    return {};
  }
  return Fail(Error::Usage(format("'{}' is none of stdio, null, file:PATH, pty, unix:PATH, fd:N", spec)));
}

Result<std::unique_ptr<CharBackend>> NewFileBackend(loop::MainLoop& loop, const std::string& path) {
  IgnoreSigpipe();
  // O_NONBLOCK is for FIFOs and terminals: opening must not wait, nor writing.
  auto fd = TRY(OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY, 0640));
  return std::make_unique<FdBackend>(loop, CharFd{}, CharFd{.fd = std::move(fd)}, FdBackend::Options{});
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
    return NewFileBackend(loop, *path);
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
