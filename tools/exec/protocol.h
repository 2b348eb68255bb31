// What gyrectl and gyre-agent say to each other: frames of a type, a length and a
// payload, within strict limits (docs/exec.md). Neither side believes the other: a
// frame is checked before anything is done with it. Pure; any thread, one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"

namespace gyre::exec {

inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kDefaultPort = 1022;  // below 1024: nobody but root may be the agent
// A port of AF_VSOCK, in decimal; nothing: the text is none.
std::optional<std::uint32_t> ParsePort(std::string_view text);
inline constexpr std::size_t kHeaderSize = 5;
inline constexpr std::size_t kMostData = 32768;                    // bytes in a frame of a stream
inline constexpr std::size_t kMostStart = std::size_t{256} << 10;  // bytes in the frame that starts a command
inline constexpr std::size_t kMostWords = 4096;                    // of a command, and as many variables
inline constexpr std::size_t kMostErrorText = 1024;
inline constexpr std::uint32_t kMostCredit = std::uint32_t{16} << 20;
inline constexpr std::uint32_t kMostSignal = 64;

enum class Side : std::uint8_t { kClient, kAgent };

enum class FrameType : std::uint8_t {
  kHello = 1,  // the first one of either side
  // The client's.
  kStart = 2,
  kStdin = 3,
  kStdinEnd = 4,
  kResize = 5,
  kSignal = 6,
  // The agent's.
  kCredit = 16,
  kStdinClosed = 17,  // the command reads no more
  kStdout = 18,
  kStderr = 19,
  kExit = 20,
  kError = 21,
};

struct Frame {
  FrameType type;
  std::string_view payload;
};

struct WindowSize {
  std::uint16_t rows = 0;  // 0: not known
  std::uint16_t columns = 0;
  bool operator==(const WindowSize&) const = default;
};

// A command, and where it runs.
struct StartRequest {
  bool terminal = false;  // its standard streams are a terminal of this size, else three pipes
  WindowSize size = {};
  std::string directory = {};               // empty: the agent's
  std::vector<std::string> words = {};      // one at least
  std::vector<std::string> variables = {};  // NAME=VALUE, put over the agent's own
};

struct ExitReport {
  bool by_signal = false;
  std::uint32_t value = 0;  // the status, or the signal's number
};

// Why there is no command, or no longer one.
struct ErrorReport {
  // kCommand: it could not be executed.
  enum class Source : std::uint8_t { kAgent = 0, kCommand = 1 };
  Source source = Source::kAgent;
  std::uint32_t sys_errno = 0;  // Linux's; 0: none
  std::string text = {};        // one line
};

// A whole frame. The payload is the caller's to keep within the limits.
std::string ToBytes(FrameType type, std::string_view payload = {});

std::string ToPayload(const StartRequest& request);
std::string ToPayload(WindowSize size);
std::string ToPayload(const ExitReport& report);
std::string ToPayload(const ErrorReport& report);  // the text is cut
std::string NumberPayload(std::uint32_t number);   // of kSignal and kCredit
std::string HelloPayload(std::uint32_t version);

// Of payloads. Each error is one line that says what is wrong.
Result<StartRequest> ParseStart(std::string_view payload);
Result<WindowSize> ParseResize(std::string_view payload);
Result<std::uint32_t> ParseSignal(std::string_view payload);  // 1 to kMostSignal
Result<std::uint32_t> ParseCredit(std::string_view payload);  // 1 to kMostCredit
Result<ExitReport> ParseExit(std::string_view payload);
Result<ErrorReport> ParseError(std::string_view payload);
Result<std::uint32_t> ParseHello(std::string_view payload);  // the version

// Of a command as it will be sent: that it keeps to the limits.
Status CheckStart(const StartRequest& request);

// Takes frames out of a byte stream. What it keeps is bounded as long as Next is asked until there is
// nothing before more is fed.
class FrameReader {
 public:
  // `sender`: whose frames they are.
  explicit FrameReader(Side sender) : sender_(sender) {}
  void Feed(std::string_view bytes);
  // The next one, or nothing yet; its payload stays until Feed. The first is a kHello, and no other is. An
  // error ends the stream.
  Result<std::optional<Frame>> Next();
  std::size_t kept() const { return buffer_.size() - at_; }

 private:
  Side sender_;
  std::string buffer_;
  std::size_t at_ = 0;
  bool greeted_ = false;
};

}  // namespace gyre::exec
