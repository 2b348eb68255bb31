// gyre-floor [--memory MIB] [--cpus N] [--disk FILE]... [--tap NAME]... GUEST: the least
// that any VMM can do. The bare KVM calls in their best order, one guest, no frills; what
// `tools/bench` measures gyred against. A tool of the bench, not an example of our style
// of KVM use.
//
// A further vCPU is made, mapped and has its CPUID, and gets no thread, since the guest
// does not start it. A disk is a file that is opened, looked at and locked, a network a
// tap that is made; each has an irqfd and a doorbell's eventfd, and no driver.
//
// GUEST is an ELF64 file with a PVH note (Xen's PVH boot ABI: 32-bit, flat, paging
// off). OUT to 0x3f8 goes to stdout at once, 0x3fd says that the line is idle, a
// write of v to 0xf4 exits with (v << 1) | 1. Our own failures exit with 2.
#include <elf.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr std::uint16_t kSerialData = 0x3f8;
constexpr std::uint16_t kSerialLineStatus = 0x3fd;
constexpr std::uint8_t kLineIdle = 0x60;
constexpr std::uint16_t kExitPort = 0xf4;
constexpr std::uint32_t kPvhEntryNote = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
constexpr std::uint64_t kIoApicPins = 24;
constexpr std::uint32_t kMaxCpuidEntries = 256;
constexpr std::size_t kNoteAlignment = 4;
// RAM below and above the addresses of devices and local APICs.
constexpr std::uint64_t kLowEnd = std::uint64_t{3} << 30;
constexpr std::uint64_t kHighStart = std::uint64_t{4} << 30;
constexpr std::uint32_t kFirstGsi = 5;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::_Exit(2);
}

[[noreturn]] void Refuse(const char* why) {
  std::fputs(why, stderr);
  std::fputs("\n", stderr);
  std::_Exit(2);
}

template <typename Argument>
int Call(int fd, unsigned long request, Argument argument, const char* name) {
  const int result = ::ioctl(fd, request, argument);
  if (result < 0) {
    Die(name);
  }
  return result;
}

struct Memory {
  std::uint8_t* base;
  std::size_t size;
};

struct File {
  const std::uint8_t* bytes;
  std::size_t size;
  // The T at `offset`.
  template <typename T>
  T Get(std::uint64_t offset) const {
    T value;
    if (offset > size || sizeof(value) > size - offset) {
      Refuse("the guest's ELF is truncated");
    }
    std::memcpy(&value, bytes + offset, sizeof(value));
    return value;
  }
};

File OpenFile(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  struct stat status{};
  if (fd < 0 || ::fstat(fd, &status) < 0) {
    Die(path);
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void* const bytes = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (bytes == MAP_FAILED) {
    Die(path);
  }
  return {static_cast<const std::uint8_t*>(bytes), size};
}

Memory MapMemory(std::size_t size) {
  void* const base =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    Die("map guest memory");
  }
  return {static_cast<std::uint8_t*>(base), size};
}

// The entry point in the notes of one segment, or 0.
std::uint32_t FindEntry(const File& file, const Elf64_Phdr& notes) {
  const auto padded = [](std::uint64_t size) { return (size + kNoteAlignment - 1) & ~(kNoteAlignment - 1); };
  std::uint64_t offset = notes.p_offset;
  while (offset + sizeof(Elf64_Nhdr) <= notes.p_offset + notes.p_filesz) {
    const auto header = file.Get<Elf64_Nhdr>(offset);
    const std::uint64_t value = offset + sizeof(header) + padded(header.n_namesz);
    if (header.n_type == kPvhEntryNote && header.n_namesz == 4) {
      return file.Get<std::uint32_t>(value);
    }
    offset = value + padded(header.n_descsz);
  }
  return 0;
}

