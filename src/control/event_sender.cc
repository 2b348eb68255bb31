#include "src/control/event_sender.h"

#include <algorithm>
#include <array>

#include "gyre/base/log.h"
#include "src/control/request.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

using machine::Event;

constexpr std::int64_t kSecond = 1'000'000'000;

constexpr std::array<std::string_view, 11> kShutdownCauses{
    "none",           "host-error",  "host-qmp-quit", "host-qmp-system-reset", "host-signal",  "host-ui",
    "guest-shutdown", "guest-reset", "guest-panic",   "subsystem-reset",       "snapshot-load"};
constexpr Type kShutdownCause = EnumType("ShutdownCause", kShutdownCauses);
constexpr std::array kCauseMembers{Member{"guest", &kBoolean, "the guest did it"},
                                   Member{"reason", &kShutdownCause, "what led to it"}};
constexpr Type kCauseData = ObjectType("ShutdownInfo", kCauseMembers);

constexpr std::array<std::string_view, 3> kPanicActions{"pause", "poweroff", "run"};
constexpr Type kPanicAction = EnumType("GuestPanicAction", kPanicActions);
constexpr std::array kPanicMembers{Member{"action", &kPanicAction, "what is done about it"}};
constexpr Type kPanicData = ObjectType("GuestPanickedInfo", kPanicMembers);

constexpr std::array<std::string_view, 7> kWatchdogActions{"reset", "shutdown", "poweroff",  "pause",
                                                           "debug", "none",     "inject-nmi"};
constexpr Type kWatchdogAction = EnumType("WatchdogAction", kWatchdogActions);
constexpr std::array kWatchdogMembers{Member{"action", &kWatchdogAction, "what is done about it"}};
constexpr Type kWatchdogData = ObjectType("WatchdogInfo", kWatchdogMembers);

constexpr std::array<std::string_view, 4> kDumpStates{"none", "active", "completed", "failed"};
constexpr Type kDumpState = EnumType("DumpStatus", kDumpStates);
constexpr std::array kDumpResultMembers{Member{"status", &kDumpState, "how it stands"},
                                        Member{"completed", &kInteger, "bytes written"},
                                        Member{"total", &kInteger, "bytes in all"}};
constexpr Type kDumpResult = ObjectType("DumpQueryResult", kDumpResultMembers);
constexpr std::array kDumpMembers{Member{"result", &kDumpResult, "how it ended"},
                                  Member{"error", &kString, "why it failed", kOptional}};
constexpr std::array kProgressMembers{Member{"result", &kDumpResult, "how far it is"}};
constexpr Type kProgressData = ObjectType("DumpProgressInfo", kProgressMembers);
constexpr Type kDumpData = ObjectType("DumpCompletedInfo", kDumpMembers);

constexpr std::array<std::string_view, 2> kRecipients{"hypervisor", "guest"};
constexpr Type kRecipient = EnumType("MemoryFailureRecipient", kRecipients);
constexpr std::array<std::string_view, 4> kFailureActions{"ignore", "inject", "fatal", "reset"};
constexpr Type kFailureAction = EnumType("MemoryFailureAction", kFailureActions);
constexpr std::array kFlagMembers{Member{"action-required", &kBoolean, "somebody has met it"},
                                  Member{"recursive", &kBoolean, "while another was being served"}};
constexpr Type kFlags = ObjectType("MemoryFailureFlags", kFlagMembers);
constexpr std::array kFailureMembers{Member{"recipient", &kRecipient, "whose memory it is"},
                                     Member{"action", &kFailureAction, "what is done about it"},
                                     Member{"flags", &kFlags, "more of it"}};
constexpr Type kFailureData = ObjectType("MemoryFailureInfo", kFailureMembers);

constexpr std::array kNetMembers{Member{"netdev-id", &kString, "the network device"}};
constexpr Type kNetData = ObjectType("NetdevInfo", kNetMembers);
constexpr std::array<std::string_view, 1> kAddressTypes{"unix"};
constexpr Type kAddressType = EnumType("StreamAddressType", kAddressTypes);
constexpr std::array kAddressMembers{Member{"type", &kAddressType},
                                     Member{"path", &kString, "empty: one of a pair, without a name"}};
