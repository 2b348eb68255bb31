#include "loop/ring.h"

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "gyre/base/unique_fd.h"

namespace gyre::loop {
namespace {

// Both rings and the SQEs take one page each up to here; a bigger ring costs more to set up and to end.
constexpr unsigned kSmallEntries = 64;
constexpr unsigned kLargeEntries = 256;
constexpr unsigned kLargeCompletions = 4096;

// Best first. A kernel that lacks a flag says EINVAL.
constexpr std::array<unsigned, 3> kSetupFlags = {
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG,                                                    // 6.1
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,  // 5.19
    0,
};

// The sleep's time limit as an argument of io_uring_enter, completions that are never lost, multishot polls.
constexpr unsigned kNeededFeatures = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_RSRC_TAGS;

constexpr std::int64_t kNsPerSecond = 1'000'000'000;

constexpr unsigned kFileSlots = 256;

// By OpKind.
constexpr std::array<std::uint8_t, 11> kOpcodes = {
    IORING_OP_READ,  IORING_OP_WRITE, IORING_OP_READV,     IORING_OP_WRITEV,
    IORING_OP_FSYNC, IORING_OP_FSYNC, IORING_OP_ACCEPT,    IORING_OP_CONNECT,
    IORING_OP_RECV,  IORING_OP_SEND,  IORING_OP_FALLOCATE,
};
// What each kind wants of the union that the flags of all operations are in.
constexpr std::array<std::uint32_t, kOpcodes.size()> kFlags = {
    0, 0, 0, 0, 0, IORING_FSYNC_DATASYNC, SOCK_CLOEXEC, 0, 0, MSG_NOSIGNAL, 0,
};
struct NeededOperation {
  unsigned opcode;
  const char* name;
};
constexpr std::array<NeededOperation, 12> kNeededOperations = {{
    {IORING_OP_POLL_ADD, "IORING_OP_POLL_ADD"},
    {IORING_OP_ASYNC_CANCEL, "IORING_OP_ASYNC_CANCEL"},
    {IORING_OP_READ, "IORING_OP_READ"},
    {IORING_OP_WRITE, "IORING_OP_WRITE"},
    {IORING_OP_READV, "IORING_OP_READV"},
    {IORING_OP_WRITEV, "IORING_OP_WRITEV"},
    {IORING_OP_FSYNC, "IORING_OP_FSYNC"},
    {IORING_OP_ACCEPT, "IORING_OP_ACCEPT"},
    {IORING_OP_CONNECT, "IORING_OP_CONNECT"},
    {IORING_OP_RECV, "IORING_OP_RECV"},
    {IORING_OP_SEND, "IORING_OP_SEND"},
    {IORING_OP_FALLOCATE, "IORING_OP_FALLOCATE"},
}};

// The kernel's list of its operations, which ends in an array of one entry each.
struct Probe {
  alignas(
      io_uring_probe) std::array<std::byte, sizeof(io_uring_probe) + 256 * sizeof(io_uring_probe_op)> bytes{};
  // Aligned for it.
  io_uring_probe& get() {
    return *static_cast<io_uring_probe*>(
        static_cast<void*>(bytes.data()));  // NOLINT(bugprone-casting-through-void)
  }
};

std::optional<int> ReadIoUringDisabled() {
  const UniqueFd file(::open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC));
  char digit = 0;
  if (!file || ::read(file.get(), &digit, 1) != 1) {
    return std::nullopt;
  }
  return digit - '0';
}

}  // namespace

const char* MissingOperation(const io_uring_probe& probe) {
  for (const NeededOperation& needed : kNeededOperations) {
    if (needed.opcode >= probe.ops_len || (probe.ops[needed.opcode].flags & IO_URING_OP_SUPPORTED) == 0) {
      return needed.name;
    }
  }
  return nullptr;
}

Error RingRefused(int sys_errno, std::optional<int> io_uring_disabled) {
  std::string why;
  switch (sys_errno) {
    case EPERM:
      if (io_uring_disabled.value_or(0) == 0) {
        why = "a seccomp filter forbids it";
      } else if (*io_uring_disabled == 1) {
        why =
            "sysctl kernel.io_uring_disabled is 1: only CAP_SYS_ADMIN and the members of the group in sysctl "
            "kernel.io_uring_group may use it";
      } else {
        why = format("sysctl kernel.io_uring_disabled is {}: nobody may use it", *io_uring_disabled);
      }
      break;
    case ENOSYS:
      why = "the kernel was built without it, or a seccomp filter hides it";
      break;
    case ENOMEM:
      why = "no memory for it; a kernel before 5.12 counts it against RLIMIT_MEMLOCK (ulimit -l)";
      break;
    case EMFILE:
      why = "too many open files in this process: RLIMIT_NOFILE (ulimit -n)";
      break;
    case ENFILE:
      why = "too many open files on this machine: sysctl fs.file-max";
      break;
    default:
      why = "the kernel is too old for it (5.13 is needed)";
      break;
  }
  return Error::Sys(format("io_uring is not to be had: {}: io_uring_setup", why), sys_errno,
                    ErrorKind::kUsage);
}

