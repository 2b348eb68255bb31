// The guest's memory: its map, pieces of it, all of it.
#include <fcntl.h>

#include <algorithm>
#include <array>

#include "gyre/base/format.h"
#include "gyre/base/numbers.h"
#include "gyre/kvm/inspect.h"
#include "src/control/commands/families.h"
#include "src/control/core_file.h"
#include "src/control/memory_text.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

constexpr std::uint64_t kPage = 4096;
// Each page of it is looked up while its vCPU waits.
constexpr std::uint64_t kMostLinear = 256 * kMiB;

constexpr Type kSize{.kind = Type::Kind::kInteger, .name = "integer", .least = 0};
// 64 bits: one of the upper half may come as a negative number.
constexpr Type kAddress{.kind = Type::Kind::kInteger, .name = "integer", .most = UINT64_MAX};
constexpr Type kIndex{.kind = Type::Kind::kInteger, .name = "integer", .least = INT64_MIN};

constexpr std::array kMemsaveMembers{
    Member{"val", &kAddress, "linear address"}, Member{"size", &kSize, "bytes"},
    Member{"filename", &kString, "file to be written"},
    Member{"cpu-index", &kIndex, "vCPU whose page tables say what is where (0)", kOptional}};
constexpr Type kMemsaveArguments = ObjectType("memsave arguments", kMemsaveMembers);
constexpr std::array kPmemsaveMembers{Member{"val", &kAddress, "guest-physical address"},
                                      Member{"size", &kSize, "bytes"},
                                      Member{"filename", &kString, "file to be written"}};
constexpr Type kPmemsaveArguments = ObjectType("pmemsave arguments", kPmemsaveMembers);

constexpr std::array<std::string_view, 1> kFormats{"elf"};
constexpr Type kFormat = EnumType("DumpGuestMemoryFormat", kFormats);
constexpr Type kFormatList = ArrayType("array of DumpGuestMemoryFormat", kFormat);
constexpr std::array kDumpMembers{
    Member{
        "paging", &kBoolean,
        "segments are by linear address, as the vCPUs' page tables have it; else by guest-physical address"},
    Member{"protocol", &kString, "file:PATH, or fd:NAME as given to getfd"},
    Member{"detach", &kBoolean, "return at once; DUMP_COMPLETED tells the end", kOptional},
    Member{"begin", &kUnsigned, "first guest-physical address; length must be given, too", kOptional},
    Member{"length", &kUnsigned, "bytes of guest-physical address space", kOptional},
    Member{"format", &kFormat, "", kOptional}};
constexpr Type kDumpArguments = ObjectType("dump-guest-memory arguments", kDumpMembers);
constexpr std::array kCapabilityMembers{Member{"formats", &kFormatList}};
constexpr Type kCapability = ObjectType("DumpGuestMemoryCapability", kCapabilityMembers);
constexpr std::array<std::string_view, 4> kDumpStates{"none", "active", "completed", "failed"};
constexpr Type kDumpState = EnumType("DumpStatus", kDumpStates);
constexpr std::array kResultMembers{Member{"status", &kDumpState},
                                    Member{"completed", &kInteger, "bytes written"},
                                    Member{"total", &kInteger, "bytes in all"}};
constexpr Type kResult = ObjectType("DumpQueryResult", kResultMembers);

constexpr std::array kTextMembers{Member{"human-readable-text", &kString}};
constexpr Type kText = ObjectType("HumanReadableText", kTextMembers);

using Pieces = std::vector<std::span<const std::byte>>;

// A path, or /dev/fdset/N for a descriptor of a set.
Result<OutputFile> OpenOutput(const Services& services, const std::string& path) {
  static constexpr std::string_view kSetPrefix = "/dev/fdset/";
  if (!path.starts_with(kSetPrefix)) {
    return OutputFile::Create(path);
  }
  const auto set = ParseNumber<std::int64_t>(std::string_view(path).substr(kSetPrefix.size()));
  UniqueFd copy(::fcntl(set ? services.fd_sets.Find(*set) : -1, F_DUPFD_CLOEXEC, 0));
  if (!copy) {
    return Fail(Error::Usage(format("Could not open '{}': there is no such set of descriptors", path)));
  }
  return OutputFile(std::move(copy));
}

