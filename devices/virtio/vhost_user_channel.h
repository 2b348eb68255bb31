// One connection to a vhost-user back end: messages out, and the answers in their order, each within
// a time limit. Whatever comes that was not asked for, or in another form, ends it; so does silence.
// Main loop, big lock held: any of its holders sends.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/vhost_user_protocol.h"
#include "gyre/base/unique_fd.h"
#include "gyre/loop/main_loop.h"

namespace gyre::virtio {

class VhostChannel {
 public:
  // `answer` is of the size that was asked for.
  using Done = std::move_only_function<void(std::span<const std::byte> answer)>;

  // `broken` is called once, by the loop, with what is wrong: "has closed the connection". The channel may go
  // in that.
  VhostChannel(loop::MainLoop& loop, UniqueFd socket, std::int64_t timeout_ns,
               std::function<void(const std::string& what)> broken);
  VhostChannel(const VhostChannel&) = delete;
  VhostChannel& operator=(const VhostChannel&) = delete;
  ~VhostChannel() = default;

  // From now on each Tell is answered by whether it was carried out (REPLY_ACK).
  void ExpectAcks() { acks_ = true; }
  // The fds are the caller's.
  void Tell(VhostRequest request, std::span<const std::byte> payload, std::span<const int> fds = {});
  void Ask(VhostRequest request, std::span<const std::byte> payload, std::size_t answer_size, Done done);
  // It is of no use any more: `broken` follows.
  void Break(std::string what);

 private:
  static constexpr std::size_t kMostPayload = sizeof(VhostConfigHeader) + kVhostMostConfig;
  struct Expected {
    VhostRequest request;
    std::size_t size;
    Done done;
  };
  struct Output {
    std::vector<std::byte> bytes;
    std::vector<UniqueFd> fds;
    std::size_t sent = 0;
  };
  void Send(VhostRequest request, std::uint32_t flags, std::span<const std::byte> payload,
            std::span<const int> fds);
  void Expect(Expected expected);
  void Flush();
  void Ready(unsigned events);
  bool ReadMessage();
  bool CheckHeader();
  void Restart();

  loop::MainLoop& loop_;
  UniqueFd socket_;
  const std::int64_t timeout_ns_;
  std::function<void(const std::string&)> broken_;
  bool acks_ = false;
  std::string trouble_;  // empty: none
  std::deque<Output> output_;
  std::deque<Expected> expected_;
  std::array<std::byte, sizeof(VhostHeader) + kMostPayload> input_{};
  std::size_t have_ = 0;  // bytes of input_
  loop::BottomHalf fail_;
  loop::Timer deadline_;
  loop::Watch watch_;
};

}  // namespace gyre::virtio
