#include "src/base/journal.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstdint>
#include <cstring>

namespace gyre::log {
namespace {

// A value with a line end in it is preceded by its length, little-endian.
void Append(std::string& text, std::string_view name, std::string_view value) {
  if (value.empty()) {
    return;
  }
  text += name;
  if (value.contains('\n')) {
    text += '\n';
    for (unsigned shift = 0; shift < 64; shift += 8) {
      text += static_cast<char>(static_cast<std::uint64_t>(value.size()) >> shift & 0xff);
    }
  } else {
    text += '=';
  }
  text += value;
  text += '\n';
}

}  // namespace

std::string JournalEntry::Text() const {
  std::string text;
  Append(text, "PRIORITY", {&priority, 1});
  Append(text, "SYSLOG_IDENTIFIER", "gyred");
  Append(text, "GYRE_VM", vm);
  Append(text, "GYRE_STATE", state);
  Append(text, "MESSAGE", message);
  return text;
}

JournalSocket::JournalSocket(const char* path) {
  sockaddr_un peer = {};
  peer.sun_family = AF_UNIX;
  std::strncpy(&peer.sun_path[0], path, sizeof(peer.sun_path) - 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd && ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof(peer)) == 0) {
    fd_ = std::move(fd);
  }
}

bool JournalSocket::Send(const JournalEntry& entry) const {
  const std::string text = entry.Text();
  return fd_ && ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) >= 0;
}

}  // namespace gyre::log
