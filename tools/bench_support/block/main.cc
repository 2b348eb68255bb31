// gyre-block-floor IMAGE direct|cached PHASES: what the host's own io_uring does with an
// image in a loop that does nothing else: registered file and buffers' memory locked down
// by nobody, completions reaped in batches, each batch submitted and waited for in one
// call. The phases and what is printed are those of the guest block_bench; the third
// number is the system calls.
#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

namespace {

constexpr unsigned kMaxDepth = 128;
constexpr std::size_t kMaxSize = 128 * 1024;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::_Exit(2);
}

struct Phase {
  bool write = false;
  bool random = false;
  std::uint32_t size = 0;
  unsigned depth = 0;
};

class Bench {
 public:
  Bench(const char* path, bool direct) {
    const int fd = ::open(path, O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0));
    struct stat status{};
    if (fd < 0 || ::fstat(fd, &status) != 0) {
      Die(path);
    }
    size_ = static_cast<std::uint64_t>(status.st_size);
    io_uring_params params{};
    params.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    if (io_uring_queue_init_params(2 * kMaxDepth, &ring_, &params) < 0 ||
        io_uring_register_files(&ring_, &fd, 1) < 0) {
      Die("io_uring");
    }
    io_uring_register_ring_fd(&ring_);
    void* const memory = ::mmap(nullptr, kMaxDepth * kMaxSize, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
      Die("mmap");
    }
    memory_ = static_cast<std::uint8_t*>(memory);
  }

  void Run(const Phase& phase, std::uint64_t cycles) {
    latencies_.fill(0);
    std::puts("begin");
    std::fflush(stdout);
    std::uint64_t calls = 0;
    std::uint64_t operations = 0;
    std::uint64_t errors = 0;
    const std::uint64_t start = __rdtsc();
    std::uint64_t now = start;
    for (unsigned i = 0; i < phase.depth; ++i) {
      Start(i, phase, now);
    }
    for (unsigned in_flight = phase.depth; in_flight != 0;) {
      ++calls;
      if (io_uring_submit_and_wait(&ring_, 1) < 0) {
        Die("io_uring_submit_and_wait");
      }
      now = __rdtsc();
      const bool again = now - start < cycles;
      unsigned head = 0;
      unsigned count = 0;
      io_uring_cqe* cqe = nullptr;
      io_uring_for_each_cqe(&ring_, head, cqe) {
        const auto index = static_cast<unsigned>(cqe->user_data);
        NoteLatency(now - started_[index]);
        ++operations;
        ++count;
        errors += cqe->res == static_cast<int>(phase.size) ? 0U : 1U;
        if (again) {
          Start(index, phase, now);
        }
      }
      io_uring_cq_advance(&ring_, count);
      in_flight -= again ? 0 : count;
    }
    std::printf("phase %lu %lu %lu %lu %lu %lu %lu\n", operations, now - start, calls, errors,
                Percentile(operations, 500), Percentile(operations, 990), Percentile(operations, 999));
    std::fflush(stdout);
    ::usleep(50'000);  // whoever reads that looks at our threads now
  }

 private:
  std::uint64_t NextOffset(const Phase& phase) {
    if (phase.random) {
      random_ ^= random_ << 13;
      random_ ^= random_ >> 7;
      random_ ^= random_ << 17;
      return random_ % (size_ / phase.size) * phase.size;
    }
    const std::uint64_t offset = next_;
    next_ = next_ + 2 * std::uint64_t{phase.size} > size_ ? 0 : next_ + phase.size;
    return offset;
  }
  void Start(unsigned index, const Phase& phase, std::uint64_t now) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring_);
    std::uint8_t* const buffer = memory_ + kMaxSize * index;
    if (phase.write) {
      io_uring_prep_write(sqe, 0, buffer, phase.size, NextOffset(phase));
    } else {
      io_uring_prep_read(sqe, 0, buffer, phase.size, NextOffset(phase));
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data64(sqe, index);
    started_[index] = now;
  }
  void NoteLatency(std::uint64_t cycles) {
    const auto top = static_cast<unsigned>(std::bit_width(cycles | 16)) - 1;
    ++latencies_[top * 16 + (cycles >> (top - 4) & 15)];
  }
  std::uint64_t Percentile(std::uint64_t operations, std::uint64_t per_mille) const {
    std::uint64_t seen = 0;
    for (unsigned i = 0; i < latencies_.size(); ++i) {
      seen += latencies_[i];
      if (seen != 0 && seen * 1000 >= operations * per_mille) {
        return (std::uint64_t{16} + i % 16) << (i / 16) >> 4;
      }
    }
    return 0;
  }

  io_uring ring_{};
  std::uint64_t size_ = 0;
  std::uint8_t* memory_ = nullptr;
  std::array<std::uint64_t, kMaxDepth> started_{};
  std::array<std::uint32_t, 64 * std::size_t{16}> latencies_{};
  std::uint64_t next_ = 0;
  std::uint64_t random_ = 0x9e3779b97f4a7c15;
};

const char* After(const char* text, char what) {
  const char* const found = std::strchr(text, what);
  return found == nullptr ? text + std::strlen(text) : found + 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: gyre-block-floor IMAGE direct|cached MILLION_CYCLES,OP:SIZE:DEPTH:QUEUES,...\n",
               stderr);
    return 2;
  }
  Bench bench(argv[1], std::string_view(argv[2]) == "direct");
  const std::uint64_t cycles = std::strtoull(argv[3], nullptr, 10) * 1'000'000;
  for (const char* text = After(argv[3], ','); *text != 0; text = After(text, ',')) {
    const std::string_view op(text);
    Phase phase{.write = op.starts_with("randwrite") || op.starts_with("write"),
                .random = op.starts_with("rand")};
    const char* at = After(text, ':');
    phase.size = static_cast<std::uint32_t>(std::strtoul(at, nullptr, 10));
    at = After(at, ':');
    phase.depth = static_cast<unsigned>(std::strtoul(at, nullptr, 10));
    if (phase.size == 0 || phase.size > kMaxSize || phase.depth == 0 || phase.depth > kMaxDepth) {
      std::fputs("a phase that it cannot do\n", stderr);
      return 2;
    }
    bench.Run(phase, cycles);
  }
  return 0;
}