void Save(Call& call, Pieces pieces, Done done) {
  auto file = OpenOutput(call.services, call.Text("filename"));
  if (!file) {
    return done(Refuse(file.error()));
  }
  call.services.workers.Run(
      [file = *std::move(file),
       pieces = std::move(pieces)](const std::atomic<bool>& cancelled) mutable -> Outcome {
        std::atomic<std::uint64_t> progress{0};
        Status written;
        for (std::size_t i = 0; written && i < pieces.size(); ++i) {
          written = WriteAll(file.fd(), pieces[i], cancelled, progress);
        }
        return AsOutcome(written ? file.Commit() : std::move(written));
      },
      std::move(done), call.client.gone);
}

void PmemSave(Call& call, Done done) {
  const std::uint64_t start = call.Unsigned("val");
  const std::uint64_t size = call.Unsigned("size");
  auto ranges = RangesOf(call.services.machine->all_ram(), start, size);
  Pieces pieces;
  std::uint64_t found = 0;
  for (const auto& range : ranges ? *ranges : std::vector<CoreRange>()) {
    pieces.push_back(range.bytes);
    found += range.bytes.size();
  }
  if (found != size) {
    return done(Refuse(format("Invalid addr {:#018x}/size {} specified", start, size)));
  }
  Save(call, std::move(pieces), std::move(done));
}

// On the vCPU's thread; nothing if a page is not mapped, or not to RAM.
std::optional<Pieces> FindLinear(const memory::GuestRam& ram, int vcpu_fd, std::uint64_t start,
                                 std::uint64_t size) {
  Pieces pieces;
  while (size != 0) {
    const std::uint64_t piece = std::min(size, kPage - (start % kPage));
    const auto physical = kvm::TranslateLinear(vcpu_fd, start);
    const auto bytes = physical && *physical ? ram.Span(GuestAddress(**physical), piece)
                                             : Result<std::span<std::byte>>(std::unexpect, Error::Host(""));
    if (!bytes) {
      return std::nullopt;
    }
    if (!pieces.empty() && pieces.back().data() + pieces.back().size() == bytes->data()) {
      pieces.back() = {pieces.back().data(), pieces.back().size() + bytes->size()};
    } else {
      pieces.emplace_back(*bytes);
    }
    start += piece;
    size -= piece;
  }
  return pieces;
}

void MemSave(Call& call, Done done) {
  kvm::Vcpus& vcpus = call.services.machine->vcpus();
  const std::int64_t index = call.Has("cpu-index") ? call.Integer("cpu-index") : 0;
  if (index < 0 || index >= static_cast<std::int64_t>(vcpus.count())) {
    return done(Refuse("Parameter 'cpu-index' expects a CPU number"));
  }
  const std::uint64_t start = call.Unsigned("val");
  const std::uint64_t size = call.Unsigned("size");
  const VcpuIndex vcpu(static_cast<std::uint32_t>(index));
  std::optional<Pieces> pieces;
  if (size <= kMostLinear && start <= UINT64_MAX - size) {
    vcpus.RunOn(vcpu,
                [&] { pieces = FindLinear(call.services.machine->all_ram(), vcpus.fd(vcpu), start, size); });
  }
  if (!pieces) {
    return done(Refuse(format("Invalid addr {:#018x}/size {} specified", start, size)));
  }
  Save(call, *std::move(pieces), std::move(done));
}

// fd:NAME or file:PATH.
Result<OutputFile> OpenDump(Call& call) {
  const std::string& protocol = call.Text("protocol");
  if (protocol.starts_with("file:")) {
    return OpenOutput(call.services, protocol.substr(5));
  }
  if (!protocol.starts_with("fd:")) {
    return Fail(Error::Usage("Invalid parameter 'protocol'"));
  }
  const auto found = call.client.fds.find(protocol.substr(3));
  if (found == call.client.fds.end()) {
    return Fail(Error::Usage(format("File descriptor named '{}' has not been found", protocol.substr(3))));
  }
  UniqueFd fd = std::move(found->second);
  call.client.fds.erase(found);
  return OutputFile(std::move(fd));
}

