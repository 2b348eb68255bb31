#include <optional>
#include <vector>

#include "gyre/base/unique_fd.h"
#include "gyre/loop/async_op.h"
#include "gyre/loop/main_loop.h"
#include "tools/bench_support/loop/peer.h"

namespace gyre::bench {
namespace {

using loop::AsyncOp;
using loop::BottomHalf;
using loop::ClockType;
using loop::EventFdWatch;
using loop::MainLoop;
using loop::Timer;
using loop::Watch;

class GyrePeer final : public Peer {
 public:
  explicit GyrePeer(bool level_triggered) NO_THREAD_SAFETY_ANALYSIS : level_triggered_(level_triggered) {
    big_lock_.Lock();
    loop_ = MainLoop::Create(big_lock_).value();
  }
  ~GyrePeer() override {
    poked_.reset();
    reads_.clear();
    deferred_.clear();
    timers_.clear();
    watches_.clear();
    bells_.clear();
    loop_.reset();
    Leave();
  }
  GyrePeer(const GyrePeer&) = delete;
  GyrePeer& operator=(const GyrePeer&) = delete;

  std::string_view name() const override { return level_triggered_ ? "gyre, level" : "gyre"; }
  void WatchEventFds(std::span<const int> fds, std::uint64_t& events) override {
    for (const int fd : fds) {
      if (level_triggered_) {
        watches_.push_back(std::make_unique<Watch>(
            *loop_, fd, Watch::kRead, [&events, fd](unsigned) { events += DrainEventFd(fd) ? 1 : 0; }));
      } else {
        bells_.push_back(std::make_unique<EventFdWatch>(*loop_, fd, [&events] { ++events; }));
      }
    }
  }
  void Iterate() NO_THREAD_SAFETY_ANALYSIS override { loop_->RunOnce(true); }

  void MakeTimers(std::size_t count, std::uint64_t& fired) override {
    for (std::size_t i = 0; i < count; ++i) {
      timers_.push_back(std::make_unique<Timer>(*loop_, ClockType::kRealtime, [&fired] { ++fired; }));
    }
  }
  void SetTimer(std::size_t timer, std::int64_t deadline_ns) override { timers_[timer]->Set(deadline_ns); }
  void MakeDeferred(std::size_t count, std::uint64_t& ran) override {
    for (std::size_t i = 0; i < count; ++i) {
      deferred_.push_back(std::make_unique<BottomHalf>(*loop_, [&ran] { ++ran; }));
    }
  }
  void Defer(std::size_t call) override { deferred_[call]->Schedule(); }

  void MakeReads(std::size_t count, std::uint64_t& done) override {
    memory_.resize(count * kReadBytes);
    for (std::size_t i = 0; i < count; ++i) {
      reads_.push_back(std::make_unique<AsyncOp>(*loop_, nullptr, [&done](std::int32_t) { ++done; }));
    }
  }
  void StartRead(std::size_t read, int fd, std::uint64_t offset) override {
    reads_[read]->Read(fd, std::span(memory_).subspan(read * kReadBytes, kReadBytes), offset);
  }

  void Serve(const std::function<void()>& poked) NO_THREAD_SAFETY_ANALYSIS override {
    poked_.emplace(*loop_, [&poked] { poked(); });
    ready_.store(true);
    ready_.notify_one();
    while (!stopped_) {
      loop_->RunOnce(false);
    }
  }
  void Poke() override {
    ready_.wait(false);
    poked_->Schedule();
  }
  void Stop() override { stopped_ = true; }

 private:
  void Leave() NO_THREAD_SAFETY_ANALYSIS { big_lock_.Unlock(); }

  const bool level_triggered_;
  BigLock big_lock_;
  std::unique_ptr<MainLoop> loop_;
  std::vector<std::unique_ptr<Watch>> watches_;
  std::vector<std::unique_ptr<EventFdWatch>> bells_;
  std::vector<std::unique_ptr<Timer>> timers_;
  std::vector<std::unique_ptr<BottomHalf>> deferred_;
  std::vector<std::byte> memory_;
  std::vector<std::unique_ptr<AsyncOp>> reads_;
  std::optional<BottomHalf> poked_;
  std::atomic<bool> ready_{false};
  bool stopped_ = false;
};

}  // namespace

std::unique_ptr<Peer> NewGyre(bool level_triggered) { return std::make_unique<GyrePeer>(level_triggered); }

}  // namespace gyre::bench
