#include "gyre/base/trace.h"

#include <fcntl.h>
#include <pthread.h>
#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is POSIX's
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <memory>
#include <string_view>
#include <vector>

#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/mutex.h"
#include "gyre/base/unique_fd.h"

namespace gyre::trace {
namespace {

constexpr std::size_t kBufferEvents = 4096;

struct Event {
  const char* category = nullptr;
  const char* name = nullptr;
  std::int64_t start_ns = 0;
  std::int64_t duration_ns = 0;  // -1: an instant
};

// A thread's. Its mutex is contended only when the session ends.
struct Buffer {
  Mutex mutex;
  std::vector<Event> events GUARDED_BY(mutex);
  bool named GUARDED_BY(mutex) = false;  // in this session's file
  const int tid = ::gettid();
  std::array<char, 16> name{};
};

// What is open, and who has something for it. Locked after a buffer's mutex, never before.
struct Writer {
  Mutex mutex;
  UniqueFd file GUARDED_BY(mutex);
  std::uint64_t written GUARDED_BY(mutex) = 0;
  std::uint64_t dropped GUARDED_BY(mutex) = 0;
  Mutex threads_mutex;  // before the buffers' mutexes
  std::vector<std::shared_ptr<Buffer>> threads GUARDED_BY(threads_mutex);
};

Writer& TheWriter() {
  static Writer& writer = *new Writer;  // never destroyed: threads may outlive main
  return writer;
}

// To the end, or the file is given up: a full disk must not stop a VM.
void WriteAll(Writer& writer, std::string_view text) REQUIRES(writer.mutex) {
  while (writer.file && !text.empty()) {
    const ssize_t put = ::write(writer.file.get(), text.data(), text.size());
    if (put >= 0) {
      text.remove_prefix(static_cast<std::size_t>(put));
    } else if (errno != EINTR) {
      log::Warning("the trace ends here: {}", Error::Sys("write", errno).message());
      internal::enabled.store(false);
      writer.file.Reset();
    }
  }
}

void Append(std::string& text, const Event& event, int tid) {
  const auto us = [](std::int64_t ns) { return static_cast<double>(ns) / 1000; };
  if (event.duration_ns < 0) {
    fmt::format_to(std::back_inserter(text),
                   R"({{"ph":"i","s":"t","cat":"{}","name":"{}","ts":{:.3f},"pid":{},"tid":{}}},)"
                   "\n",
                   event.category, event.name, us(event.start_ns), ::getpid(), tid);
  } else {
    fmt::format_to(std::back_inserter(text),
                   R"({{"ph":"X","cat":"{}","name":"{}","ts":{:.3f},"dur":{:.3f},"pid":{},"tid":{}}},)"
                   "\n",
                   event.category, event.name, us(event.start_ns), us(event.duration_ns), ::getpid(), tid);
  }
}

void Flush(Buffer& buffer) REQUIRES(buffer.mutex) {
  if (buffer.events.empty()) {
    return;
  }
  Writer& writer = TheWriter();
  const MutexLock lock(writer.mutex);
  std::string text;
  if (!buffer.named) {
    // The kernel's name of a thread is any bytes that somebody gave it.
    std::ranges::replace_if(
        buffer.name, [](char c) { return c != '\0' && (c < ' ' || c > '~' || c == '"' || c == '\\'); }, '?');
    fmt::format_to(std::back_inserter(text),
                   R"({{"ph":"M","name":"thread_name","pid":{},"tid":{},"args":{{"name":"{}"}}}},)"
                   "\n",
                   ::getpid(), buffer.tid, buffer.name.data());
    buffer.named = true;
  }
  const std::uint64_t room = kMostEvents - writer.written;
  const std::size_t fits = std::min<std::size_t>(buffer.events.size(), room);
  for (std::size_t i = 0; i < fits; ++i) {
    Append(text, buffer.events[i], buffer.tid);
  }
  writer.written += fits;
  writer.dropped += buffer.events.size() - fits;
  buffer.events.clear();
  WriteAll(writer, text);
}

// Registers the thread at its first event, and flushes at its end.
class ThreadBuffer {
 public:
  ThreadBuffer() {
    buffer_->events.reserve(kBufferEvents);
    ::pthread_getname_np(::pthread_self(), buffer_->name.data(), buffer_->name.size());
    Writer& writer = TheWriter();
    const MutexLock lock(writer.threads_mutex);
    writer.threads.push_back(buffer_);
  }
  ThreadBuffer(const ThreadBuffer&) = delete;
  ThreadBuffer& operator=(const ThreadBuffer&) = delete;
  ~ThreadBuffer() {
    {
      const MutexLock lock(buffer_->mutex);
      Flush(*buffer_);
    }
    Writer& writer = TheWriter();
    const MutexLock lock(writer.threads_mutex);
    std::erase(writer.threads, buffer_);
  }
  Buffer& get() { return *buffer_; }

 private:
  const std::shared_ptr<Buffer> buffer_ = std::make_shared<Buffer>();
};

void Put(const Event& event) {
  thread_local ThreadBuffer mine;
  Buffer& buffer = mine.get();
  const MutexLock lock(buffer.mutex);
  if (!Enabled()) {
    return;  // ended meanwhile: nobody would flush it
  }
  buffer.events.push_back(event);
  if (buffer.events.size() == kBufferEvents) {
    Flush(buffer);
  }
}

}  // namespace

std::int64_t NowNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void Complete(const char* category, const char* name, std::int64_t end_ns, std::int64_t duration_ns) {
  if (Enabled()) {
    duration_ns = std::max<std::int64_t>(duration_ns, 0);
    Put({.category = category, .name = name, .start_ns = end_ns - duration_ns, .duration_ns = duration_ns});
  }
}

void Instant(const char* category, const char* name) {
  if (Enabled()) {
    Put({.category = category, .name = name, .start_ns = NowNs(), .duration_ns = -1});
  }
}

Result<Session> Session::Start(const std::string& path) {
  UniqueFd file = TRY(OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  Writer& writer = TheWriter();
  const MutexLock lock(writer.mutex);
  CHECK(!writer.file);
  writer.file = std::move(file);
  writer.written = 0;
  writer.dropped = 0;
  WriteAll(writer, "[\n");
  internal::enabled.store(true);
  return Session();
}

Session::~Session() {
  if (!active_) {
    return;
  }
  internal::enabled.store(false);
  Writer& writer = TheWriter();
  {
    const MutexLock lock(writer.threads_mutex);
    for (const auto& buffer : writer.threads) {
      const MutexLock buffer_lock(buffer->mutex);
      Flush(*buffer);
      buffer->named = false;
    }
  }
  const MutexLock lock(writer.mutex);
  // Each event ends with a comma, and JSON wants none at the end.
  WriteAll(writer, format(R"({{"ph":"M","name":"process_name","pid":{},"args":{{"name":"gyred"}}}})"
                          "\n]\n",
                          ::getpid()));
  if (writer.dropped > 0) {
    log::Warning("the trace is full: {} events were left out", writer.dropped);
  }
  writer.file.Reset();
}

}  // namespace gyre::trace
