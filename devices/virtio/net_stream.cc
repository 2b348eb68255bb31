#include "devices/virtio/net_stream.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "gyre/base/non_blocking.h"

namespace gyre::virtio {
namespace {

constexpr std::size_t kLengthSize = 4;
constexpr std::size_t kBufferSize = 256 * kKiB;  // several of the largest frames
constexpr std::size_t kMostVectors = 1000;       // of one sendmsg(2), below IOV_MAX

// Either side's hold on the connection: its own watch, made anew with each.
class Side {
 public:
  Side(NetConnection& connection, loop::EventLoop& loop, loop::Watch::Events events,
       std::function<void()> ready)
      : connection_(connection), loop_(loop), events_(events), ready_(std::move(ready)) {}

  // True if it is another one than before.
  bool Refresh() {
    if (number_ == connection_.number()) {
      return false;
    }
    watch_.reset();
    fd_ = connection_.Get(number_);
    if (fd_) {
      watch_.emplace(
          loop_, fd_->get(), 0U,
          [this](unsigned) {
            watch_->SetEvents(0);
            ready_();
          },
          loop::Tier::kIo);
    }
    return true;
  }
  bool there() const { return fd_ != nullptr; }
  int fd() const { return fd_->get(); }
  void Await() {
    if (watch_) {
      watch_->SetEvents(events_);
    }
  }
  void Lost() { connection_.Lost(number_); }

 private:
  NetConnection& connection_;
  loop::EventLoop& loop_;
  const loop::Watch::Events events_;
  std::function<void()> ready_;
  std::uint64_t number_ = 0;
  std::shared_ptr<const UniqueFd> fd_;  // gone after its watch
  std::optional<loop::Watch> watch_;
};

class StreamSource final : public NetSource {
 public:
  StreamSource(NetConnection& connection, loop::EventLoop& loop, std::function<void()> readable)
      : side_(connection, loop, loop::Watch::kRead, std::move(readable)), buffer_(kBufferSize) {}

  ssize_t Receive(std::span<const iovec> into) override {
    if (side_.Refresh()) {
      start_ = end_ = 0;
    }
    if (!side_.there()) {
      return -ENOTCONN;
    }
    std::optional<std::size_t> size = NextFrame();
    if (!size) {
      if (const int error = Fill(); error != 0) {
        return -error;
      }
      size = NextFrame();
    }
    if (!size) {
      return -EAGAIN;
    }
    if (*size > kMaxFrame) {
      side_.Lost();  // what follows cannot be told apart any more
      return -EPROTO;
    }
    static constexpr NetHeader kNoOffloads{};
    Copy(std::as_bytes(std::span(&kNoOffloads, 1)), std::span(buffer_).subspan(start_ + kLengthSize, *size),
         into);
    start_ += kLengthSize + *size;
    return static_cast<ssize_t>(kNetHeaderSize + *size);
  }
  void Await() override { side_.Await(); }

 private:
  // The length of the frame at start_, if all of it is there, or it is wrong.
  std::optional<std::size_t> NextFrame() const {
    if (end_ - start_ < kLengthSize) {
      return std::nullopt;
    }
    std::size_t size = 0;
    for (std::size_t i = 0; i < kLengthSize; ++i) {
      size = size << 8 | std::to_integer<std::size_t>(buffer_[start_ + i]);
    }
    return size > kMaxFrame || end_ - start_ >= kLengthSize + size ? std::optional(size) : std::nullopt;
  }
  // An errno, or 0 if there are more bytes than before.
  int Fill() {
    std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(start_),
              buffer_.begin() + static_cast<std::ptrdiff_t>(end_), buffer_.begin());
    end_ -= std::exchange(start_, 0);
    const ssize_t got = ::recv(side_.fd(), buffer_.data() + end_, buffer_.size() - end_, MSG_DONTWAIT);
    if (got > 0) {
      end_ += static_cast<std::size_t>(got);
      return 0;
    }
    if (got < 0 && IsTransient(errno)) {
      return EAGAIN;
    }
    side_.Lost();
    return ECONNRESET;
  }
  // `into` has room for both.
  static void Copy(std::span<const std::byte> header, std::span<const std::byte> frame,
                   std::span<const iovec> into) {
    for (const iovec& piece : into) {
      auto* to = static_cast<std::byte*>(piece.iov_base);
      std::size_t room = piece.iov_len;
      for (auto* const part : {&header, &frame}) {
        const std::size_t count = std::min(room, part->size());
        std::memcpy(to, part->data(), count);
        *part = part->subspan(count);
        to += count;
        room -= count;
      }
    }
  }