// Copies the segments; returns the PVH entry.
std::uint32_t Load(const File& file, const Memory& memory) {
  const auto header = file.Get<Elf64_Ehdr>(0);
  if (std::memcmp(&header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64) {
    Refuse("the guest is not an ELF64 file");
  }
  std::uint32_t entry = 0;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    const auto segment = file.Get<Elf64_Phdr>(header.e_phoff + i * sizeof(Elf64_Phdr));
    if (segment.p_type == PT_NOTE && entry == 0) {
      entry = FindEntry(file, segment);
    }
    if (segment.p_type != PT_LOAD) {
      continue;
    }
    if (segment.p_offset > file.size || segment.p_filesz > file.size - segment.p_offset ||
        segment.p_paddr > memory.size || segment.p_filesz > memory.size - segment.p_paddr) {
      Refuse("a segment of the guest does not fit");
    }
    std::memcpy(memory.base + segment.p_paddr, file.bytes + segment.p_offset, segment.p_filesz);
  }
  if (entry == 0) {
    Refuse("the guest has no PVH note");
  }
  return entry;
}

// kvm_cpuid2 as the kernel has it: read as C++, Linux 6.1's header gives it four bytes
// too many, which the request numbers count.
struct Cpuid {
  std::uint32_t count;
  std::uint32_t padding;
  kvm_cpuid_entry2 entries[kMaxCpuidEntries];
};
using CpuidHead = std::uint64_t;
constexpr unsigned long kGetSupportedCpuid = _IOWR(KVMIO, 0x05, CpuidHead);
constexpr unsigned long kSetCpuid2 = _IOW(KVMIO, 0x90, CpuidHead);

void SetCpuid(int kvm, int vcpu) {
  static Cpuid cpuid;
  if (cpuid.count == 0) {
    cpuid.count = kMaxCpuidEntries;
    Call(kvm, kGetSupportedCpuid, &cpuid, "KVM_GET_SUPPORTED_CPUID");
  }
  Call(vcpu, kSetCpuid2, &cpuid, "KVM_SET_CPUID2");
}

