#include "gyre/base/bus_error.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/mutex.h"

namespace gyre {

// One guarded range. Read by the signal's handler without a lock: `start` is
// written last and cleared first, and looked at again after the rest.
struct BusErrorGuard::Entry {
  std::atomic<std::uintptr_t> start{0};  // 0: of nothing
  std::atomic<std::size_t> size{0};
  std::atomic<std::size_t> unit{0};
  std::atomic<BusErrors*> errors{nullptr};
  std::atomic<unsigned> exchanged{0};  // pages
  bool taken = false;                  // table_mutex's holder
};

namespace {

using Entry = BusErrorGuard::Entry;

// A VM has a handful. Chunks are never freed, so that the handler may walk them.
struct Chunk {
  std::array<Entry, 32> entries;
  std::atomic<Chunk*> next{nullptr};
};

constinit Chunk first_chunk;
constinit Mutex table_mutex;
constinit bool installed GUARDED_BY(table_mutex) = false;
struct sigaction action_before;
constinit thread_local std::atomic<std::uint64_t> met{0};

// The range that holds `address`, as it was at one moment.
struct Found {
  Entry* entry = nullptr;
  std::uintptr_t start = 0;
  std::size_t size = 0;
  std::size_t unit = 0;
  BusErrors* errors = nullptr;
};

Found Find(std::uintptr_t address) {
  for (Chunk* chunk = &first_chunk; chunk != nullptr; chunk = chunk->next.load(std::memory_order_acquire)) {
    for (Entry& entry : chunk->entries) {
      const Found found{.entry = &entry,
                        .start = entry.start.load(std::memory_order_acquire),
                        .size = entry.size.load(std::memory_order_acquire),
                        .unit = entry.unit.load(std::memory_order_acquire),
                        .errors = entry.errors.load(std::memory_order_acquire)};
      if (found.start != 0 && address >= found.start && address - found.start < found.size &&
          entry.start.load(std::memory_order_relaxed) == found.start) {
        return found;
      }
    }
  }
  return {};
}

// Each exchanged page is a mapping of its own, of which a process may have some ten
// thousands only. Whoever sweeps over so many gets the whole range in one: the VM
// is lost by then, and only the process is to go on.
constexpr unsigned kMostPages = 1024;

bool Exchange(const Found& found, std::uintptr_t page) {
  const bool all = found.entry->exchanged.fetch_add(1, std::memory_order_relaxed) >= kMostPages;
  const std::uintptr_t start = all ? found.start : page;
  // By the system call itself: wrappers are not for signal handlers, and sanitizers
  // take theirs for a write. Two threads at one page may each exchange it.
  return ::syscall(SYS_mmap, start, all ? found.size : found.unit, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
                   0) == static_cast<long>(start);
}

bool Lose(const Found& found, std::uintptr_t address, bool hardware, bool used) {
  const std::uintptr_t page = address - ((address - found.start) % found.unit);
  if (used && !Exchange(found, page)) {
    return false;
  }
  found.errors->Post({.memory = std::bit_cast<const std::byte*>(found.start),
                      .offset = page - found.start,
                      .hardware = hardware,
                      .used = used});
  return true;
}

bool Serve(const siginfo_t& info) {
  const auto address = std::bit_cast<std::uintptr_t>(info.si_addr);
  const Found found = info.si_code > 0 ? Find(address) : Found();
  const bool hardware = info.si_code == BUS_MCEERR_AR || info.si_code == BUS_MCEERR_AO;
  const bool used = info.si_code != BUS_MCEERR_AO;
  if (found.entry == nullptr || !Lose(found, address, hardware, used)) {
    return false;
  }
  met.store(met.load(std::memory_order_relaxed) + (used ? 1 : 0), std::memory_order_relaxed);
  return true;
}

void OnBusError(int signal, siginfo_t* info, void*) {
  const int saved = errno;
  if (!Serve(*info)) {
    // The instruction meets it again, under the old action; what was sent is sent again.
    ::sigaction(SIGBUS, &action_before, nullptr);
    if (info->si_code <= 0 || info->si_code == BUS_MCEERR_AO) {
      ::raise(signal);
    }
  }
  errno = saved;
}

void Install() REQUIRES(table_mutex) {
  if (std::exchange(installed, true)) {
    return;
  }
  struct sigaction action{};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  CHECK(::sigaction(SIGBUS, &action, &action_before) == 0);
}

Entry* FreeEntryOf(Chunk& chunk) REQUIRES(table_mutex) {
  const auto entry = std::ranges::find(chunk.entries, false, &Entry::taken);
  return entry == chunk.entries.end() ? nullptr : &*entry;
}

Entry& FreeEntry() REQUIRES(table_mutex) {
  static constinit std::vector<std::unique_ptr<Chunk>>* more = nullptr;  // never freed
  if (Entry* const entry = FreeEntryOf(first_chunk)) {
    return *entry;
  }
  if (more == nullptr) {
    more = std::make_unique<std::vector<std::unique_ptr<Chunk>>>().release();
  }
  Chunk* last = &first_chunk;
  for (const auto& chunk : *more) {
    if (Entry* const entry = FreeEntryOf(*chunk)) {
      return *entry;
    }
    last = chunk.get();
  }
  Chunk& added = *more->emplace_back(std::make_unique<Chunk>());
  last->next.store(&added, std::memory_order_release);
  return added.entries.front();
}

}  // namespace

// Page by page: the kernel fills the page tables as an access would, but answers where that would get a
// signal (madvise(2), MADV_POPULATE_READ).
bool FindBusErrors(std::span<std::byte> bytes, bool written) {
  bool lost = false;
  const auto start = std::bit_cast<std::uintptr_t>(bytes.data());
  std::size_t unit = 0;
  for (std::uintptr_t at = start; at - start < bytes.size(); at += unit) {
    const Found found = Find(at);
    if (found.entry == nullptr) {
      return lost;
    }
    unit = found.unit - (at - found.start) % found.unit;
    const std::uintptr_t page = at + unit - found.unit;
    if (::madvise(std::bit_cast<void*>(page), found.unit,
                  written ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) {
      continue;
    }
    if (errno == EFAULT || errno == EHWPOISON) {
      lost = Lose(found, page, errno == EHWPOISON, true) || lost;
    }
  }
  return lost;
}

std::uint64_t BusErrorsMet() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  return met.load(std::memory_order_relaxed);
}

Result<std::unique_ptr<BusErrors>> BusErrors::Create() {
  UniqueFd event_fd = TRY(NewEventFd());
  return std::unique_ptr<BusErrors>(new BusErrors(std::move(event_fd)));
}

void BusErrors::Post(const BusError& error) {
  for (Record& record : records_) {
    State expected = State::kFree;
    if (record.state.compare_exchange_strong(expected, State::kBeingWritten, std::memory_order_acquire)) {
      record.error = error;
      record.state.store(State::kReady, std::memory_order_release);
      break;
    }
  }
  if (error.used) {
    lost_.store(true, std::memory_order_release);
  }
  SignalEventFd(event_fd_.get());
}

std::vector<BusError> BusErrors::Take() {
  // Before the records: one that is posted meanwhile leaves it set.
  DrainEventFd(event_fd_.get());
  std::vector<BusError> errors;
  for (Record& record : records_) {
    if (record.state.load(std::memory_order_acquire) == State::kReady) {
      errors.push_back(record.error);
      record.state.store(State::kFree, std::memory_order_release);
    }
  }
  return errors;
}

BusErrorGuard::BusErrorGuard(std::span<std::byte> memory, std::size_t unit, BusErrors& errors) {
  const auto start = std::bit_cast<std::uintptr_t>(memory.data());
  CHECK(unit != 0 && start % unit == 0 && memory.size() % unit == 0);
  const MutexLock lock(table_mutex);
  Install();
  entry_ = &FreeEntry();
  entry_->taken = true;
  entry_->exchanged.store(0, std::memory_order_relaxed);
  entry_->size.store(memory.size(), std::memory_order_release);
  entry_->unit.store(unit, std::memory_order_release);
  entry_->errors.store(&errors, std::memory_order_release);
  entry_->start.store(start, std::memory_order_release);
}

BusErrorGuard::BusErrorGuard(BusErrorGuard&& other) noexcept : entry_(std::exchange(other.entry_, nullptr)) {}

BusErrorGuard& BusErrorGuard::operator=(BusErrorGuard&& other) noexcept {
  BusErrorGuard taken(std::move(other));
  std::swap(entry_, taken.entry_);
  return *this;
}

bool BusErrorGuard::exchanged() const {
  return entry_ != nullptr && entry_->exchanged.load(std::memory_order_acquire) != 0;
}

BusErrorGuard::~BusErrorGuard() {
  if (entry_ != nullptr) {
    const MutexLock lock(table_mutex);
    entry_->start.store(0, std::memory_order_release);
    entry_->taken = false;
  }
}

}  // namespace gyre
