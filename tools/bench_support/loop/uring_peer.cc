#include <liburing.h>
#include <poll.h>

#include <cstdlib>
#include <vector>

#include "gyre/base/unique_fd.h"
#include "tools/bench_support/loop/peer.h"

namespace gyre::bench {
namespace {

// As little as can be between a program and its events: no callbacks but one addition, no queues.
class UringPeer final : public Peer {
 public:
  explicit UringPeer(bool level_triggered) : level_triggered_(level_triggered) {
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                   IORING_SETUP_CQSIZE;
    params.cq_entries = 4096;
    if (io_uring_queue_init_params(1024, &ring_, &params) != 0) {
      std::abort();
    }
    io_uring_register_ring_fd(&ring_);
  }
  ~UringPeer() override { io_uring_queue_exit(&ring_); }
  UringPeer(const UringPeer&) = delete;
  UringPeer& operator=(const UringPeer&) = delete;

  std::string_view name() const override { return level_triggered_ ? "liburing, level" : "liburing"; }
  void WatchEventFds(std::span<const int> fds, std::uint64_t& events) override {
    events_ = &events;
    for (const int fd : fds) {
      Arm(fd);
    }
  }
  void Iterate() override {
    io_uring_submit_and_get_events(&ring_);
    unsigned head = 0;
    unsigned seen = 0;
    io_uring_cqe* cqe = nullptr;
    ready_.clear();
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++seen;
      if (cqe->user_data >= kReads) {
        ++*reads_done_;
      } else if (level_triggered_ || (cqe->flags & IORING_CQE_F_MORE) == 0) {
        ready_.push_back(static_cast<int>(cqe->user_data));
      } else {
        ++*events_;
      }
    }
    io_uring_cq_advance(&ring_, seen);
    for (const int fd : ready_) {
      *events_ += !level_triggered_ || DrainEventFd(fd) ? 1 : 0;
      Arm(fd);
    }
  }

  bool has_timers() const override { return false; }
  void MakeTimers(std::size_t, std::uint64_t&) override {}
  void SetTimer(std::size_t, std::int64_t) override {}
  void MakeDeferred(std::size_t, std::uint64_t&) override {}
  void Defer(std::size_t) override {}

  void MakeReads(std::size_t count, std::uint64_t& done) override {
    memory_.resize(count * kReadBytes);
    reads_done_ = &done;
  }
  void StartRead(std::size_t read, int fd, std::uint64_t offset) override {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_read(sqe, fd, memory_.data() + read * kReadBytes, kReadBytes, offset);
    io_uring_sqe_set_data64(sqe, kReads + read);
  }

  void Serve(const std::function<void()>& poked) override {
    std::uint64_t ignored = 0;
    WatchEventFds(std::span(&poke_fd_number_, 1), ignored);
    while (!stopped_) {
      io_uring_submit_and_wait(&ring_, 1);
      io_uring_cqe* cqe = nullptr;
      while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
        io_uring_cqe_seen(&ring_, cqe);
        DrainEventFd(poke_fd_number_);
        poked();
      }
    }
  }
  void Poke() override { SignalEventFd(poke_fd_number_); }
  void Stop() override { stopped_ = true; }

 private:
  static constexpr std::uint64_t kReads = 1U << 20;  // completions from here on are reads; below, fds

  void Arm(int fd) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    if (level_triggered_) {
      io_uring_prep_poll_add(sqe, fd, POLLIN);
    } else {
      io_uring_prep_poll_multishot(sqe, fd, POLLIN);
    }
    io_uring_sqe_set_data64(sqe, static_cast<std::uint64_t>(fd));
  }

  const bool level_triggered_;
  io_uring ring_{};
  UniqueFd poke_fd_ = NewEventFd().value();
  const int poke_fd_number_ = poke_fd_.get();
  std::uint64_t* events_ = nullptr;
  std::vector<int> ready_;
  std::vector<std::byte> memory_;
  std::uint64_t* reads_done_ = nullptr;
  bool stopped_ = false;
};

}  // namespace

std::unique_ptr<Peer> NewUring(bool level_triggered) { return std::make_unique<UringPeer>(level_triggered); }

}  // namespace gyre::bench
