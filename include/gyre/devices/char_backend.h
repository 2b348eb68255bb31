// The host side of a serial port or console: where its bytes go and come from.
// Never blocks: what cannot be written now is kept by the device, which is told
// when there is room. Big lock's holder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "gyre/base/result.h"
#include "gyre/loop/main_loop.h"

namespace gyre::devices {

// In characters; zeros where it is not known.
struct WindowSize {
  std::uint16_t columns = 0;
  std::uint16_t rows = 0;
  bool operator==(const WindowSize&) const = default;
};

enum class CharUse : std::uint8_t {
  kTerminal,  // people look at it: the guest does not wait for a slow reader, and a late one sees the last
              // output
  kStream,    // programs talk by it: each byte is for one reader, and waits for him
};

class CharFrontend {
 public:
  virtual ~CharFrontend() = default;
  // How many bytes it takes now; input is not read from the host beyond that.
  virtual std::size_t ReceiveRoom() const = 0;
  virtual void Receive(std::span<const std::uint8_t> bytes) = 0;
  // There is room again after a Write that took less than all.
  virtual void WriteReady() = 0;
  virtual CharUse use() const { return CharUse::kTerminal; }
  // Somebody has come to the other end, or gone. May come from within a Write.
  virtual void OpenChanged(bool open) { (void)open; }
  virtual void Resized() {}
};

class CharBackend {
 public:
  virtual ~CharBackend() = default;
  // Takes as much as it can at once and returns how much that was. A terminal's bytes
  // for which there is nobody (null, a socket without a client) count as taken.
  virtual std::size_t Write(std::span<const std::uint8_t> bytes) = 0;
  // At most one; null to detach. Calls nothing of it.
  virtual void SetFrontend(CharFrontend* frontend) = 0;
  // The frontend's ReceiveRoom has grown. Never calls back from within.
  virtual void ResumeInput() = 0;
  // As the form that names it, with what was not known then: "pty:/dev/pts/3".
  virtual std::string filename() const = 0;
  // Somebody is at the other end, as far as one can tell.
  virtual bool open() const { return true; }
  virtual WindowSize size() const { return {}; }
  // The process's own terminal may have another size.
  virtual void WindowChanged() {}
  // The listening socket, borrowed; -1 where there is none.
  virtual int listener() const { return -1; }
};

// `spec`: stdio | null | file:PATH | append:PATH | pty | unix:PATH (a listening
// socket; one client at a time, a late one first gets the last output) | fd:N (such a
// socket, passed to us; it is the backend's from then on) | ringbuf[:SIZE] (memory,
// for RingBuffer). The error names the
// target. Terminals are put into raw mode and restored at destruction, so the
// backend must be destroyed before the process ends. SIGPIPE is ignored for the
// whole process from then on, unless it has a handler.
Result<std::unique_ptr<CharBackend>> NewCharBackend(loop::MainLoop& loop, const std::string& spec);
// Checks the form alone, without side effects.
Status CheckCharSpec(const std::string& spec);

}  // namespace gyre::devices
