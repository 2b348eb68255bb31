// Commands of the tests' own, and a server that has them.
#pragma once

#include <array>
#include <atomic>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "gyre/base/format.h"
#include "tests/unit/control/client.h"

namespace gyre::control {

inline constexpr std::array kEchoMembers{Member{"text", &kString}};
inline constexpr Type kEchoArguments = ObjectType("echo arguments", kEchoMembers);

inline Done pending_done;           // of `slow`
inline std::thread::id oob_thread;  // that ran `where`
inline int executed = 0;            // times that `count` ran
inline int taken_fd = -1;
inline std::atomic<bool> cancelled_work = false;

inline Outcome Negotiate(Call& call) {
  if (call.Has("enable")) {
    if (const auto started = call.services.start_monitor_thread(); !started) {
      return Refuse(started.error());
    }
    call.client.oob = true;
  }
  call.client.negotiated = true;
  return Nothing();
}
inline Outcome Echo(Call& call) { return Json{{"text", call.Text("text")}}; }
inline Outcome Big(Call& /*call*/) { return Json{{"text", std::string(100'000, 'x')}}; }
inline Outcome Count(Call& /*call*/) {
  ++executed;
  return Nothing();
}
inline Outcome Nap(Call& /*call*/) {
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ++executed;
  return Nothing();
}
inline Outcome Where(Call& /*call*/) {
  oob_thread = std::this_thread::get_id();
  return Nothing();
}
inline Outcome TakeFd(Call& call) {
  taken_fd = call.fd ? ::dup(call.fd.get()) : -1;
  return Nothing();
}
inline Outcome Stop(Call& call) {
  call.services.events.Send("STOP", Json::object());
  return Nothing();
}
inline void Slow(Call& /*call*/, Done done) { pending_done = std::move(done); }
inline void Work(Call& call, Done done) {
  call.services.workers.Run(
      [](const std::atomic<bool>& cancelled) -> Outcome {
        while (!cancelled.load()) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        cancelled_work = true;
        return Refuse("cancelled");
      },
      std::move(done), call.client.gone);
}

inline constexpr std::array<std::string_view, 1> kCapabilities{"oob"};
inline constexpr Type kCapability = EnumType("capability", kCapabilities);
inline constexpr Type kCapabilityList = ArrayType("capabilities", kCapability);
inline constexpr std::array kNegotiateMembers{Member{"enable", &kCapabilityList, "", kOptional}};
inline constexpr Type kNegotiateArguments = ObjectType("arguments", kNegotiateMembers);

inline constexpr std::array kCommands{
    Command{.name = "big", .help = "", .run = Big},
    Command{.name = "count", .help = "", .run = Count},
    Command{
        .name = "echo", .help = "", .arguments = &kEchoArguments, .flags = Command::kAllowOob, .run = Echo},
    Command{.name = "nap", .help = "", .run = Nap},
    Command{.name = "qmp_capabilities",
            .help = "",
            .arguments = &kNegotiateArguments,
            .flags = Command::kNegotiates,
            .run = Negotiate},
    Command{.name = "slow", .help = "", .start = Slow},
    Command{.name = "stop", .help = "", .run = Stop},
    Command{.name = "take-fd", .help = "", .flags = Command::kTakesFd, .run = TakeFd},
    Command{.name = "where", .help = "", .flags = Command::kAllowOob, .run = Where},
    Command{.name = "work", .help = "", .start = Work},
};

inline std::span<const Command* const> TestCommands() {
  static constexpr auto kPointers = [] {
    std::array<const Command*, kCommands.size()> pointers{};
    for (std::size_t i = 0; i < kCommands.size(); ++i) {
      pointers[i] = &kCommands[i];
    }
    return pointers;
  }();
  return kPointers;
}

class Qmp : public ServerTest {
 protected:
  Qmp() {
    executed = 0;
    cancelled_work = false;
    pending_done = nullptr;
    oob_thread = {};
    Serve(&TestCommands);
  }
  // So many clients that send this and no more, of which some are cut off, but not all.
  std::vector<TestClient> FewerStayOf(std::size_t count, const std::string& value) {
    std::vector<TestClient> clients;
    for (std::size_t i = 0; i < count; ++i) {
      clients.push_back(ConnectAndNegotiate());
      std::string_view rest = value;
      EXPECT_TRUE(RunUntil([&] {
        rest.remove_prefix(clients.back().Put(rest));
        clients.back().Take();
        return rest.empty() || clients.back().ended;
      }));
    }
    EXPECT_TRUE(RunUntil([&] { return server_->clients() < count; }));
    EXPECT_GT(server_->clients(), 0U);
    return clients;
  }
};

inline std::string Echoed(std::string_view text) { return format(R"({{"return": {{"text": "{}"}}}})", text); }
inline std::string EchoRequest(std::string_view text) {
  return format(R"({{"execute": "echo", "arguments": {{"text": "{}"}}}})", text);
}

}  // namespace gyre::control
