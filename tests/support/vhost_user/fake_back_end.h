// A vhost-user back end for tests, on a thread of its own or step by step: a disk of 64 KiB in memory that
// serves rings as the protocol says, or that lies, hangs and dies as a test wants.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "devices/virtio/vhost_user_protocol.h"
#include "gyre/base/mapping.h"
#include "gyre/base/unique_fd.h"

namespace gyre::virtio::test {

class FakeBackEnd {
 public:
  static constexpr std::size_t kDiskSize = std::size_t{64} * 1024;
  struct Message {
    VhostHeader header;
    std::vector<std::byte> payload;
  };
  struct Options {
    std::uint64_t features = (1ULL << 32) | (1ULL << 30) | (1ULL << 9) | (1ULL << 6);
    std::uint64_t protocol_features = kVhostMultiQueue | kVhostReplyAck | kVhostConfig;
    std::uint64_t queues = 4;
    bool network = false;  // instead of a disk: what queue 1 is given comes back by queue 0
    // Sees each answer, and may change it; nothing is sent if it returns false.
    std::function<bool(VhostRequest request, Message& answer)> change = {};
  };
  // What it does with what it is asked to do. The rest is for a driver that believes what it is told.
  enum class Mode : std::uint8_t {
    kServe,
    kHold,       // takes it, and does not finish
    kBackwards,  // all that is there, the last one first
    kBadId,      // names a request that there is not
    kJump,       // says that more is done than there was
    kTooLong,    // says that it has written more than there is room for
  };

  FakeBackEnd(std::string path, Options options, bool threaded = true);
  FakeBackEnd(const FakeBackEnd&) = delete;
  FakeBackEnd& operator=(const FakeBackEnd&) = delete;
  // As if it was killed: its sockets are closed, and what it has not finished never will be.
  ~FakeBackEnd();

  void SetMode(Mode mode) { mode_ = mode; }
  unsigned taken() const { return taken_; }  // requests
  unsigned finished() const { return finished_; }
  unsigned started() const { return started_; }  // rings, so far
  unsigned stopped() const { return stopped_; }  // by GET_VRING_BASE
  std::uint64_t driver_features() const { return driver_features_; }
  // The front end's connection is closed, but it is there still.
  void Hangup();
  // Bytes that nobody has asked for.
  void SendRaw(std::span<const std::byte> bytes);
  void ReadDisk(std::uint64_t offset, std::span<std::byte> out);

  // --- Without a thread.
  // Does what there is to do, and waits for that first.
  void Step(int timeout_ms);
  // Writes into queue 0's used ring, as far as there is one.
  void Scribble(std::uint64_t offset, std::span<const std::byte> bytes);

 private:
  struct Region {
    std::uint64_t guest_address = 0;
    std::uint64_t user_address = 0;
    std::uint64_t size = 0;
    std::uint64_t offset = 0;
    Mapping mapping;
  };
  struct Ring {
    std::uint32_t size = 0;
    VhostVringAddress address;
    UniqueFd kick;
    UniqueFd call;
    bool enabled = false;
    std::uint16_t available = 0;
    std::uint16_t used = 0;
  };
  struct Piece {
    std::byte* data;
    std::uint32_t size;
    bool writable;
  };
  bool Receive();
  void Answer(const Message& request, std::vector<UniqueFd> fds);
  void Send(VhostRequest request, std::vector<std::byte> payload);
  void SetMemTable(const Message& request, std::vector<UniqueFd> fds);
  void ServeRing(Ring& ring);
  void ServeNetwork(Ring& ring);
  std::vector<std::uint16_t> TakeHeads(Ring& ring, std::size_t most);
  std::vector<Piece> PiecesOf(std::uint16_t head, const Ring& ring);
  std::uint32_t Work(std::uint16_t head, const Ring& ring);
  void Put(Ring& ring, std::uint32_t id, std::uint32_t written);
  std::byte* At(std::uint64_t address, bool user);

  const Options options_;
  UniqueFd listener_;
  std::string path_;
  UniqueFd connection_;
  UniqueFd wake_;
  std::atomic<bool> end_ = false;
  std::atomic<bool> hangup_ = false;
  std::atomic<Mode> mode_ = Mode::kServe;
  std::atomic<unsigned> taken_ = 0;
  std::atomic<unsigned> finished_ = 0;
  std::atomic<unsigned> started_ = 0;
  std::atomic<unsigned> stopped_ = 0;
  std::atomic<std::uint64_t> driver_features_ = 0;
  std::mutex mutex_;
  std::vector<std::byte> raw_;
  std::array<std::byte, kDiskSize> disk_{};
  std::deque<std::vector<std::byte>> frames_;
  std::vector<Region> regions_;
  std::array<Ring, 16> rings_;
  std::thread thread_;
};

}  // namespace gyre::virtio::test
