// Where the bytes of serial ports, consoles and control sockets go.
#include <array>
#include <string>
#include <utility>

#include "gyre/base/format.h"
#include "src/control/commands/families.h"
#include "src/control/services.h"
#include "src/control/utf8.h"

namespace gyre::control {
namespace {

using devices::Chardev;

constexpr std::array kChardevMembers{Member{"label", &kString, "whose it is"},
                                     Member{"filename", &kString, "where its bytes go"},
                                     Member{"frontend-open", &kBoolean, "somebody uses it"}};
constexpr Type kChardev = ObjectType("ChardevInfo", kChardevMembers);
constexpr Type kChardevs = ArrayType("array of ChardevInfo", kChardev);

// The back ends' arguments, in the shape that QEMU's clients know.
constexpr std::array kFileMembers{Member{"out", &kString, "the path"},
                                  Member{"append", &kBoolean, "keep what the file has (false)", kOptional}};
constexpr Type kFile = ObjectType("ChardevFile", kFileMembers);
constexpr std::array kStdioMembers{
    Member{"signal", &kBoolean, "must be false: keys are the guest's", kOptional}};
constexpr Type kStdio = ObjectType("ChardevStdio", kStdioMembers);
constexpr Type kCommon = ObjectType("ChardevCommon", {});
constexpr std::array kRingbufMembers{Member{"size", &kUnsigned, "bytes, a power of two (65536)", kOptional}};
constexpr Type kRingbuf = ObjectType("ChardevRingbuf", kRingbufMembers);
constexpr std::array kPathMembers{Member{"path", &kString, "where it listens"}};
constexpr Type kPath = ObjectType("UnixSocketAddress", kPathMembers);
constexpr std::array kFdMembers{Member{"str", &kString, "a listening socket that getfd has named"}};
constexpr Type kFd = ObjectType("FdSocketAddress", kFdMembers);

// {type: T, data: D}: `data` is what the type says.
template <const Type& Data>
struct Wrapped {
  static constexpr std::array kMembers{Member{"data", &Data}};
  static constexpr Type kType = ObjectType(Data.name, kMembers);
};

constexpr std::array<std::string_view, 2> kAddressTypes{"unix", "fd"};
constexpr Type kAddressType = EnumType("SocketAddressType", kAddressTypes);
constexpr std::array kAddressVariants{Variant{"unix", &Wrapped<kPath>::kType},
                                      Variant{"fd", &Wrapped<kFd>::kType}};
constexpr std::array kAddressMembers{Member{"type", &kAddressType}};
constexpr Type kAddress{.kind = Type::Kind::kObject,
                        .name = "SocketAddressLegacy",
                        .members = kAddressMembers,
                        .tag = "type",
                        .variants = kAddressVariants};
constexpr std::array kSocketMembers{Member{"addr", &kAddress},
                                    Member{"server", &kBoolean, "must be true: it listens", kOptional},
                                    Member{"wait", &kBoolean, "must be false: the guest runs", kOptional}};
constexpr Type kSocket = ObjectType("ChardevSocket", kSocketMembers);

constexpr std::array<std::string_view, 7> kBackendTypes{"file",   "null",  "pty",   "ringbuf",
                                                        "socket", "stdio", "memory"};
constexpr Type kBackendType = EnumType("ChardevBackendKind", kBackendTypes);
constexpr std::array kBackendVariants{
    Variant{"file", &Wrapped<kFile>::kType},      Variant{"null", &Wrapped<kCommon>::kType},
    Variant{"pty", &Wrapped<kCommon>::kType},     Variant{"ringbuf", &Wrapped<kRingbuf>::kType},
    Variant{"memory", &Wrapped<kRingbuf>::kType}, Variant{"socket", &Wrapped<kSocket>::kType},
    Variant{"stdio", &Wrapped<kStdio>::kType}};
constexpr std::array kBackendMembers{Member{"type", &kBackendType}};
constexpr Type kBackend{.kind = Type::Kind::kObject,
                        .name = "ChardevBackend",
                        .members = kBackendMembers,
                        .tag = "type",
                        .variants = kBackendVariants};
constexpr std::array kChangeMembers{
    Member{"id", &kString, "the label"},
    Member{"backend", &kBackend,
           "file, null, pty, ringbuf, socket (that listens: unix or fd) or stdio, in QEMU's shape"}};
constexpr Type kChangeArguments = ObjectType("chardev-change arguments", kChangeMembers);
constexpr std::array kReturnMembers{Member{"pty", &kString, "the terminal's path, if it is one", kOptional}};
constexpr Type kReturn = ObjectType("ChardevReturn", kReturnMembers);

constexpr Type kColumns{
    .kind = Type::Kind::kInteger, .name = "16-bit integer", .least = 0, .most = UINT16_MAX};
constexpr std::array kResizeMembers{Member{"id", &kString, "the label"},
                                    Member{"cols", &kColumns, "characters"},
                                    Member{"rows", &kColumns, "lines"}};
constexpr Type kResizeArguments = ObjectType("chardev-resize arguments", kResizeMembers);

constexpr std::array<std::string_view, 1> kFormats{"utf8"};
constexpr Type kFormat = EnumType("DataFormat", kFormats);
constexpr std::uint64_t kMostRead = kMiB;
constexpr Type kReadSize{.kind = Type::Kind::kInteger, .name = "integer", .least = 1, .most = kMostRead};
constexpr std::array kReadMembers{
    Member{"device", &kString, "the label"}, Member{"size", &kReadSize, "bytes at most"},
    Member{"format", &kFormat, "what is no UTF-8 comes as replacement characters", kOptional}};
constexpr Type kReadArguments = ObjectType("ringbuf-read arguments", kReadMembers);

Outcome QueryChardevs(Call& call) {
  Json list = Json::array();
  for (const auto& chardev : call.services.machine->chardevs().all()) {
    list.push_back({{"label", chardev->label()},
                    {"filename", chardev->filename()},
                    {"frontend-open", chardev->in_use()}});
  }
  for (std::size_t i = 0; i < call.services.sockets.size(); ++i) {
    list.push_back({{"label", format("qmp{}", i)},
                    {"filename", call.services.sockets[i]},
                    {"frontend-open", call.services.has_clients(i)}});
  }
  return list;
}

// A client's choice as NewCharBackend's form.
std::expected<std::string, CommandError> SocketSpec(Call& call, const Json& data) {
  if (!data.value("server", true) || data.value("wait", false)) {
    return Refuse("a socket must have 'server' true and 'wait' false");
  }
  const Json& address = data.at("addr");
  if (address.at("type") == "unix") {
    return "unix:" + address.at("data").at("path").get<std::string>();
  }
  const auto& name = address.at("data").at("str").get_ref<const std::string&>();
  auto found = call.client.fds.find(name);
  if (found == call.client.fds.end()) {
    return Refuse(format("File descriptor named '{}' not found", name));
  }
  const int fd = found->second.Release();
  call.client.fds.erase(found);
  return format("fd:{}", fd);
}

std::expected<std::string, CommandError> SpecOf(Call& call, const Json& backend) {
  const auto& type = backend.at("type").get_ref<const std::string&>();
  const Json& data = backend.at("data");
  if (type == "file") {
    return (data.value("append", false) ? "append:" : "file:") + data.at("out").get<std::string>();
  }
  if (type == "ringbuf" || type == "memory") {
    return data.contains("size") ? format("ringbuf:{}", data.at("size").get<std::uint64_t>()) : "ringbuf";
  }
  if (type == "socket") {
    return SocketSpec(call, data);
  }
  if (type == "stdio" && data.value("signal", false)) {
    return Refuse("stdio must have 'signal' false");
  }
  return type;
}

std::expected<Chardev*, CommandError> FindChardev(Call& call, std::string_view member) {
  const std::string& label = call.Text(member);
  if (Chardev* const chardev = call.services.machine->chardevs().Find(label)) {
    return chardev;
  }
  return Refuse(format("Chardev '{}' does not exist", label));
}

Outcome ChangeChardev(Call& call) {
  const auto chardev = FindChardev(call, "id");
  if (!chardev) {
    return std::unexpected(chardev.error());
  }
  const auto spec = SpecOf(call, call.arguments.at("backend"));
  if (!spec) {
    return std::unexpected(spec.error());
  }
  if (const auto changed = call.services.machine->chardevs().Change(**chardev, *spec); !changed) {
    return Refuse(changed.error());
  }
  constexpr std::string_view kPty = "pty:";
  const std::string filename = (*chardev)->filename();
  return filename.starts_with(kPty) ? Outcome(Json{{"pty", filename.substr(kPty.size())}}) : Nothing();
}

Outcome ResizeChardev(Call& call) {
  const auto chardev = FindChardev(call, "id");
  if (!chardev) {
    return std::unexpected(chardev.error());
  }
  (*chardev)->Resize({.columns = static_cast<std::uint16_t>(call.Unsigned("cols")),
                      .rows = static_cast<std::uint16_t>(call.Unsigned("rows"))});
  return Nothing();
}

Outcome ReadRingBuffer(Call& call) {
  const auto chardev = FindChardev(call, "device");
  if (!chardev) {
    return std::unexpected(chardev.error());
  }
  devices::RingBuffer* const buffer = (*chardev)->ring_buffer();
  if (buffer == nullptr) {
    return Refuse(format("{} is not a ringbuf device", (*chardev)->label()));
  }
  return Json(ReplaceInvalidUtf8(buffer->Take(call.Unsigned("size"))));
}

constexpr std::array kCommands{
    Command{.name = "query-chardev",
            .help = "Where the serial port's, the consoles' and the control sockets' bytes go.",
            .result = &kChardevs,
            .run = QueryChardevs},
    Command{.name = "chardev-change",
            .help =
                "Connects a serial port or console to something else while the guest runs. If that fails, "
                "all stays as it was. What the old one has not passed on yet is lost.",
            .arguments = &kChangeArguments,
            .result = &kReturn,
            .run = ChangeChardev},
    Command{.name = "chardev-resize",
            .help = "Tells a console how large the terminal is that shows it; 0 by 0: nobody knows.",
            .arguments = &kResizeArguments,
            .run = ResizeChardev},
    Command{.name = "ringbuf-read",
            .help = "Takes out the oldest output that a back end in memory (ringbuf) has.",
            .arguments = &kReadArguments,
            .result = &kString,
            .run = ReadRingBuffer},
};

}  // namespace

std::span<const Command> ChardevCommands() { return kCommands; }

}  // namespace gyre::control