constexpr Type kAddress = ObjectType("StreamAddress", kAddressMembers);
constexpr std::array kNetUpMembers{Member{"netdev-id", &kString, "the network device"},
                                   Member{"addr", &kAddress, "the back end's socket"}};
constexpr Type kNetUpData = ObjectType("NetdevConnectedInfo", kNetUpMembers);
constexpr std::array kVhostUserMembers{Member{"device", &kString, "its id"}};
constexpr Type kVhostUserData = ObjectType("VhostUserDeviceInfo", kVhostUserMembers);
constexpr std::array<std::string_view, 2> kOperations{"read", "write"};
constexpr Type kOperation = EnumType("IoOperationType", kOperations);
constexpr std::array<std::string_view, 3> kErrorActions{"ignore", "report", "stop"};
constexpr Type kErrorAction = EnumType("BlockErrorAction", kErrorActions);
constexpr std::array kIoErrorMembers{Member{"device", &kString, "the disk's id"},
                                     Member{"qom-path", &kString, "its name for others"},
                                     Member{"node-name", &kString, "its image's"},
                                     Member{"operation", &kOperation, "all but reading is writing"},
                                     Member{"action", &kErrorAction, "what is done about it"},
                                     Member{"nospace", &kBoolean, "there is no space left"},
                                     Member{"reason", &kString, "for people"}};
constexpr Type kIoErrorData = ObjectType("BlockIoErrorInfo", kIoErrorMembers);

constexpr std::array kBalloonMembers{Member{"actual", &kUnsigned, "bytes of memory that the guest has"}};
constexpr Type kBalloonData = ObjectType("BalloonInfo", kBalloonMembers);

constexpr std::array kMemorySizeMembers{Member{"id", &kString, "the device's", kOptional},
                                        Member{"size", &kUnsigned, "bytes that the guest has of it"},
                                        Member{"qom-path", &kString, "its name for others"}};
constexpr Type kMemorySizeData = ObjectType("MemoryDeviceSizeInfo", kMemorySizeMembers);

constexpr std::array kEvents{
    EventKind{"BALLOON_CHANGE", "The guest has given memory back, or taken it.", &kBalloonData, kSecond},
    EventKind{"BLOCK_IO_ERROR", "The host could not carry out a disk's request.", &kIoErrorData},
    EventKind{"DUMP_COMPLETED", "A memory dump has ended, well or not.", &kDumpData},
    EventKind{"DUMP_PROGRESS", "How far a memory dump is; twice a second.", &kProgressData},
    EventKind{"GUEST_CRASHLOADED", "The guest says that it goes on with a crash kernel.", &kPanicData},
    EventKind{"GUEST_PANICKED", "The guest says that it has panicked.", &kPanicData},
    EventKind{"MEMORY_DEVICE_SIZE_CHANGE", "The guest has taken memory of a device, or given it back.",
              &kMemorySizeData, kSecond},
    EventKind{"MEMORY_FAILURE", "Hardware has lost a part of guest memory.", &kFailureData},
    EventKind{"NETDEV_STREAM_CONNECTED", "A network device's back end is there again.", &kNetUpData},
    EventKind{"NETDEV_STREAM_DISCONNECTED", "A network device's back end has gone; its link is down.",
              &kNetData},
    EventKind{"POWERDOWN", "The guest has been asked to power off."},
    EventKind{"RESET", "The VM is reset.", &kCauseData},
    EventKind{"RESUME", "The guest runs; sent before its first instruction."},
    EventKind{"SHUTDOWN", "The VM ends, or stops if action shutdown=pause says so.", &kCauseData},
    EventKind{"STOP", "The guest is stopped; sent when no vCPU runs any more."},
    EventKind{"SUSPEND", "The guest has put itself to sleep."},
    EventKind{"VHOST_USER_CONNECTED", "A device's vhost-user back end is there again.", &kVhostUserData},
    EventKind{
        "VHOST_USER_DISCONNECTED",
        "A device's vhost-user back end has gone, or is not to be trusted; the guest waits for another.",
        &kVhostUserData},
    EventKind{"WAKEUP", "The guest has been woken."},
    EventKind{"WATCHDOG", "The guest has not pinged its watchdog in time.", &kWatchdogData, kSecond}};

