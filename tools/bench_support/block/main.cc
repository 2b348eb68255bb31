// gyre-block-floor IMAGE direct|cached PHASES [ring]: what the host's own io_uring does with
// an image in a loop that does nothing else: registered file and buffers' memory locked down
// by nobody, completions reaped in batches, each batch submitted and waited for in one
// call. With `ring` the requests come by a virtqueue from another thread (ring.h). The
// phases and what is printed are those of the guest block_bench; the third number is
// the system calls.
#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <array>
#include <string_view>

#include "tools/bench_support/block/phases.h"
#include "tools/bench_support/block/ring.h"

namespace gyre::bench {

Image::Image(const char* path, bool direct) {
  const int fd = ::open(path, O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0));
  struct stat status{};
  if (fd < 0 || ::fstat(fd, &status) != 0) {
    Die(path);
  }
  size = static_cast<std::uint64_t>(status.st_size);
  io_uring_params params{};
  params.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  if (io_uring_queue_init_params(2 * kMaxDepth, &ring, &params) < 0 ||
      io_uring_register_files(&ring, &fd, 1) < 0) {
    Die("io_uring");
  }
  io_uring_register_ring_fd(&ring);
  void* const mapped = ::mmap(nullptr, kMaxDepth * kStride, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (mapped == MAP_FAILED) {
    Die("mmap");
  }
  memory = static_cast<std::uint8_t*>(mapped);
}

void Image::Start(unsigned index, bool write, std::uint8_t* buffer, std::uint32_t length,
                  std::uint64_t offset) {
  io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
  if (write) {
    io_uring_prep_write(sqe, 0, buffer, length, offset);
  } else {
    io_uring_prep_read(sqe, 0, buffer, length, offset);
  }
  io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data64(sqe, index);
}

namespace {

void Run(Image& image, const Phase& phase, std::uint64_t cycles) {
  std::array<std::uint64_t, kMaxDepth> started{};
  Offsets offsets(image.size);
  Tally tally;
  std::uint64_t now = tally.start();
  const auto start = [&](unsigned index) {
    image.Start(index, phase.write, image.Buffer(index), phase.size, offsets.Next(phase));
    started[index] = now;
  };
  for (unsigned i = 0; i < phase.depth; ++i) {
    start(i);
  }
  for (unsigned in_flight = phase.depth; in_flight != 0;) {
    tally.Call();
    if (io_uring_submit_and_wait(&image.ring, 1) < 0) {
      Die("io_uring_submit_and_wait");
    }
    now = __rdtsc();
    const bool again = now - tally.start() < cycles;
    const unsigned count = image.Reap([&](unsigned index, int result) {
      tally.Done(now - started[index], result == static_cast<int>(phase.size));
      if (again) {
        start(index);
      }
    });
    in_flight -= again ? 0 : count;
  }
  tally.Print(now);
}

int Main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::fputs("usage: gyre-block-floor IMAGE direct|cached MILLION_CYCLES,OP:SIZE:DEPTH:QUEUES,... [ring]\n",
               stderr);
    return 2;
  }
  Image image(argv[1], std::string_view(argv[2]) == "direct");
  return ForEachPhase(argv[3], [&](const Phase& phase, std::uint64_t cycles) {
    argc == 5 ? RunRing(image, phase, cycles) : Run(image, phase, cycles);
  });
}

}  // namespace
}  // namespace gyre::bench

int main(int argc, char** argv) { return gyre::bench::Main(argc, argv); }
