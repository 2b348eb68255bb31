// Pausing and resuming two running vCPUs: gyre's PauseAll and ResumeAll beside the
// bare kicks that they stand on, in turn in one process. Run by `tools/bench pause`.
// A line of JSON a sample: {"benchmark", "peer", "parameter", "ns"}.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "gyre/base/big_lock.h"
#include "gyre/base/mapping.h"
#include "gyre/kvm/system.h"
#include "gyre/kvm/vcpus.h"
#include "gyre/kvm/vm.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

constexpr unsigned kVcpus = 2;
constexpr std::uint64_t kCode = 0x1000;
constexpr std::uint64_t kOther = 0x6000;
constexpr int kPausesASample = 50;

// 32-bit: INIT and SIPI to 0x6000 for all others, then turn on the spot.
constexpr std::array<std::uint8_t, 22> kStartOthers{0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45,
                                                    0x0c, 0x00, 0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe,
                                                    0x06, 0x46, 0x0c, 0x00, 0xeb, 0xfe};
constexpr std::array<std::uint8_t, 2> kTurn{0xeb, 0xfe};

std::int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "gyre-pause-bench: %s\n", what.c_str());
  std::exit(1);
}

template <typename T>
T Need(Result<T> result) {
  if (!result) {
    Die(result.error().message());
  }
  return std::move(*result);
}

void Need(const Status& status) {
  if (!status) {
    Die(status.error().message());
  }
}

void LetRun() { std::this_thread::sleep_for(std::chrono::microseconds(100)); }

// Both sides of the comparison: until no vCPU is in the guest, and on again.
class Peer {
 public:
  Peer() = default;
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  virtual ~Peer() = default;
  virtual void Pause() = 0;
  virtual void Resume() = 0;
};

class Gyre final : public Peer {
 public:
  explicit Gyre(const System& system) NO_THREAD_SAFETY_ANALYSIS {
    lock_.Lock();
    topology_ = std::make_unique<memory::Topology>(lock_);
    root_ = memory::MemoryRegion::NewContainer(*topology_, "root", memory::kWholeSpace);
    io_root_ = memory::MemoryRegion::NewContainer(*topology_, "io", 0x10000);
    const auto ram = Need(memory::RamBlock::NewAnonymous("ram", kMiB));
    std::ranges::copy(std::as_bytes(std::span(kStartOthers)), ram->host() + kCode);
    std::ranges::copy(std::as_bytes(std::span(kTurn)), ram->host() + kOther);
    Need(root_->Add(0, memory::MemoryRegion::NewRam(*topology_, "ram", ram)));
    memory_ = std::make_unique<memory::AddressSpace>(*topology_, "memory", root_);
    io_ = std::make_unique<memory::AddressSpace>(*topology_, "io", io_root_);
    vm_ = Need(Vm::Create(system, {}));
    Need(memory_->AddListener(vm_->memory_listener()));
    Need(io_->AddListener(vm_->io_listener()));
    Need(vm_->CreateIrqChip());
    vcpus_ = Need(Vcpus::Start(*vm_, system, *memory_, *io_, kVcpus));
    Need(vcpus_->Begin({}));
    EntryState entry;
    entry.mode = EntryState::Mode::kProtected32;
    entry.rip = kCode;
    entry.rsp = 0x8000;
    Need(vcpus_->ResetAll(entry));
    vcpus_->ResumeAll();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // both turn
  }
  ~Gyre() override NO_THREAD_SAFETY_ANALYSIS {
    vcpus_.reset();
    memory_->RemoveListener(vm_->memory_listener());
    io_->RemoveListener(vm_->io_listener());
    vm_.reset();
    memory_.reset();
    io_.reset();
    root_.reset();
    io_root_.reset();
    topology_.reset();
    lock_.Unlock();
  }
  Gyre(const Gyre&) = delete;
  Gyre& operator=(const Gyre&) = delete;
  void Pause() override { vcpus_->PauseAll(); }
  void Resume() override { vcpus_->ResumeAll(); }

 private:
  BigLock lock_;
  std::unique_ptr<memory::Topology> topology_;
  memory::RegionPtr root_;
  memory::RegionPtr io_root_;
  std::unique_ptr<memory::AddressSpace> memory_;
  std::unique_ptr<memory::AddressSpace> io_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<Vcpus> vcpus_;
};