struct Ring::State {
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (ready) {
      io_uring_queue_exit(&ring);
    }
  }

  io_uring_sqe* NextSqe() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    CHECK(sqe != nullptr);
    prepared.store(prepared.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    return sqe;
  }

  int Enter(unsigned to_submit, unsigned wait_for, unsigned flags, void* argument, std::size_t size) {
    return io_uring_enter2(static_cast<unsigned>(enter_fd), to_submit, wait_for,
                           IORING_ENTER_GETEVENTS | enter_flags | flags, static_cast<sigset_t*>(argument),
                           size);
  }

  // Makes the prepared SQEs visible to the kernel; returns how many wait there. Not io_uring_submit_*: those
  // of liburing 2.3 sleep a second time when a time limit runs out in a call that also submitted.
  unsigned Publish() {
    if (ring.sq.sqe_head != ring.sq.sqe_tail) {
      ring.sq.sqe_head = ring.sq.sqe_tail;
      io_uring_smp_store_release(ring.sq.ktail, ring.sq.sqe_tail);
    }
    return io_uring_sq_ready(&ring);
  }

  // Completions that only the kernel can put into the ring: those that did not fit, and (where the ring says
  // so) those of work that it left for us to run. One entry runs at most 20 of the latter.
  bool KernelMayHoldCompletions() {
    const unsigned flags = io_uring_smp_load_acquire(ring.sq.kflags);
    stale = stale && (flags & IORING_SQ_TASKRUN) != 0;
    return (flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
  }
  bool MustEnterToKnow() {
    return (ring.flags & IORING_SETUP_TASKRUN_FLAG) == 0 || KernelMayHoldCompletions();
  }

  // False if there was none.
  bool Reap(std::vector<Completion>& completions) {
    const unsigned count = io_uring_cq_ready(&ring);
    const unsigned head = *ring.cq.khead;
    const std::size_t before = completions.size();
    completions.resize(before + count);
    for (unsigned i = 0; i < count; ++i) {
      const io_uring_cqe& cqe = ring.cq.cqes[(head + i) & ring.cq.ring_mask];
      completions[before + i] = {
          .token = cqe.user_data, .result = cqe.res, .more = (cqe.flags & IORING_CQE_F_MORE) != 0};
    }
    io_uring_cq_advance(&ring, count);
    return count != 0;
  }

  io_uring ring{};
  bool ready = false;  // `ring` is set up
  int enter_fd = -1;   // the ring's fd, or its place among those that are registered
  unsigned enter_flags = 0;
  RingFeatures features;
  std::vector<unsigned> free_files;  // slots; made with the table when the first file is registered
  bool files_tried = false;
  // The kernel's flag says that it has left work, though an entry has just brought nothing: whoever adds work
  // sets it afterwards, perhaps after we have run that. Nothing clears it before there is more.
  bool stale = false;
  std::atomic<std::uint64_t> prepared{0};
};

Ring::Ring(std::unique_ptr<State> state) : state_(std::move(state)) {}
Ring::Ring(Ring&&) noexcept = default;
Ring::~Ring() = default;

Result<Ring> Ring::Create(RingSize size) {
  auto state = std::make_unique<State>();
  io_uring_params params{};
  int result = -EINVAL;
  for (const unsigned flags : kSetupFlags) {
    params = {};
    params.flags = flags;
    if (size == RingSize::kLarge) {
      params.flags |= IORING_SETUP_CQSIZE;
      params.cq_entries = kLargeCompletions;
    }
    result = io_uring_queue_init_params(size == RingSize::kLarge ? kLargeEntries : kSmallEntries,
                                        &state->ring, &params);
    if (result != -EINVAL) {
      break;
    }
  }
  if (result < 0) {
    return Fail(RingRefused(-result, result == -EPERM ? ReadIoUringDisabled() : std::nullopt));
  }
  state->ready = true;
  if ((params.features & kNeededFeatures) != kNeededFeatures) {
    return Fail(RingRefused(EINVAL, std::nullopt));
  }
  Probe probe;
  if (io_uring_register_probe(&state->ring, &probe.get(), 256) < 0) {
    return Fail(RingRefused(EINVAL, std::nullopt));
  }
  if (const char* missing = MissingOperation(probe.get()); missing != nullptr) {
    return Fail(Error::Usage(format("io_uring is not to be had: the kernel's has no {}", missing)));
  }
  for (unsigned i = 0; i < params.sq_entries; ++i) {
    state->ring.sq.array[i] = i;  // Publish counts on slot i being SQE i
  }
  state->enter_fd = state->ring.ring_fd;
  const bool registered = io_uring_register_ring_fd(&state->ring) == 1;
  if (registered) {
    state->enter_fd = state->ring.enter_ring_fd;
    state->enter_flags = IORING_ENTER_REGISTERED_RING;
  }
  state->features = {.deferred_work = (params.flags & IORING_SETUP_DEFER_TASKRUN) != 0,
                     .work_flag = (params.flags & IORING_SETUP_TASKRUN_FLAG) != 0,
                     .registered_fd = registered};
  return Ring(std::move(state));
}