void SetEntryState(int vcpu, std::uint32_t entry) {
  kvm_sregs sregs;
  Call(vcpu, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
  kvm_segment flat = {};
  flat.limit = 0xffffffff;
  flat.selector = 0x18;
  flat.type = 3;
  flat.present = flat.db = flat.s = flat.g = 1;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
  flat.selector = 0x10;
  flat.type = 0xb;
  sregs.cs = flat;
  flat.selector = 0x20;
  flat.limit = 0x67;
  flat.db = flat.s = flat.g = 0;
  sregs.tr = flat;
  sregs.cr0 = 0x11;  // PE, ET
  Call(vcpu, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
  kvm_regs regs = {};
  regs.rip = entry;
  regs.rflags = 2;
  Call(vcpu, KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

void ServePort(kvm_run* run) {
  auto* const data = reinterpret_cast<std::uint8_t*>(run) + run->io.data_offset;
  const std::size_t size = static_cast<std::size_t>(run->io.size) * run->io.count;
  if (run->io.direction == KVM_EXIT_IO_IN) {
    std::memset(data, run->io.port == kSerialLineStatus ? kLineIdle : 0xff, size);
  } else if (run->io.port == kSerialData) {
    if (::write(STDOUT_FILENO, data, size) < 0) {
      Die("stdout");
    }
  } else if (run->io.port == kExitPort) {
    std::_Exit((*data << 1 | 1) & 0xff);
  }
}

[[noreturn]] void Run(int vcpu, kvm_run* run) {
  for (;;) {
    Call(vcpu, KVM_RUN, 0, "KVM_RUN");
    if (run->exit_reason == KVM_EXIT_MMIO) {
      std::memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
    } else if (run->exit_reason == KVM_EXIT_IO) {
      ServePort(run);
    } else {
      Refuse("the guest did something else than an access to a device");
    }
  }
}

struct Options {
  std::size_t memory = std::size_t{128} << 20;
  unsigned cpus = 1;
  std::vector<const char*> disks;
  std::vector<const char*> taps;
  const char* guest = nullptr;
};

void AddSlots(int vm, const Memory& memory) {
  kvm_userspace_memory_region slot = {};
  slot.memory_size = memory.size < kLowEnd ? memory.size : kLowEnd;
  slot.userspace_addr = reinterpret_cast<std::uintptr_t>(memory.base);
  Call(vm, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
  if (memory.size > kLowEnd) {
    slot.slot = 1;
    slot.guest_phys_addr = kHighStart;
    slot.memory_size = memory.size - kLowEnd;
    slot.userspace_addr += kLowEnd;
    Call(vm, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION");
  }
}

kvm_run* CreateVcpu(int kvm, int vm, unsigned index, int& vcpu) {
  vcpu = Call(vm, KVM_CREATE_VCPU, static_cast<unsigned long>(index), "KVM_CREATE_VCPU");
  SetCpuid(kvm, vcpu);
  static const auto size =
      static_cast<std::size_t>(Call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"));
  void* const run = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (run == MAP_FAILED) {
    Die("map the vCPU");
  }
  return static_cast<kvm_run*>(run);
}

void OpenDisk(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  struct stat status{};
  struct flock lock{};
  lock.l_type = F_RDLCK;
  if (fd < 0 || ::fstat(fd, &status) < 0 || ::fcntl(fd, F_OFD_SETLK, &lock) < 0) {
    Die(path);
  }
}

void OpenTap(const char* name) {
  const int fd = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  ifreq request = {};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (fd < 0 || ::ioctl(fd, TUNSETIFF, &request) < 0 || ::ioctl(fd, TUNSETOFFLOAD, 0) < 0) {
    Die(name);
  }
}

// What each device has of KVM: an irqfd. Its doorbell waits for a driver.
void ConnectDevice(int vm, std::uint32_t gsi) {
  const int doorbell = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  kvm_irqfd irq = {};
  irq.fd = static_cast<std::uint32_t>(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  irq.gsi = gsi;
  if (doorbell < 0) {
    Die("eventfd");
  }
  Call(vm, KVM_IRQFD, &irq, "KVM_IRQFD");
}

void AddDevices(int vm, const Options& options) {
  std::uint32_t gsi = kFirstGsi;
  for (const char* const disk : options.disks) {
    OpenDisk(disk);
    ConnectDevice(vm, gsi++);
  }
  for (const char* const tap : options.taps) {
    OpenTap(tap);
    ConnectDevice(vm, gsi++);
  }
}

// The slots come before the split irq chip, and no in-kernel one is made: that would
// keep the next slot, or the VM's end, waiting for a grace period.
[[noreturn]] void Boot(const Options& options) {
  const int kvm = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) {
    Die("/dev/kvm");
  }
  const int vm = Call(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
  const Memory memory = MapMemory(options.memory);
  const std::uint32_t entry = Load(OpenFile(options.guest), memory);
  AddSlots(vm, memory);
  kvm_enable_cap split = {};
  split.cap = KVM_CAP_SPLIT_IRQCHIP;
  split.args[0] = kIoApicPins;
  Call(vm, KVM_ENABLE_CAP, &split, "KVM_CAP_SPLIT_IRQCHIP");
  int vcpu = -1;
  kvm_run* const run = CreateVcpu(kvm, vm, 0, vcpu);
  for (unsigned index = 1; index < options.cpus; ++index) {
    int other = -1;
    (void)CreateVcpu(kvm, vm, index, other);
  }
  AddDevices(vm, options);
  SetEntryState(vcpu, entry);
  Run(vcpu, run);
}

Options Parse(int argc, char** argv) {
  Options options;
  int i = 1;
  for (; i + 1 < argc; i += 2) {
    const char* const value = argv[i + 1];
    if (std::strcmp(argv[i], "--memory") == 0) {
      options.memory = static_cast<std::size_t>(std::strtoul(value, nullptr, 10)) << 20;
    } else if (std::strcmp(argv[i], "--cpus") == 0) {
      options.cpus = static_cast<unsigned>(std::strtoul(value, nullptr, 10));
    } else if (std::strcmp(argv[i], "--disk") == 0) {
      options.disks.push_back(value);
    } else if (std::strcmp(argv[i], "--tap") == 0) {
      options.taps.push_back(value);
    } else {
      break;
    }
  }
  if (argc - i == 1 && options.memory != 0 && options.cpus != 0) {
    options.guest = argv[i];
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  if (options.guest == nullptr) {
    Refuse("usage: gyre-floor [--memory MIB] [--cpus N] [--disk FILE]... [--tap NAME]... GUEST");
  }
  Boot(options);
}
