// A char backend over one or two file descriptors: stdio, files, pty.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "gyre/base/unique_fd.h"
#include "gyre/devices/char_backend.h"
#include "gyre/loop/main_loop.h"

namespace gyre::devices {

// How a descriptor is used so that no call on it can block.
enum class FdMode : std::uint8_t {
  kDirect,  // read and write: our own O_NONBLOCK description, or a regular file
  kSocket,  // recv and send with MSG_DONTWAIT: the description may be shared
  kPolled,  // a shared, blocking description: asked before each call, small pieces
};

struct CharFd {
  UniqueFd fd;  // none: no such direction
  FdMode mode = FdMode::kDirect;
};

// Like read(2) and write(2), -1 with EAGAIN instead of blocking; never SIGPIPE
// from a socket. EINTR does not come back.
ssize_t ReadNow(const CharFd& from, std::span<std::uint8_t> bytes);
ssize_t WriteNow(const CharFd& to, std::span<const std::uint8_t> bytes);

// Of a terminal; zeros for anything else.
WindowSize WindowSizeOf(int fd);

// Ignores SIGPIPE for the process unless somebody has said otherwise: a pipe has
// no other way to say that its reader has gone.
void IgnoreSigpipe();

// Big lock's holder.
class FdBackend : public CharBackend {
 public:
  struct Options {
    std::string filename;
    // Output that nobody takes for this long is dropped until somebody does; -1: it waits for ever.
    std::int64_t drop_after_ns = -1;
  };
  FdBackend(loop::MainLoop& loop, CharFd input, CharFd output, Options options);
  ~FdBackend() override;

  std::size_t Write(std::span<const std::uint8_t> bytes) override;
  void SetFrontend(CharFrontend* frontend) override;
  void ResumeInput() override;
  std::string filename() const override { return options_.filename; }

 protected:
  CharFrontend* frontend() const { return frontend_; }

 private:
  void OnReadable();
  void OnWritable();
  void OnStalled();
  void WaitForRoom();
  void NoteProgress();

  loop::MainLoop& loop_;
  CharFd input_;
  CharFd output_;
  Options options_;
  CharFrontend* frontend_ = nullptr;
  std::unique_ptr<loop::Watch> read_watch_;
  std::unique_ptr<loop::Watch> write_watch_;
  std::unique_ptr<loop::Timer> stall_timer_;
  bool reading_ = false;   // the read watch is on
  bool waiting_ = false;   // the write watch is on
  bool dropping_ = false;  // nobody takes the output
  bool warned_ = false;    // of a failed write
};

}  // namespace gyre::devices