const RingFeatures& Ring::features() const { return state_->features; }

std::uint64_t Ring::prepared() const { return state_->prepared.load(std::memory_order_relaxed); }

unsigned Ring::space() const { return io_uring_sq_space_left(&state_->ring); }

unsigned Ring::unsubmitted() const { return io_uring_sq_ready(&state_->ring); }

bool Ring::HasPrepared() const {
  return state_->ring.sq.sqe_head != state_->ring.sq.sqe_tail || unsubmitted() != 0;
}

bool Ring::HasCompletions() const {
  return io_uring_cq_ready(&state_->ring) != 0 || (state_->KernelMayHoldCompletions() && !state_->stale);
}

void Ring::PollOnce(Token token, int fd, unsigned events) {
  io_uring_sqe* sqe = state_->NextSqe();
  io_uring_prep_poll_add(sqe, fd, events);
  io_uring_sqe_set_data64(sqe, token);
}

void Ring::PollEveryTime(Token token, int fd, unsigned events) {
  io_uring_sqe* sqe = state_->NextSqe();
  io_uring_prep_poll_multishot(sqe, fd, events);
  io_uring_sqe_set_data64(sqe, token);
}

void Ring::Start(Token token, const Operation& operation) {
  io_uring_sqe* sqe = state_->NextSqe();
  const auto kind = static_cast<std::size_t>(operation.kind);
  const bool connects = operation.kind == OpKind::kConnect;
  // Of connect, the kernel takes the address's size for the offset.
  io_uring_prep_rw(kOpcodes[kind], sqe, operation.fd, operation.memory, connects ? 0 : operation.size,
                   connects ? operation.size : operation.offset);
  if (operation.file_slot) {
    sqe->fd = static_cast<int>(*operation.file_slot);
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  }
  if (operation.kind == OpKind::kAllocate) {
    sqe->addr = operation.extra;
  } else {
    sqe->rw_flags = static_cast<int>(kFlags[kind] | operation.extra);
  }
  io_uring_sqe_set_data64(sqe, token);
}

FileSlot Ring::RegisterFile(int fd) {
  State& state = *state_;
  if (!std::exchange(state.files_tried, true)) {
    const std::vector<int> none(kFileSlots, -1);
    if (io_uring_register_files(&state.ring, none.data(), kFileSlots) == 0) {
      for (unsigned slot = kFileSlots; slot > 0; --slot) {
        state.free_files.push_back(slot - 1);
      }
    }
  }
  if (state.free_files.empty() ||
      io_uring_register_files_update(&state.ring, state.free_files.back(), &fd, 1) != 1) {
    return std::nullopt;
  }
  const unsigned slot = state.free_files.back();
  state.free_files.pop_back();
  return slot;
}

void Ring::ForgetFile(unsigned slot) {
  int none = -1;
  if (io_uring_register_files_update(&state_->ring, slot, &none, 1) == 1) {
    state_->free_files.push_back(slot);
  }
}

void Ring::Cancel(Token token) {
  io_uring_sqe* sqe = state_->NextSqe();
  io_uring_prep_cancel64(sqe, token, 0);
  io_uring_sqe_set_data64(sqe, 0);
}

int Ring::Submit(std::vector<Completion>& completions) {
  const unsigned to_submit = state_->Publish();
  if (to_submit == 0) {
    return 0;
  }
  const int result = state_->Enter(to_submit, 0, 0, nullptr, 0);
  state_->Reap(completions);
  return result == -EINTR || result > 0 ? 0 : result;
}

int Ring::Wait(std::int64_t timeout_ns, std::vector<Completion>& completions) {
  const unsigned to_submit = state_->Publish();
  int result = 0;
  if (timeout_ns != 0) {
    __kernel_timespec limit{.tv_sec = timeout_ns / kNsPerSecond, .tv_nsec = timeout_ns % kNsPerSecond};
    io_uring_getevents_arg argument{};
    argument.ts = timeout_ns < 0 ? 0 : reinterpret_cast<std::uintptr_t>(&limit);
    result = state_->Enter(to_submit, 1, IORING_ENTER_EXT_ARG, &argument, sizeof(argument));
  } else if (to_submit != 0 || state_->MustEnterToKnow()) {
    result = state_->Enter(to_submit, 0, 0, nullptr, 0);
  }
  bool brought = state_->Reap(completions);
  while (state_->KernelMayHoldCompletions() && (brought || !state_->stale)) {
    const int flushed = state_->Enter(0, 0, 0, nullptr, 0);
    if (flushed < 0 && flushed != -EINTR) {
      return flushed;
    }
    brought = state_->Reap(completions);
    state_->stale = !brought;
  }
  // The kernel reports a submission rather than what ended the sleep, so neither a signal nor the time limit
  // can be told from it for certain; the caller looks at the completions. EBUSY: completions first, now
  // reaped.
  const bool harmless = result >= 0 || result == -EINTR || result == -ETIME || result == -EBUSY;
  return harmless ? 0 : result;
}

}  // namespace gyre::loop
