// The balloon: memory that the guest gives back.
#include <array>
#include <string>

#include "src/control/commands/families.h"
#include "src/control/services.h"

namespace gyre::control {
namespace {

using virtio::Balloon;

constexpr std::int64_t kMostSeconds = 86'400;

constexpr std::array kBalloonMembers{Member{"value", &kInteger, "bytes of memory that the guest is to have"}};
constexpr Type kBalloonArguments = ObjectType("balloon arguments", kBalloonMembers);
constexpr std::array kInfoMembers{Member{"actual", &kUnsigned, "bytes of memory that the guest has"}};
constexpr Type kInfo = ObjectType("BalloonInfo", kInfoMembers);

constexpr Type kSeconds{.kind = Type::Kind::kInteger, .name = "integer", .least = 0, .most = kMostSeconds};
constexpr std::array kIntervalMembers{Member{"seconds", &kSeconds, "0: the guest is not asked"}};
constexpr Type kIntervalArguments = ObjectType("balloon-set-stats-interval arguments", kIntervalMembers);

constexpr std::array kStatsMembers{
    Member{"stat-swap-in", &kUnsigned, "bytes; each is 18446744073709551615 where the guest has not told it"},
    Member{"stat-swap-out", &kUnsigned, "bytes"},
    Member{"stat-major-faults", &kUnsigned},
    Member{"stat-minor-faults", &kUnsigned},
    Member{"stat-free-memory", &kUnsigned, "bytes"},
    Member{"stat-total-memory", &kUnsigned, "bytes"},
    Member{"stat-available-memory", &kUnsigned, "bytes"},
    Member{"stat-disk-caches", &kUnsigned, "bytes"},
    Member{"stat-htlb-pgalloc", &kUnsigned},
    Member{"stat-htlb-pgfail", &kUnsigned}};
constexpr Type kStats = ObjectType("BalloonStats", kStatsMembers);
constexpr std::array kGuestStatsMembers{
    Member{"stats", &kStats}, Member{"last-update", &kInteger, "seconds since the epoch; 0: never"}};
constexpr Type kGuestStats = ObjectType("BalloonGuestStats", kGuestStatsMembers);

constexpr std::array kAutoMembers{
    Member{"limit", &kUnsigned, "bytes that the guest is asked for at most"},
    Member{"reserve", &kUnsigned, "bytes that it is to have available"},
    Member{"least", &kUnsigned, "bytes that it was asked for by hand: it is not asked for less"},
    Member{"target", &kUnsigned, "bytes that it is asked for now"},
    Member{"pressure", &kNumber,
           "percent of the last two seconds in which somebody on the host waited for memory"}};
constexpr Type kAuto = ObjectType("BalloonAutoInfo", kAutoMembers);

Balloon* Find(const Call& call) { return call.services.machine->balloon(); }

Outcome NoBalloon() { return Refuse("No balloon device has been activated", ErrorClass::kDeviceNotActive); }

Outcome SetBalloon(Call& call) {
  Balloon* const balloon = Find(call);
  if (balloon == nullptr) {
    return NoBalloon();
  }
  const std::int64_t value = call.Integer("value");
  if (value <= 0) {
    return Refuse("Parameter 'target' expects a size");
  }
  // What a guest is to have beside a balloon, and what it is to give, add up to the same.
  balloon->SetTarget(call.services.machine->MemoryBeside(static_cast<std::uint64_t>(value)));
  return Nothing();
}

Outcome QueryBalloon(Call& call) {
  const Balloon* const balloon = Find(call);
  if (balloon == nullptr) {
    return NoBalloon();
  }
  return Json{{"actual", call.services.machine->MemoryBeside(balloon->size())}};
}

Outcome SetInterval(Call& call) {
  Balloon* const balloon = Find(call);
  if (balloon == nullptr) {
    return NoBalloon();
  }
  balloon->SetStatsInterval(static_cast<std::uint32_t>(call.Integer("seconds")));
  return Nothing();
}

Outcome QueryStats(Call& call) {
  const Balloon* const balloon = Find(call);
  if (balloon == nullptr) {
    return NoBalloon();
  }
  const virtio::BalloonStats told = balloon->stats();
  Json stats = Json::object();
  for (std::size_t i = 0; i < told.values.size(); ++i) {
    stats[std::string(virtio::kBalloonStatNames.at(i))] = told.values.at(i);
  }
  return Json{{"stats", std::move(stats)}, {"last-update", told.updated_s}};
}

Outcome QueryAuto(Call& call) {
  const Balloon* const balloon = Find(call);
  const auto automatic = balloon != nullptr ? balloon->automatic() : std::nullopt;
  if (!automatic) {
    return balloon == nullptr
               ? NoBalloon()
               : Refuse("The balloon does not follow the host's pressure", ErrorClass::kDeviceNotActive);
  }
  return Json{{"limit", automatic->limit},
              {"reserve", automatic->reserve},
              {"least", automatic->least},
              {"target", balloon->target()},
              {"pressure", automatic->permille / 10.0}};
}

constexpr std::array kCommands{
    Command{.name = "balloon",
            .help = "Asks the guest to give memory back, or to take it, until it has so much.",
            .arguments = &kBalloonArguments,
            .run = SetBalloon},
    Command{.name = "query-balloon",
            .help = "How much memory the guest has beside its balloon.",
            .result = &kInfo,
            .run = QueryBalloon},
    Command{.name = "balloon-set-stats-interval",
            .help = "How often the guest is asked for its memory's statistics.",
            .arguments = &kIntervalArguments,
            .run = SetInterval},
    Command{.name = "query-balloon-stats",
            .help = "What the guest has last told of its memory, as the guest-stats of others.",
            .result = &kGuestStats,
            .run = QueryStats},
    Command{.name = "query-balloon-auto",
            .help = "How a balloon that follows the host's memory pressure stands.",
            .result = &kAuto,
            .run = QueryAuto},
};

}  // namespace

std::span<const Command> BalloonCommands() { return kCommands; }

}  // namespace gyre::control