  Side side_;
  std::vector<std::byte> buffer_;
  std::size_t start_ = 0;  // of what was not delivered yet
  std::size_t end_ = 0;
};

// A frame goes out as a whole or its rest is kept, so that no chain ever waits for a peer.
class StreamSink final : public NetSink {
 public:
  StreamSink(NetConnection& connection, loop::EventLoop& loop, std::function<void()> room)
      : side_(connection, loop, loop::Watch::kWrite, std::move(room)) {}

  bool HasRoom() override {
    if (side_.Refresh()) {
      rest_.clear();
    }
    if (!side_.there() || rest_.empty()) {
      return true;
    }
    const iovec rest{.iov_base = rest_.data(), .iov_len = rest_.size()};
    const std::size_t sent = SendSome(std::span(&rest, 1));
    rest_.erase(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(sent));
    if (!rest_.empty()) {
      side_.Await();
    }
    return rest_.empty();
  }
  void Send(Chain chain) override {
    if (!side_.there()) {
      return chain.Complete(0);
    }
    const std::uint64_t size = chain.readable_size() - kNetHeaderSize;
    for (std::size_t i = 0; i < kLengthSize; ++i) {
      length_.at(i) = static_cast<std::byte>(size >> (8 * (kLengthSize - 1 - i)) & 0xff);
    }
    vectors_.assign(1, {.iov_base = length_.data(), .iov_len = kLengthSize});
    AppendSlice(chain.readable(), kNetHeaderSize, size, vectors_);
    const std::size_t sent = vectors_.size() <= kMostVectors ? SendSome(vectors_) : 0;
    if (sent < kLengthSize + size) {
      Keep(sent);
    }
    chain.Complete(0);
  }

 private:
  std::size_t SendSome(std::span<const iovec> vectors) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(vectors.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
    message.msg_iovlen = vectors.size();
    const ssize_t sent = ::sendmsg(side_.fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && !IsTransient(errno)) {
      side_.Lost();
    }
    return static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
  }
  // Of vectors_ what is behind the first `sent` bytes.
  void Keep(std::size_t sent) {
    for (const iovec& piece : vectors_) {
      const std::size_t done = std::min(sent, piece.iov_len);
      sent -= done;
      const auto* const from = static_cast<const std::byte*>(piece.iov_base);
      rest_.insert(rest_.end(), from + done, from + piece.iov_len);
    }
  }

  Side side_;
  std::array<std::byte, kLengthSize> length_{};
  std::vector<iovec> vectors_;
  std::vector<std::byte> rest_;  // at most one frame and its length
};

}  // namespace

NetConnection::NetConnection(loop::EventLoop& main, std::function<void()> lost)
    : tell_(main, [this, lost = std::move(lost)] {
        if (there() && lost_.load() == number()) {
          lost();
        }
      }) {}

void NetConnection::Set(UniqueFd fd) {
  const MutexLock lock(mutex_);
  there_ = static_cast<bool>(fd);
  fd_ = fd ? std::make_shared<const UniqueFd>(std::move(fd)) : nullptr;
  number_.fetch_add(1);
}

std::shared_ptr<const UniqueFd> NetConnection::Get(std::uint64_t& number) const {
  const MutexLock lock(mutex_);
  number = number_.load();
  return fd_;
}

void NetConnection::Lost(std::uint64_t number) {
  if (lost_.exchange(number) != number) {
    tell_.Schedule();
  }
}

std::unique_ptr<NetSource> NewStreamSource(NetConnection& connection, loop::EventLoop& loop,
                                           std::function<void()> readable) {
  return std::make_unique<StreamSource>(connection, loop, std::move(readable));
}

std::unique_ptr<NetSink> NewStreamSink(NetConnection& connection, loop::EventLoop& loop,
                                       std::function<void()> room) {
  return std::make_unique<StreamSink>(connection, loop, std::move(room));
}

}  // namespace gyre::virtio
