// The console's escape key: Ctrl-] and then . (end), ? (help), or Ctrl-] (that key
// itself); anything else goes to the guest with it. The two may come in different
// reads. One thread.
#pragma once

#include <string>
#include <string_view>

namespace gyre::ctl {

class EscapeFilter {
 public:
  static constexpr char kKey = 0x1d;  // Ctrl-]
  static constexpr std::string_view kHelp =
      "\r\nCtrl-] .       leave\r\nCtrl-] ?       this\r\nCtrl-] Ctrl-]  send Ctrl-]\r\n";

  struct Result {
    std::string bytes;  // for the guest
    bool ends = false;
    bool help = false;
  };

  Result Take(std::string_view typed) {
    Result result;
    for (const char byte : typed) {
      if (!escaped_) {
        escaped_ = byte == kKey;
        result.bytes.append(escaped_ ? 0 : 1, byte);
        continue;
      }
      escaped_ = false;
      if (byte == '.') {
        result.ends = true;
        return result;
      }
      if (byte == '?') {
        result.help = true;
        continue;
      }
      result.bytes += kKey;
      result.bytes.append(byte == kKey ? 0 : 1, byte);
    }
    return result;
  }

 private:
  bool escaped_ = false;
};

}  // namespace gyre::ctl