// The least there is: immediate_exit, a signal, and a word that the thread sets when it is out.
class Bare final : public Peer {
 public:
  Bare() {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR2, &action, nullptr);
    kvm_ = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
    vm_ = Call(kvm_, KVM_CREATE_VM, 0);
    std::ranges::copy(std::as_bytes(std::span(kTurn)), ram_.data() + kOther);
    kvm_userspace_memory_region slot{};
    slot.memory_size = ram_.size();
    slot.userspace_addr = reinterpret_cast<std::uint64_t>(ram_.data());
    Call(vm_, KVM_SET_USER_MEMORY_REGION, &slot);
    for (unsigned i = 0; i < kVcpus; ++i) {
      threads_.at(i) = std::thread(&Bare::Run, this, i);
    }
    while (created_ != kVcpus) {
      LetRun();
    }
  }
  ~Bare() override {
    quit_ = true;
    Pause();
    Resume();
    for (std::thread& thread : threads_) {
      thread.join();
    }
    ::close(vm_);
    ::close(kvm_);
  }
  Bare(const Bare&) = delete;
  Bare& operator=(const Bare&) = delete;

  void Pause() override {
    for (Vcpu& vcpu : vcpus_) {
      vcpu.stop.store(true);
      __atomic_store_n(&vcpu.run->immediate_exit, 1, __ATOMIC_SEQ_CST);
      ::pthread_kill(vcpu.thread, SIGUSR2);
    }
    for (Vcpu& vcpu : vcpus_) {
      vcpu.out.wait(false);
    }
  }
  void Resume() override {
    for (Vcpu& vcpu : vcpus_) {
      vcpu.stop.store(false);
      vcpu.stop.notify_one();
    }
  }

 private:
  struct Vcpu {
    kvm_run* run = nullptr;
    pthread_t thread{};
    std::atomic<bool> stop{false};
    std::atomic<bool> out{false};
  };

  template <typename Argument>
  static int Call(int fd, unsigned long request, Argument argument) {
    const int result = ::ioctl(fd, request, argument);
    if (result < 0) {
      Die(std::strerror(errno));
    }
    return result;
  }

  void Run(unsigned index) {
    Vcpu& vcpu = vcpus_.at(index);
    const int fd = Call(vm_, KVM_CREATE_VCPU, static_cast<unsigned long>(index));
    const auto size = static_cast<std::size_t>(Call(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0));
    const Mapping mapping = Need(Mapping::File(fd, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED));
    // NOLINTNEXTLINE(bugprone-casting-through-void): a mapping is aligned to pages
    vcpu.run = static_cast<kvm_run*>(static_cast<void*>(mapping.data()));
    vcpu.thread = ::pthread_self();
    kvm_sregs sregs{};
    Call(fd, KVM_GET_SREGS, &sregs);
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    Call(fd, KVM_SET_SREGS, &sregs);
    kvm_regs regs{};
    regs.rip = kOther;
    regs.rflags = 2;
    Call(fd, KVM_SET_REGS, &regs);
    ++created_;
    while (!quit_) {
      if (vcpu.stop) {
        vcpu.out = true;
        vcpu.out.notify_one();
        vcpu.stop.wait(true);
        vcpu.out = false;
        __atomic_store_n(&vcpu.run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        continue;
      }
      (void)::ioctl(fd, KVM_RUN, 0UL);
    }
    vcpu.out = true;
    vcpu.out.notify_one();
    ::close(fd);
  }

  int kvm_ = -1;
  int vm_ = -1;
  Mapping ram_ = Need(Mapping::Anonymous(kMiB));
  std::array<Vcpu, kVcpus> vcpus_;
  std::array<std::thread, kVcpus> threads_;
  std::atomic<unsigned> created_{0};
  std::atomic<bool> quit_{false};
};

// The median of a sample's pauses, each of a guest that has run for a while.
void Measure(Peer& peer, const char* name) {
  std::vector<std::int64_t> pauses;
  for (int i = 0; i < kPausesASample; ++i) {
    LetRun();
    const std::int64_t start = Now();
    peer.Pause();
    pauses.push_back(Now() - start);
    peer.Resume();
  }
  std::ranges::nth_element(pauses, pauses.begin() + kPausesASample / 2);
  std::printf("{\"benchmark\": \"pause, of vCPUs\", \"peer\": \"%s\", \"parameter\": %u, \"ns\": %lld}\n",
              name, kVcpus, static_cast<long long>(pauses.at(kPausesASample / 2)));
}

}  // namespace
}  // namespace gyre::kvm

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 9;
  const auto system = gyre::kvm::Need(gyre::kvm::System::Open());
  for (int round = 0; round < rounds; ++round) {
    {
      gyre::kvm::Bare bare;
      gyre::kvm::Measure(bare, "kicks");
    }
    gyre::kvm::Gyre gyre(system);
    gyre::kvm::Measure(gyre, "gyre");
  }
  return 0;
}
