#include "tools/agent/streams.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "gyre/base/non_blocking.h"

namespace gyre::exec {

InputStream::InputStream(UniqueFd fd, Link& link) : fd_(std::move(fd)) { GiveCredit(kWindow, link); }

short InputStream::events() const { return static_cast<short>(kept_.empty() ? 0 : POLLOUT); }

bool InputStream::Take(std::string_view bytes, Link& link) {
  if (bytes.size() > credit_ || ends_) {
    return false;
  }
  credit_ -= static_cast<std::uint32_t>(bytes.size());
  last_ = bytes.back();
  if (fd_) {
    kept_ += bytes;
    Write(link);
  }
  return true;
}

bool InputStream::End(std::optional<char> end_character) {
  if (std::exchange(ends_, true)) {
    return false;
  }
  if (fd_ && end_character) {
    // In the midst of a line the first one ends that alone.
    kept_.append(last_ == '\n' ? 1 : 2, *end_character);
  } else if (kept_.empty()) {
    Close();
  }
  return true;
}

void InputStream::Serve(Link& link) {
  if (!kept_.empty()) {
    Write(link);
    return;
  }
  link.Put(FrameType::kStdinClosed);  // nothing but that was waited for
  Close();
}

void InputStream::Write(Link& link) {
  const ssize_t wrote = ::write(fd_.get(), kept_.data() + written_, kept_.size() - written_);
  if (wrote < 0 && IsTransient(errno)) {
    return;
  }
  if (wrote < 0) {
    link.Put(FrameType::kStdinClosed);
    Close();
    return;
  }
  written_ += static_cast<std::size_t>(wrote);
  if (written_ == kept_.size() || written_ >= kWindow / 4) {
    kept_.erase(0, std::exchange(written_, 0));
  }
  GiveCredit(static_cast<std::size_t>(wrote), link);
  if (kept_.empty() && ends_) {
    Close();
  }
}

void InputStream::GiveCredit(std::size_t bytes, Link& link) {
  owed_ += static_cast<std::uint32_t>(bytes);
  if (!ends_ && owed_ >= kWindow / 4) {  // in few frames
    credit_ += owed_;
    link.Put(FrameType::kCredit, NumberPayload(std::exchange(owed_, 0)));
  }
}

void InputStream::Close() {
  fd_.Reset();
  kept_.clear();
  written_ = 0;
}

void OutputStream::Serve(Link& link) {
  std::array<char, kMostData> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  const std::size_t most = std::min(buffer.size(), left_.value_or(buffer.size()));
  const ssize_t got = ::read(fd_.get(), buffer.data(), most);
  if (got < 0 && IsTransient(errno)) {
    return;
  }
  if (got > 0) {
    link.Put(type_, {buffer.data(), static_cast<std::size_t>(got)});
    left_ = left_ ? std::optional(*left_ - static_cast<std::size_t>(got)) : std::nullopt;
  }
  if (got <= 0 || left_ == 0) {
    fd_.Reset();  // a terminal's end is an error
  }
}

void OutputStream::EndWithWhatIsThere() {
  int left = 0;
  if (fd_ && ::ioctl(fd_.get(), FIONREAD, &left) == 0 && left > 0) {
    left_ = static_cast<std::size_t>(left);
  } else {
    fd_.Reset();
  }
}

bool OutputStream::HasMore() const {
  pollfd entry = {.fd = fd(), .events = POLLIN, .revents = 0};
  return ::poll(&entry, 1, 0) > 0;
}

}  // namespace gyre::exec
