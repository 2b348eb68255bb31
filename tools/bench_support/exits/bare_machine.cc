// The least there is: one thread around KVM_RUN, which answers accesses with zeros.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <thread>

#include "gyre/base/mapping.h"
#include "gyre/base/result.h"
#include "kvm/kvm_api.h"
#include "machine.h"

namespace gyre::bench {
namespace {

constexpr std::uint64_t kIoApicPins = 24;

template <typename Argument>
int Call(int fd, unsigned long request, Argument argument) {
  const int result = ::ioctl(fd, request, argument);
  if (result < 0) {
    Die(std::strerror(errno));
  }
  return result;
}

Mapping Need(Result<Mapping> result) {
  if (!result) {
    Die(result.error().message());
  }
  return std::move(*result);
}

class Bare final : public Machine {
 public:
  explicit Bare(Program program) {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR2, &action, nullptr);
    Load(program, ram_.bytes());
    kvm_ = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
    vm_ = Call(kvm_, KVM_CREATE_VM, 0);
    kvm_userspace_memory_region slot{};
    slot.memory_size = kRamBytes;
    slot.userspace_addr = reinterpret_cast<std::uint64_t>(ram_.data());
    Call(vm_, KVM_SET_USER_MEMORY_REGION, &slot);
    kvm_enable_cap split{};
    split.cap = KVM_CAP_SPLIT_IRQCHIP;
    split.args[0] = kIoApicPins;
    Call(vm_, KVM_ENABLE_CAP, &split);
    ConnectEventFds();
    thread_ = std::thread(&Bare::Run, this);
    created_.wait(false);
  }
  ~Bare() override {
    quit_ = true;
    Pause();
    Resume();
    thread_.join();
    for (const int fd : {doorbell_, interrupt_, vm_, kvm_}) {
      ::close(fd);
    }
  }
  Bare(const Bare&) = delete;
  Bare& operator=(const Bare&) = delete;

  std::uint32_t* counter() const override {
    // NOLINTNEXTLINE(bugprone-casting-through-void): guest memory is aligned to pages
    return static_cast<std::uint32_t*>(static_cast<void*>(ram_.data() + kCounter));
  }
  int interrupt() const override { return interrupt_; }
  void Pause() override {
    stop_ = true;
    __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_SEQ_CST);
    ::pthread_kill(thread_.native_handle(), SIGUSR2);
    out_.wait(false);
  }
  void Resume() override {
    stop_ = false;
    stop_.notify_one();
  }

 private:
  void ConnectEventFds() {
    doorbell_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    kvm_ioeventfd doorbell{};
    doorbell.addr = kDoorbellAddress;
    doorbell.len = 4;
    doorbell.fd = doorbell_;
    Call(vm_, KVM_IOEVENTFD, &doorbell);
    kvm_irq_routing_entry entry{};
    entry.gsi = kGsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<std::uint32_t>(kMsiAddress);
    entry.u.msi.data = kVector;
    // kvm_irq_routing: the number of entries and flags, then the entries.
    constexpr std::array<std::uint32_t, 2> kHead{1, 0};
    static_assert(sizeof(kHead) == sizeof(kvm_irq_routing));
    alignas(kvm_irq_routing_entry) std::array<std::byte, sizeof(kHead) + sizeof(entry)> routes{};
    std::memcpy(routes.data(), kHead.data(), sizeof(kHead));
    std::memcpy(routes.data() + sizeof(kHead), &entry, sizeof(entry));
    Call(vm_, KVM_SET_GSI_ROUTING, routes.data());
    interrupt_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    kvm_irqfd irq{};
    irq.fd = static_cast<std::uint32_t>(interrupt_);
    irq.gsi = kGsi;
    Call(vm_, KVM_IRQFD, &irq);
  }

  static void SetEntry(int vcpu) {
    kvm_sregs sregs{};
    Call(vcpu, KVM_GET_SREGS, &sregs);
    kvm_segment flat{};
    flat.limit = 0xffff'ffff;
    flat.selector = 0x18;
    flat.type = 3;
    flat.present = flat.db = flat.s = flat.g = 1;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
    flat.selector = 0x10;
    flat.type = 0xb;
    sregs.cs = flat;
    sregs.gdt.base = kGdt;
    sregs.gdt.limit = kGdtLimit;
    sregs.cr0 = 0x11;  // PE, ET
    Call(vcpu, KVM_SET_SREGS, &sregs);
    kvm_regs regs{};
    regs.rip = kCode;
    regs.rsp = kStack;
    regs.rflags = 2;
    Call(vcpu, KVM_SET_REGS, &regs);
  }

  void Run() {
    const int fd = Call(vm_, KVM_CREATE_VCPU, 0UL);
    const auto size = static_cast<std::size_t>(Call(kvm_, KVM_GET_VCPU_MMAP_SIZE, 0));
    const Mapping mapping = Need(Mapping::File(fd, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED));
    // NOLINTNEXTLINE(bugprone-casting-through-void): a mapping is aligned to pages
    run_ = static_cast<kvm_run*>(static_cast<void*>(mapping.data()));
    SetEntry(fd);
    created_ = true;
    created_.notify_one();
    while (!quit_) {
      if (stop_) {
        out_ = true;
        out_.notify_one();
        stop_.wait(true);
        out_ = false;
        __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_SEQ_CST);
        continue;
      }
      if (::ioctl(fd, KVM_RUN, 0UL) == 0) {
        Serve();
      } else if (errno != EINTR) {
        Die(std::strerror(errno));
      }
    }
    out_ = true;
    out_.notify_one();
    ::close(fd);
  }

  void Serve() {
    if (run_->exit_reason == KVM_EXIT_IO) {
      // NOLINTNEXTLINE(cppcoreguidelines-pro-bounds-pointer-arithmetic): as KVM lays it out
      std::memset(reinterpret_cast<std::uint8_t*>(run_) + run_->io.data_offset, 0, run_->io.size);
    } else if (run_->exit_reason == KVM_EXIT_MMIO) {
      std::memset(run_->mmio.data, 0, sizeof(run_->mmio.data));
    } else if (run_->exit_reason != KVM_EXIT_INTR) {
      Die("exit for reason " + std::to_string(run_->exit_reason));
    }
  }

  int kvm_ = -1;
  int vm_ = -1;
  int doorbell_ = -1;
  int interrupt_ = -1;
  Mapping ram_ = Need(Mapping::Anonymous(kRamBytes));
  kvm_run* run_ = nullptr;
  std::thread thread_;
  std::atomic<bool> created_{false};
  std::atomic<bool> stop_{false};
  std::atomic<bool> out_{false};
  std::atomic<bool> quit_{false};
};

}  // namespace

std::unique_ptr<Machine> NewBare(Program program) { return std::make_unique<Bare>(program); }

}  // namespace gyre::bench
