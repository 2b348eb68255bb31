// gyre's side: its address spaces, dispatch, ioeventfds by region, routes and vCPU threads.
#include <sys/eventfd.h>

#include <memory>
#include <thread>

#include "gyre/base/big_lock.h"
#include "gyre/kvm/system.h"
#include "gyre/kvm/vcpus.h"
#include "gyre/kvm/vm.h"
#include "gyre/memory/address_space.h"
#include "gyre/memory/ram.h"
#include "machine.h"

namespace gyre::bench {
namespace {

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

class Register final : public memory::RegionHandler {
 public:
  std::uint64_t Read(std::uint64_t /*offset*/, unsigned /*size*/) override { return 0; }
  void Write(std::uint64_t /*offset*/, unsigned /*size*/, std::uint64_t /*value*/) override {}
};

// The big lock is given up while the guest runs, as by the main loop's wait.
class Gyre final : public Machine {
 public:
  explicit Gyre(Program program) NO_THREAD_SAFETY_ANALYSIS {
    lock_.Lock();
    topology_ = std::make_unique<memory::Topology>(lock_);
    root_ = memory::MemoryRegion::NewContainer(*topology_, "root", memory::kWholeSpace);
    io_root_ = memory::MemoryRegion::NewContainer(*topology_, "io", 0x10000);
    ram_ = Need(memory::RamBlock::NewAnonymous("ram", kRamBytes));
    Load(program, {ram_->host(), kRamBytes});
    Need(root_->Add(0, memory::MemoryRegion::NewRam(*topology_, "ram", ram_)));
    Need(root_->Add(kRegister, memory::MemoryRegion::NewIo(*topology_, "register", 0x1000, handler_)));
    Need(io_root_->Add(kPort, memory::MemoryRegion::NewIo(*topology_, "port", 8, handler_)));
    doorbell_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const auto doorbell = memory::MemoryRegion::NewIo(*topology_, "doorbell", 0x1000, handler_);
    doorbell->AddIoEventFd({.offset = 0, .size = 4, .match = {}, .fd = doorbell_.get()});
    Need(root_->Add(kDoorbellAddress, doorbell));
    memory_ = std::make_unique<memory::AddressSpace>(*topology_, "memory", root_);
    io_ = std::make_unique<memory::AddressSpace>(*topology_, "io", io_root_);
    vm_ = Need(kvm::Vm::Create(system_, {}));
    Need(memory_->AddListener(vm_->memory_listener()));
    Need(io_->AddListener(vm_->io_listener()));
    Need(vm_->CreateIrqChip());
    vm_->msi().SetRoute(Gsi(kGsi), MsiMessage{.address = kMsiAddress, .data = kVector});
    interrupt_ = Need(vm_->NewIrqFd(Gsi(kGsi)));
    vcpus_ = Need(kvm::Vcpus::Start(*vm_, system_, *memory_, *io_, 1));
    Need(vcpus_->Begin({}));
    kvm::EntryState entry;
    entry.mode = kvm::EntryState::Mode::kProtected32;
    entry.rip = kCode;
    entry.rsp = kStack;
    entry.gdt_base = kGdt;
    entry.gdt_limit = kGdtLimit;
    Need(vcpus_->ResetAll(entry));
    vcpus_->ResumeAll();
    lock_.Unlock();
  }
  ~Gyre() override NO_THREAD_SAFETY_ANALYSIS {
    lock_.Lock();
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

  std::uint32_t* counter() const override {
    // NOLINTNEXTLINE(bugprone-casting-through-void): guest memory is aligned to pages
    return static_cast<std::uint32_t*>(static_cast<void*>(ram_->host() + kCounter));
  }
  int interrupt() const override { return interrupt_.get(); }
  void Pause() override NO_THREAD_SAFETY_ANALYSIS {
    lock_.Lock();
    vcpus_->PauseAll();
    lock_.Unlock();
  }
  void Resume() override NO_THREAD_SAFETY_ANALYSIS {
    lock_.Lock();
    vcpus_->ResumeAll();
    lock_.Unlock();
  }

 private:
  BigLock lock_;
  Register handler_;
  kvm::System system_ = Need(kvm::System::Open());
  std::unique_ptr<memory::Topology> topology_;
  memory::RegionPtr root_;
  memory::RegionPtr io_root_;
  std::shared_ptr<memory::RamBlock> ram_;
  UniqueFd doorbell_;
  UniqueFd interrupt_;
  std::unique_ptr<memory::AddressSpace> memory_;
  std::unique_ptr<memory::AddressSpace> io_;
  std::unique_ptr<kvm::Vm> vm_;
  std::unique_ptr<kvm::Vcpus> vcpus_;
};

}  // namespace

std::unique_ptr<Machine> NewGyre(Program program) { return std::make_unique<Gyre>(program); }

}  // namespace gyre::bench
