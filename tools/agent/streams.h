// A command's streams between it and the link, with what is kept of them bounded.
// One thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "gyre/base/unique_fd.h"
#include "tools/exec/link.h"

namespace gyre::exec {

// To the command's standard input. What the client may send is what it was given credit for.
class InputStream {
 public:
  static constexpr std::uint32_t kWindow = std::uint32_t{256} << 10;

  // `fd` does not block. The first credit is given at once.
  InputStream(UniqueFd fd, Link& link);
  int fd() const { return fd_.get(); }  // -1: it has ended
  // What poll(2) is to wait for; that nobody reads any more, it tells anyway.
  short events() const;
  // False: the client had no credit for that.
  bool Take(std::string_view bytes, Link& link);
  // No more comes. `end_character`: what is typed to say so, on a terminal. False: that was said before.
  bool End(std::optional<char> end_character);
  // It can be written to, or nobody reads any more.
  void Serve(Link& link);

 private:
  void Write(Link& link);
  void GiveCredit(std::size_t bytes, Link& link);
  void Close();

  UniqueFd fd_;
  std::string kept_;
  std::size_t written_ = 0;  // of what is kept
  // These two, and what is kept and not written, are the window.
  std::uint32_t credit_ = 0;  // that the client has
  std::uint32_t owed_ = 0;    // that it is to be given
  bool ends_ = false;         // once what is kept is written
  char last_ = '\n';          // that came
};

// From its standard output or error.
class OutputStream {
 public:
  OutputStream(UniqueFd fd, FrameType type) : fd_(std::move(fd)), type_(type) {}
  int fd() const { return fd_.get(); }  // -1: it has ended
  // Reads some, into the link.
  void Serve(Link& link);
  // The command has ended: what it has written is in a pipe by now, and what others write there is not waited
  // for.
  void EndWithWhatIsThere();
  // The same where that comes later: no more than so many bytes.
  void EndWithin(std::size_t bytes) { left_ = bytes; }
  bool HasMore() const;

 private:
  UniqueFd fd_;
  FrameType type_;
  std::optional<std::size_t> left_;
};

}  // namespace gyre::exec
