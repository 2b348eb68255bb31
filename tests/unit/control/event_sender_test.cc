// What clients are told of: that each event has its place, and those that may not come too often.
#include "src/control/event_sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gyre/devices/virtio/registry.h"
#include "src/control/request.h"
#include "src/control/services.h"
#include "tests/unit/loop/fixture.h"

namespace gyre::control {
namespace {

using testing::HasSubstr;

class EventRates : public loop::ManualTimeTest {};

template <std::size_t... I>
void ExpectAllKnown(std::index_sequence<I...> /*each*/) {
  const auto known = [](const machine::Event& event) {
    return std::ranges::find(AllEvents(), std::string_view(Name(event)), &EventKind::name) !=
           AllEvents().end();
  };
  (..., [&] {
    const machine::Event event(std::in_place_index<I>);
    EXPECT_TRUE(known(event)) << Name(event);
    EXPECT_TRUE(EventData(event).is_object());
  }());
}

TEST(Events, Time_IsThatOfTheHostsClockOrMinusOneIfThatHasFailed) {
  EXPECT_THAT(WriteEvent("STOP", {}, 12'345'678'901), HasSubstr(R"("seconds": 12, "microseconds": 345678)"));
  EXPECT_THAT(WriteEvent("STOP", {}, -1), HasSubstr(R"("seconds": -1, "microseconds": -1)"));
}

// One that was not in the table ended gyred.
TEST(Events, EachThatTheMachineEmits_IsKnownToClients) {
  ExpectAllKnown(std::make_index_sequence<std::variant_size_v<machine::Event>>());
  EXPECT_EQ(EventData(machine::MemoryFailureEvent{.action_required = true})["action"], "fatal");
}

// Clients look at the device that an event is about: its path was none that qom-get knows.
TEST(Events, PathsOfDevices_AreThoseOfTheTreeOfObjects) {
  machine::BlockIoErrorEvent failed;
  failed.disk = "a";
  EXPECT_EQ(EventData(failed)["qom-path"], DevicePath("disk", "a"));
  EXPECT_EQ(EventData(machine::MemoryDeviceEvent{.id = "a"})["qom-path"], DevicePath("mem-device", "a"));
  for (const char* const option : {"disk", "mem-device", "pmem"}) {
    const auto modules = virtio::Modules();
    EXPECT_NE(std::ranges::find(modules, option, &virtio::Module::option), modules.end()) << option;
  }
}

// As QEMU tells the other end of a pair of sockets.
TEST(Events, ConnectedStream_HasItsAddress) {
  const Json address = {{"type", "unix"}, {"path", ""}};
  EXPECT_EQ(EventData(machine::NetEvent{.id = "net0", .up = true}),
            Json({{"netdev-id", "net0"}, {"addr", address}}));
  EXPECT_EQ(EventData(machine::NetEvent{.id = "net0", .up = false}), Json({{"netdev-id", "net0"}}));
}

TEST_F(EventRates, FirstAtOnceLastDelayed) {
  std::vector<std::string> sent;
  EventSender events(loop(), [&sent](const auto& line) { sent.push_back(*line); });
  const auto watchdog = [&events](std::string_view action) { events.Send("WATCHDOG", {{"action", action}}); };
  watchdog("pause");
  watchdog("debug");
  watchdog("none");
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_THAT(sent[0], HasSubstr(R"("action": "pause")"));
  manual_time.Advance(loop::kSecond - 1);
  Poll();
  EXPECT_EQ(sent.size(), 1U);
  manual_time.Advance(1);
  Poll();
  ASSERT_EQ(sent.size(), 2U);
  EXPECT_THAT(sent[1], HasSubstr(R"("action": "none")"));
  watchdog("reset");  // within a second of the delayed one
  EXPECT_EQ(sent.size(), 2U);
  manual_time.Advance(loop::kSecond);
  Poll();
  EXPECT_EQ(sent.size(), 3U);
  manual_time.Advance(loop::kSecond);
  Poll();
  EXPECT_EQ(sent.size(), 3U);
  watchdog("reset");
  EXPECT_EQ(sent.size(), 4U);
}

TEST_F(EventRates, EmissionFromWithinAnEmission_IsAnEvent) {
  std::vector<std::string> sent;
  std::unique_ptr<EventSender> events;
  events = std::make_unique<EventSender>(loop(), [&](const auto& line) {
    sent.push_back(*line);
    if (sent.size() == 1) {
      events->Send("RESUME", Json::object());
    }
  });
  events->Send("STOP", Json::object());
  EXPECT_EQ(sent.size(), 2U);
}

}  // namespace
}  // namespace gyre::control