struct DataOf {
  static Json OfCause(machine::ShutdownCause cause) {
    return {{"guest", machine::IsGuest(cause)}, {"reason", machine::Name(cause)}};
  }
  Json operator()(const machine::ShutdownEvent& event) const { return OfCause(event.reason); }
  Json operator()(const machine::ResetEvent& event) const { return OfCause(event.reason); }
  Json operator()(const machine::GuestPanickedEvent& event) const { return {{"action", event.action}}; }
  Json operator()(const machine::GuestCrashLoadedEvent&) const { return {{"action", "run"}}; }
  Json operator()(const machine::WatchdogEvent& event) const {
    return {{"action", machine::Name(event.action)}};
  }
  Json operator()(const machine::MemoryFailureEvent& event) const {
    return {{"recipient", "guest"},
            {"action", event.action_required ? "fatal" : "ignore"},
            {"flags", {{"action-required", event.action_required}, {"recursive", false}}}};
  }
  // What comes back is a program that we have started again, at the other end of a pair of sockets.
  Json operator()(const machine::NetEvent& event) const {
    Json data{{"netdev-id", event.id}};
    if (event.up) {
      data["addr"] = {{"type", "unix"}, {"path", ""}};
    }
    return data;
  }
  Json operator()(const machine::VhostUserEvent& event) const { return {{"device", event.id}}; }
  Json operator()(const machine::BlockIoErrorEvent& event) const {
    return {{"device", event.disk},
            {"qom-path", DiskPath(event.disk)},
            {"node-name", DiskNode(event.disk)},
            {"operation", event.read ? "read" : "write"},
            {"action", event.action},
            {"nospace", event.no_space},
            {"reason", event.reason}};
  }
  Json operator()(const machine::BalloonEvent& event) const { return {{"actual", event.actual}}; }
  Json operator()(const machine::MemoryDeviceEvent& event) const {
    return {{"id", event.id},
            {"size", event.size},
            {"qom-path", MemoryDevicePath(virtio::MemoryKind::kMem, event.id)}};
  }
  Json operator()(const auto&) const { return Json::object(); }
};

}  // namespace

std::span<const EventKind> AllEvents() { return kEvents; }

Json EventData(const Event& event) { return std::visit(DataOf{}, event); }

void EventSender::Send(std::string_view name, const Json& data) {
  const auto* const kind = std::ranges::find(kEvents, name, &EventKind::name);
  if (kind == kEvents.end()) {  // a fault of ours, which no client is to see as the VM's end
    return log::Error("control: there is no event {}", name);
  }
  auto line = std::make_shared<const std::string>(WriteEvent(name, data, loop_.Now(loop::ClockType::kHost)));
  if (kind->least_interval_ns == 0) {
    sink_(line);
  } else {
    SendLimited(*kind, std::move(line));
  }
}

void EventSender::SendLimited(const EventKind& kind, std::shared_ptr<const std::string> line) {
  Throttle& throttle = throttles_[kind.name];
  if (throttle.timer != nullptr && throttle.timer->set()) {
    throttle.last = std::move(line);
    return;
  }
  if (throttle.timer == nullptr) {
    throttle.timer =
        std::make_unique<loop::Timer>(loop_, loop::ClockType::kRealtime, [this, &kind] { OnInterval(kind); });
  }
  throttle.timer->Set(loop_.Now(loop::ClockType::kRealtime) + kind.least_interval_ns);
  sink_(line);
}

void EventSender::OnInterval(const EventKind& kind) {
  if (auto last = std::exchange(throttles_[kind.name].last, nullptr)) {
    SendLimited(kind, std::move(last));
  }
}

}  // namespace gyre::control
