#include "gyre/base/log.h"

#include <fcntl.h>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>

#include "gyre/base/unique_fd.h"
#include "src/base/journal.h"

namespace gyre::log {
namespace {

// True if stderr is the stream that systemd connected to the journal
// (systemd.exec(5), $JOURNAL_STREAM: "device:inode").
bool StderrIsJournal() {
  const char* text = std::getenv("JOURNAL_STREAM");
  struct stat info{};
  if (text == nullptr || ::fstat(STDERR_FILENO, &info) != 0) {
    return false;
  }
  return format("{}:{}", info.st_dev, info.st_ino) == text;
}

std::atomic<const char*> vm_state{""};

// Writes to a descriptor that Reopen may replace; no stdio, so that lines of
// several processes on one stream stay whole. Where that is the journal's stream,
// entries go to its socket, with fields, and what that does not take to the stream.
class FdSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  FdSink(UniqueFd owned, bool journal, std::string vm) : owned_(std::move(owned)), vm_(std::move(vm)) {
    if (journal) {
      journal_.emplace();
    }
  }

  void Replace(UniqueFd fd) {
    const std::lock_guard lock(mutex_);
    owned_ = std::move(fd);
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    if (journal_) {
      const std::string_view priority = Priority(message.level);
      if (journal_->Send({.priority = priority[1],
                          .vm = vm_,
                          .state = vm_state.load(std::memory_order_relaxed),
                          .message = {message.payload.data(), message.payload.size()}})) {
        return;
      }
      line.append(priority);
    }
    formatter_->format(message, line);
    const int fd = owned_ ? owned_.get() : STDERR_FILENO;
    std::size_t done = 0;
    while (done < line.size()) {
      const ssize_t wrote = ::write(fd, line.data() + done, line.size() - done);
      if (wrote < 0 && errno != EINTR) {
        return;  // A log that cannot be written must not stop the VM.
      }
      done += wrote > 0 ? static_cast<std::size_t>(wrote) : 0;
    }
  }
  void flush_() override {}

 private:
  static std::string_view Priority(spdlog::level::level_enum level) {  // sd-daemon(3)
    switch (level) {
      case spdlog::level::err:
        return "<3>";
      case spdlog::level::warn:
        return "<4>";
      case spdlog::level::info:
        return "<6>";
      default:
        return "<7>";
    }
  }

  UniqueFd owned_;
  std::string vm_;
  std::optional<JournalSocket> journal_;
};

struct State {
  std::mutex mutex;
  std::string path;
  std::string name;
  std::shared_ptr<FdSink> sink;
  std::unique_ptr<spdlog::logger> logger;
};

State& TheState() {
  static State state;
  return state;
}

std::atomic<Level> threshold{Level::kInfo};

Result<UniqueFd> OpenLogFile(const std::string& path) {
  if (path.empty()) {
    return UniqueFd();
  }
  return OpenFile(path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY, 0640);
}

spdlog::level::level_enum ToSpdlog(Level level) {
  constexpr std::array kLevels{spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                               spdlog::level::err};
  return kLevels.at(static_cast<std::size_t>(level));
}

void MakeLogger(State& state, UniqueFd fd) {
  const bool journal = !fd && StderrIsJournal();
  state.sink = std::make_shared<FdSink>(std::move(fd), journal, state.name);
  const std::string tag = state.name.empty() ? "gyred" : "gyred[" + state.name + "]";
  state.logger = std::make_unique<spdlog::logger>(tag, state.sink);
  state.logger->set_level(spdlog::level::trace);
  state.logger->set_pattern(journal ? "%n: %v" : "%Y-%m-%dT%H:%M:%S.%f %n %l: %v");
}

}  // namespace

Status Open(const std::string& path, std::string_view name) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  state.path = path;
  state.name = name;
  if (!path.empty()) {
    MakeLogger(state, TRY(OpenLogFile(path)));
  }
  return {};
}

Status Reopen() {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  if (!state.path.empty() && state.sink) {
    state.sink->Replace(TRY(OpenLogFile(state.path)));
  }
  return {};
}

void SetState(std::string_view state) { vm_state.store(state.data(), std::memory_order_relaxed); }

void SetLevel(Level level) { threshold.store(level, std::memory_order_relaxed); }

bool Enabled(Level level) { return level >= threshold.load(std::memory_order_relaxed); }

void Write(Level level, std::string_view text) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  if (!state.logger) {
    MakeLogger(state, UniqueFd());
  }
  state.logger->log(ToSpdlog(level), spdlog::string_view_t(text.data(), text.size()));
}

bool RateLimit::Allow(std::uint64_t* suppressed) {
  constexpr std::int64_t kIntervalNs = 1'000'000'000;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const std::int64_t now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  std::int64_t next_ns = next_ns_.load(std::memory_order_relaxed);
  // Of those who are late at the same time one has its message.
  if (now_ns < next_ns || !next_ns_.compare_exchange_strong(next_ns, now_ns + kIntervalNs)) {
    suppressed_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  *suppressed = suppressed_.exchange(0);
  return true;
}

}  // namespace gyre::log
