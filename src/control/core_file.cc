#include "src/control/core_file.h"

#include <elf.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/procfs.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "gyre/base/format.h"
#include "gyre/base/non_blocking.h"
#include "gyre/base/types.h"
#include "gyre/base/unique_fd.h"

namespace gyre::control {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kPiece = 1U << 20;  // between two looks at whether to go on
constexpr std::size_t kPipePiece = 4096;  // what a pipe that is writable takes without a wait
constexpr int kLookMs = 100;
constexpr std::size_t kNoteAlignment = 4;

// The note's layout as crash(8) knows it: version 1, 440 bytes.
struct NoteSegment {
  std::uint32_t selector, limit, flags, pad;
  std::uint64_t base;
};
struct NoteCpu {
  std::uint32_t version, size;
  std::uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
  std::uint64_t rip, rflags;
  NoteSegment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
  std::array<std::uint64_t, 5> cr;
  std::uint64_t kernel_gs_base;
};
static_assert(sizeof(NoteCpu) == 440);

NoteSegment SegmentOf(const kvm::SegmentState& state) {
  return {
      .selector = state.selector, .limit = state.limit, .flags = state.flags, .pad = 0, .base = state.base};
}

NoteCpu NoteOf(const kvm::CpuState& c) {
  return {.version = 1,
          .size = sizeof(NoteCpu),
          .rax = c.rax,
          .rbx = c.rbx,
          .rcx = c.rcx,
          .rdx = c.rdx,
          .rsi = c.rsi,
          .rdi = c.rdi,
          .rsp = c.rsp,
          .rbp = c.rbp,
          .r8 = c.r8,
          .r9 = c.r9,
          .r10 = c.r10,
          .r11 = c.r11,
          .r12 = c.r12,
          .r13 = c.r13,
          .r14 = c.r14,
          .r15 = c.r15,
          .rip = c.rip,
          .rflags = c.rflags,
          .cs = SegmentOf(c.cs),
          .ds = SegmentOf(c.ds),
          .es = SegmentOf(c.es),
          .fs = SegmentOf(c.fs),
          .gs = SegmentOf(c.gs),
          .ss = SegmentOf(c.ss),
          .ldt = SegmentOf(c.ldt),
          .tr = SegmentOf(c.tr),
          .gdt = SegmentOf(c.gdt),
          .idt = SegmentOf(c.idt),
          .cr = {c.cr0, 0, c.cr2, c.cr3, c.cr4},
          .kernel_gs_base = c.kernel_gs_base};
}

// The order of user_regs_struct.
elf_prstatus StatusOf(const kvm::CpuState& c, unsigned index) {
  elf_prstatus status{};
  status.pr_pid = static_cast<int>(index) + 1;
  const std::array<std::uint64_t, 27> registers{
      c.r15,     c.r14,      c.r13,         c.r12,         c.rbp,         c.rbx,        c.r11,
      c.r10,     c.r9,       c.r8,          c.rax,         c.rcx,         c.rdx,        c.rsi,
      c.rdi,     UINT64_MAX, c.rip,         c.cs.selector, c.rflags,      c.rsp,        c.ss.selector,
      c.fs.base, c.gs.base,  c.ds.selector, c.es.selector, c.fs.selector, c.gs.selector};
  static_assert(sizeof(registers) == sizeof(status.pr_reg));
  std::memcpy(&status.pr_reg, registers.data(), sizeof(registers));
  return status;
}

template <typename T>
void Append(std::vector<std::byte>& out, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void PadTo(std::vector<std::byte>& out, std::size_t alignment) {
  out.resize((out.size() + alignment - 1) / alignment * alignment);
}

template <typename T>
void AppendNote(std::vector<std::byte>& out, std::string_view owner, std::uint32_t type, const T& content) {
  Append(out,
         Elf64_Nhdr{
             .n_namesz = static_cast<Elf64_Word>(owner.size() + 1), .n_descsz = sizeof(T), .n_type = type});
  const auto name = std::as_bytes(std::span(owner));
  out.insert(out.end(), name.begin(), name.end());
  out.push_back(std::byte{0});
  PadTo(out, kNoteAlignment);
  Append(out, content);
  PadTo(out, kNoteAlignment);
}

// More segments than the header has room for are counted in a section's header, which is there for nothing
// else.
bool CountsInSection(std::size_t segments) { return segments >= PN_XNUM; }

Elf64_Ehdr FileHeader(std::size_t segments) {
  Elf64_Ehdr header{};
  std::memcpy(&header.e_ident[0], ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_CORE;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_phoff = sizeof(Elf64_Ehdr);
  header.e_ehsize = sizeof(Elf64_Ehdr);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = static_cast<Elf64_Half>(std::min<std::size_t>(segments, PN_XNUM));
  if (CountsInSection(segments)) {
    header.e_shoff = sizeof(Elf64_Ehdr) + (segments * sizeof(Elf64_Phdr));
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = 1;
  }
  return header;
}

// Where in the file each of `ranges` begins, after a header of so many bytes.
std::uint64_t OffsetOf(std::span<const CoreRange> ranges, std::uint64_t header, std::uint64_t physical) {
  std::uint64_t offset = header;
  for (const auto& range : ranges) {
    if (physical >= range.start && physical - range.start < range.bytes.size()) {
      return offset + (physical - range.start);
    }
    offset += range.bytes.size();
  }
  return offset;
}

}  // namespace

Result<std::vector<CoreRange>> RangesOf(const memory::GuestRam& ram, std::uint64_t begin,
                                        std::uint64_t length) {
  const std::uint64_t end = length > UINT64_MAX - begin ? UINT64_MAX : begin + length;
  std::vector<CoreRange> ranges;
  for (const auto& range : ram.ranges()) {
    const std::uint64_t first = std::max(begin, range.start.value());
    const std::uint64_t last = std::min(end, range.start.value() + range.size);
    if (first < last) {
      ranges.push_back({.start = first, .bytes = TRY(ram.Span(GuestAddress(first), last - first))});
    }
  }
  return ranges;
}

std::vector<std::byte> CoreHeader(std::span<const kvm::CpuState> cpus, std::span<const CoreRange> ranges,
                                  std::span<const LinearRange> linear) {
  std::vector<std::byte> notes;
  for (unsigned i = 0; i < cpus.size(); ++i) {
    AppendNote(notes, "CORE", NT_PRSTATUS, StatusOf(cpus[i], i));
  }
  for (const auto& cpu : cpus) {
    AppendNote(notes, "QEMU", 0, NoteOf(cpu));
  }
  const std::size_t segments = 1 + linear.size();
  std::vector<std::byte> out;
  Append(out, FileHeader(segments));
  const std::uint64_t notes_at = sizeof(Elf64_Ehdr) + (segments * sizeof(Elf64_Phdr)) +
                                 (CountsInSection(segments) ? sizeof(Elf64_Shdr) : 0);
  Append(out, Elf64_Phdr{.p_type = PT_NOTE,
                         .p_flags = 0,
                         .p_offset = notes_at,
                         .p_vaddr = 0,
                         .p_paddr = 0,
                         .p_filesz = notes.size(),
                         .p_memsz = notes.size(),
                         .p_align = kNoteAlignment});
  const std::uint64_t memory_at = (notes_at + notes.size() + kPage - 1) / kPage * kPage;
  for (const auto& range : linear) {
    Append(out, Elf64_Phdr{.p_type = PT_LOAD,
                           .p_flags = PF_R | PF_W | PF_X,
                           .p_offset = OffsetOf(ranges, memory_at, range.physical),
                           .p_vaddr = range.linear,
                           .p_paddr = range.physical,
                           .p_filesz = range.size,
                           .p_memsz = range.size,
                           .p_align = 0});
  }
  if (CountsInSection(segments)) {
    Elf64_Shdr count{};
    count.sh_info = static_cast<Elf64_Word>(segments);
    Append(out, count);
  }
  out.insert(out.end(), notes.begin(), notes.end());
  PadTo(out, kPage);
  return out;
}

namespace {

// What is written to. Anything but a file may make a write wait for whoever reads, which must not hold up
// gyred's end: such a thing is opened anew, since its flags belong to all who share the description, or, as
// a socket, asked each time.
class Sink {
 public:
  explicit Sink(int fd) : fd_(fd) {
    struct stat file = {};
    if (::fstat(fd, &file) != 0 || S_ISREG(file.st_mode)) {
      return;
    }
    piece_ = kPipePiece;
    socket_ = S_ISSOCK(file.st_mode);
    if (!socket_) {
      own_ = UniqueFd(
          ::open(format("/proc/self/fd/{}", fd).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
      fd_ = own_ ? own_.get() : fd;
    }
  }
  int fd() const { return fd_; }
  ssize_t Write(std::span<const std::byte> bytes) const {
    const std::size_t size = std::min(bytes.size(), piece_);
    return socket_ ? ::send(fd_, bytes.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL)
                   : ::write(fd_, bytes.data(), size);
  }

 private:
  int fd_;
  UniqueFd own_;
  bool socket_ = false;
  std::size_t piece_ = kPiece;
};

}  // namespace

Status WriteAll(int fd, std::span<const std::byte> bytes, const std::atomic<bool>& cancelled,
                std::atomic<std::uint64_t>& progress) {
  const Sink sink(fd);
  while (!bytes.empty()) {
    if (cancelled.load(std::memory_order_relaxed)) {
      return Fail(Error::Host("cancelled"));
    }
    pollfd entry{.fd = sink.fd(), .events = POLLOUT, .revents = 0};
    if (::poll(&entry, 1, kLookMs) == 0) {
      continue;
    }
    const ssize_t put = sink.Write(bytes);
    if (put < 0 && !IsTransient(errno)) {
      return Fail(Error::Sys("write", errno));
    }
    if (put > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(put));
      progress.fetch_add(static_cast<std::uint64_t>(put), std::memory_order_relaxed);
    }
  }
  return {};
}

}  // namespace gyre::control
