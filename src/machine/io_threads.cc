#include "src/machine/io_threads.h"

#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "gyre/base/format.h"
#include "gyre/base/numbers.h"

namespace gyre::machine {
namespace {

constexpr std::size_t kMaxThreads = 64;
constexpr std::size_t kMaxIdBytes = 32;
constexpr std::uint64_t kMaxPollNs = 10'000'000;
constexpr std::uint64_t kMaxPollFactor = 1000;

Status AddCpus(std::string_view value, std::vector<unsigned>& cpus) {
  const auto range = ParseRange(value);
  if (!range || range->last >= CPU_SETSIZE) {
    return Fail(Error::Usage(format("cpus={}: is not a CPU or a range of them, such as 0 or 0-3", value)));
  }
  for (unsigned cpu = range->first; cpu <= range->last; ++cpu) {
    cpus.push_back(cpu);
  }
  return {};
}

Result<std::uint64_t> Number(std::string_view key, std::string_view value, std::uint64_t most) {
  const auto number = ParseNumber<std::uint64_t>(value);
  if (!number || *number > most) {
    return Fail(Error::Usage(format("{}={}: must be a number from 0 to {}", key, value, most)));
  }
  return *number;
}

Status Apply(std::string_view key, std::string_view value, IoThreadConfig& config) {
  if (key == "cpus") {
    return AddCpus(value, config.cpus);
  }
  if (key == "poll-max-ns") {
    config.poll.max_ns = static_cast<std::int64_t>(TRY(Number(key, value, kMaxPollNs)));
  } else if (key == "poll-grow") {
    config.poll.grow = static_cast<unsigned>(TRY(Number(key, value, kMaxPollFactor)));
  } else if (key == "poll-shrink") {
    config.poll.shrink = static_cast<unsigned>(TRY(Number(key, value, kMaxPollFactor)));
  } else {
    return Fail(Error::Usage(format("'{}' is not one of cpus, poll-max-ns, poll-grow, poll-shrink", key)));
  }
  return {};
}

bool IsId(std::string_view text) {
  const auto fits = [](char byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           byte == '-' || byte == '_' || byte == '.';
  };
  return !text.empty() && text.size() <= kMaxIdBytes && std::ranges::all_of(text, fits);
}

}  // namespace

Result<IoThreadConfig> ParseIoThread(std::string_view text) {
  IoThreadConfig config;
  config.id = text.substr(0, text.find(','));
  if (!IsId(config.id)) {
    return Fail(Error::Usage(
        format("'{}' is not an ID: 1 to {} of letters, digits, '-', '_' and '.'", config.id, kMaxIdBytes)));
  }
  text.remove_prefix(config.id.size());
  while (!text.empty()) {
    text.remove_prefix(1);
    const auto item = text.substr(0, text.find(','));
    text.remove_prefix(item.size());
    const auto equals = item.find('=');
    if (equals == std::string_view::npos) {
      return Fail(Error::Usage(format("'{}' is not of the form key=value", item)));
    }
    TRY(Apply(item.substr(0, equals), item.substr(equals + 1), config));
  }
  return config;
}

Result<IoThreads> IoThreads::Create(loop::MainLoop& loop, const std::vector<IoThreadConfig>& configs) {
  IoThreads threads;
  if (configs.size() > kMaxThreads) {
    return Fail(
        Error::Usage(format("--iothread: {} I/O threads are more than {}", configs.size(), kMaxThreads)));
  }
  for (const IoThreadConfig& config : configs) {
    if (std::ranges::any_of(threads.entries_,
                            [&](const Entry& entry) { return entry.config.id == config.id; })) {
      return Fail(Error::Usage(format("--iothread: '{}' comes twice", config.id)));
    }
    auto thread =
        loop::IoThread::Create(loop, {.name = "io-" + config.id, .cpus = config.cpus, .poll = config.poll});
    if (!thread) {
      return Fail(std::move(thread).error().Within("--iothread"));
    }
    threads.entries_.push_back({.config = config, .thread = std::move(*thread)});
  }
  return threads;
}

Result<std::vector<loop::IoThread*>> IoThreads::Named(std::string_view ids) const {
  std::vector<loop::IoThread*> named;
  for (bool more = !ids.empty(); more;) {
    const auto end = ids.find(':');
    const auto id = ids.substr(0, end);
    more = end != std::string_view::npos;
    ids.remove_prefix(more ? end + 1 : ids.size());
    const auto found =
        std::ranges::find_if(entries_, [id](const Entry& entry) { return entry.config.id == id; });
    if (found == entries_.end()) {
      return Fail(Error::Usage(format("iothread={}: there is no --iothread of that name", id)));
    }
    named.push_back(found->thread.get());
  }
  return named;
}

}  // namespace gyre::machine
