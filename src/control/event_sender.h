// Events on their way to the clients: written once with the time of their emission,
// and no more often than a kind may come.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "gyre/loop/main_loop.h"
#include "src/control/json.h"
#include "src/control/type.h"
#include "src/machine/events.h"

namespace gyre::control {

// An event's name and data, for query-qmp-schema and the reference page.
struct EventKind {
  std::string_view name;
  std::string_view help;
  const Type* data = &kNothing;
  std::int64_t least_interval_ns = 0;  // 0: each is sent
};
std::span<const EventKind> AllEvents();

// The data of a machine's event, as its kind has it.
Json EventData(const machine::Event& event);

// Emission may come from within anything, another emission's sink too. Big lock's holder.
class EventSender {
 public:
  using Sink = std::function<void(const std::shared_ptr<const std::string>& line)>;
  EventSender(loop::MainLoop& loop, Sink sink) : loop_(loop), sink_(std::move(sink)) {}
  EventSender(const EventSender&) = delete;
  EventSender& operator=(const EventSender&) = delete;

  // `name` is one of AllEvents'. Of those that come too often the first goes out at once,
  // and the last when the interval is over.
  void Send(std::string_view name, const Json& data);

 private:
  struct Throttle {
    std::unique_ptr<loop::Timer> timer;  // on kRealtime: the VM may be stopped
    std::shared_ptr<const std::string> last;
  };
  void SendLimited(const EventKind& kind, std::shared_ptr<const std::string> line);
  void OnInterval(const EventKind& kind);

  loop::MainLoop& loop_;
  Sink sink_;
  std::map<std::string_view, Throttle> throttles_;
};

}  // namespace gyre::control
