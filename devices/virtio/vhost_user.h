// The front end's side of vhost-user, without a device: who the back end is, what it can do, and its
// rings' start and end. A connection that is lost, for whatever reason, is told and made anew, at intervals
// that grow; the back end that is found then has to be able to do what the first one could.
// Main loop, big lock held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/vhost_user_channel.h"
#include "devices/virtio/vhost_user_ring.h"
#include "gyre/base/mapping.h"
#include "gyre/base/result.h"
#include "gyre/loop/main_loop.h"

namespace gyre::virtio {

inline constexpr std::int64_t kVhostTimeoutNs = 5'000'000'000;  // for each answer

struct VhostOptions {
  std::string path;  // of its socket; with `connect`, what people know it by
  // A connection to it, which may have to be started for that.
  std::function<Result<UniqueFd>()> connect = {};
  unsigned queues = 1;          // that it has to serve
  std::size_t config_size = 0;  // bytes of the configuration space that are its to tell
  std::uint64_t features = 0;   // of these, those that the first one has are needed from then on
  std::int64_t timeout_ns = kVhostTimeoutNs;
};

// What a ring has beside its memory: the eventfds of both ways.
struct VhostDoorbells {
  int kick = -1;
  int call = -1;
};

class VhostUser {
 public:
  struct Owner {
    std::function<void()> connected;                    // again: what was started is to be started anew
    std::function<void(const std::string& what)> lost;  // nothing is the back end's any more
  };

  // Waits until it is known what the back end can do; no longer than a few answers may take. Errors (kUsage)
  // do not name the option.
  static Result<std::unique_ptr<VhostUser>> Open(loop::MainLoop& loop, VhostOptions options);
  VhostUser(const VhostUser&) = delete;
  VhostUser& operator=(const VhostUser&) = delete;
  ~VhostUser() = default;

  void SetOwner(Owner owner) { owner_ = std::move(owner); }
  const std::string& path() const { return options_.path; }
  bool connected() const { return state_ == State::kReady; }
  // How often it has been found.
  std::uint64_t connections() const { return connections_; }
  // Why the last one was lost; empty: none was.
  const std::string& trouble() const { return trouble_; }
  // Of those in the options.
  std::uint64_t features() const { return options_.features; }
  std::span<const std::byte> config() const { return config_; }
  std::int64_t timeout_ns() const { return options_.timeout_ns; }

  // Connected. `memory` has what the rings are in, one behind the other from `rings` on, and all are empty.
  void Start(std::uint64_t driver_features, const SharedRanges& memory, std::uint64_t rings,
             std::span<const VhostDoorbells> doorbells);
  // `stopped` is called once it has said that it is in none of its rings any more; not if it is lost before.
  void Stop(unsigned queues, std::function<void()> stopped = {});
  // It is not to be trusted further; `lost` follows.
  void Lose(std::string what);

 private:
  enum class State : std::uint8_t { kNone, kGreeting, kReady };
  VhostUser(loop::MainLoop& loop, VhostOptions options);
  Status Connect();
  void Greet();
  void GotFeatures(std::uint64_t features);
  void GotProtocolFeatures(std::uint64_t features);
  void AskQueues();
  void AskConfig();
  void Ready();
  void Broken(const std::string& what);
  void Retry();
  void AskNumber(VhostRequest request, std::function<void(std::uint64_t)> done);
  template <typename T>
  void Tell(VhostRequest request, const T& payload, std::span<const int> fds = {});

  loop::MainLoop& loop_;
  VhostOptions options_;
  Owner owner_;
  State state_ = State::kNone;
  std::unique_ptr<VhostChannel> channel_;
  loop::Timer retry_;
  bool opened_ = false;  // the first one was there
  std::uint64_t all_features_ = 0;
  std::uint64_t protocol_features_ = 0;
  std::vector<std::byte> config_;
  std::uint64_t connections_ = 0;
  std::string trouble_;
  std::int64_t connected_ns_ = 0;
  std::int64_t delay_ns_ = 0;
};

}  // namespace gyre::virtio