void DumpGuestMemory(Call& call, Done done) {
  if (call.Has("begin") != call.Has("length")) {
    return done(Refuse(format("Parameter '{}' is missing", call.Has("begin") ? "length" : "begin")));
  }
  auto file = OpenDump(call);
  if (!file) {
    return done(Refuse(file.error()));
  }
  call.services.dump.Start(call.services, call.client, *std::move(file),
                           {.begin = call.Unsigned("begin", 0),
                            .length = call.Unsigned("length", UINT64_MAX),
                            .paging = call.Flag("paging"),
                            .detach = call.Flag("detach")},
                           std::move(done));
}

Outcome QueryDump(Call& call) { return call.services.dump.Describe(); }

Outcome QueryDumpCapability(Call& /*call*/) { return Json{{"formats", Json::array({"elf"})}}; }

Outcome QueryMemoryTree(Call& call) {
  return Json{{"human-readable-text", MemoryTreeText(*call.services.machine)}};
}

// A block may lie in several ranges.
Outcome QueryRamBlocks(Call& call) {
  std::string text =
      format("{:>24} {:>8} {:>18} {:>18} {:>18}\n", "Block Name", "PSize", "Offset", "Used", "Total");
  for (const auto& range : call.services.machine->ram().ranges()) {
    text += format("{:>24} {:>8} {:#018x} {:#018x} {:#018x}\n", range.block->name(),
                   format("{} KiB", range.block->unit() / kKiB), range.start.value(), range.size,
                   range.block->size());
  }
  return Json{{"human-readable-text", std::move(text)}};
}

// One, which all vCPUs and all RAM belong to.
Outcome QueryNuma(Call& call) {
  std::string text = "1 nodes\nnode 0 cpus:";
  for (unsigned i = 0; i < call.services.machine->vcpus().count(); ++i) {
    text += format(" {}", i);
  }
  text += format("\nnode 0 size: {} MB\nnode 0 plugged: 0 MB\n", call.services.machine->ram().size() / kMiB);
  return Json{{"human-readable-text", std::move(text)}};
}

constexpr std::array kCommands{
    Command{.name = "memsave",
            .help = "Writes guest memory by linear address to a file, whole or not at all; 256 MiB at most.",
            .arguments = &kMemsaveArguments,
            .start = MemSave},
    Command{.name = "pmemsave",
            .help = "Writes guest RAM by guest-physical address to a file, whole or not at all.",
            .arguments = &kPmemsaveArguments,
            .start = PmemSave},
    Command{
        .name = "dump-guest-memory",
        .help =
            "Writes all RAM and the vCPUs' registers as an ELF core file; the guest is stopped meanwhile.",
        .arguments = &kDumpArguments,
        .flags = Command::kNotInDump,
        .start = DumpGuestMemory},
    Command{.name = "query-dump", .help = "How the dump stands.", .result = &kResult, .run = QueryDump},
    Command{.name = "query-dump-guest-memory-capability",
            .help = "The formats of dumps.",
            .result = &kCapability,
            .run = QueryDumpCapability},
    Command{.name = "x-query-mtree",
            .help = "The tree of memory regions, for people.",
            .result = &kText,
            .run = QueryMemoryTree},
    Command{.name = "x-query-ramblock",
            .help = "The blocks of guest RAM and where they are, for people.",
            .result = &kText,
            .run = QueryRamBlocks},
    Command{.name = "x-query-numa",
            .help = "The guest's NUMA nodes, for people.",
            .result = &kText,
            .run = QueryNuma},
};

}  // namespace

std::span<const Command> MemoryCommands() { return kCommands; }

}  // namespace gyre::control
