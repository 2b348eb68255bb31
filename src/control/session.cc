#include "src/control/session.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "gyre/base/log.h"
#include "gyre/base/non_blocking.h"
#include "gyre/base/open_files.h"

namespace gyre::control {
namespace {

constexpr std::size_t kReadSize = 4096;  // at once, so that clients take turns
constexpr std::size_t kMostFds = 16;     // in one message
constexpr std::int64_t kNsPerMs = 1'000'000;
constexpr std::int64_t kTurnNs = 100'000;  // of a client's requests, before others have their turn

}  // namespace

Session::Session(SessionHost& host, loop::MainLoop& main_loop, UniqueFd socket, std::string peer)
    : host_(host),
      main_loop_(main_loop),
      peer_(std::move(peer)),
      loop_(&main_loop),
      socket_(std::move(socket)) {}

Session::~Session() = default;

template <typename Function>
void Session::OnIoSide(Function function) {
  if (!on_monitor_thread()) {
    return function(*this);
  }
  loop::BottomHalf::ScheduleOnce(
      *loop_, [self = shared_from_this(), function = std::move(function)]() mutable { function(*self); });
}

// --- main side ---

void Session::Start() {
  Attach();
  Send(WriteGreeting());
}

void Session::Deliver(std::string line) {
  OnIoSide([line = std::move(line)](Session& self) { self.Answer(line); });
}

void Session::SendEvent(const std::shared_ptr<const std::string>& line) {
  if (client_.negotiated) {
    OnIoSide([line](Session& self) { self.SendUnasked(*line); });
  }
}

void Session::StopReading() {
  OnIoSide([](Session& self) {
    self.reading_ = false;
    self.stopped_ = true;
    self.UpdateWatch();
  });
}

// --- I/O side ---

void Session::Attach() {
  if (closed_) {
    return;
  }
  events_ = loop::Watch::kRead;
  watch_.emplace(*loop_, socket_.get(), events_, [self = this](unsigned events) { self->OnReady(events); });
  UpdateWatch();
}

void Session::OnReady(unsigned events) {
  const auto self = shared_from_this();
  const loop::EventLoop* const loop = loop_;
  if ((events & loop::Watch::kWrite) != 0) {
    Flush();
    Process();
    if (loop_ != loop) {
      return;  // the rest is another thread's now
    }
  }
  if ((events & loop::Watch::kRead) != 0) {
    Read();
  }
  if (events == loop::Watch::kHangUp) {
    Close();
  }
}

void Session::Read() {
  if (closed_ || !reading_ || !input_.empty() || !MayProcess()) {
    return;
  }
  std::array<char, kReadSize> bytes;  // NOLINT: filled by the call
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostFds * sizeof(int))> control;  // NOLINT: the same
  iovec part{.iov_base = bytes.data(), .iov_len = bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got > 0) {
    TakeFds(message);
    input_.append(bytes.data(), static_cast<std::size_t>(got));
    return Process();
  }
  if (got == 0) {  // it may still want its replies
    reading_ = false;
    UpdateWatch();
    return EndIfDone();
  }
  if (!IsTransient(errno)) {
    Close();
  }
}

// Those of an earlier message that nobody has taken are closed. Those that the process has no room for are
// lost: a command that wants one says that there is none.
void Session::TakeFds(const msghdr& message) {
  bool lost = (static_cast<unsigned>(message.msg_flags) & static_cast<unsigned>(MSG_CTRUNC)) != 0;
  for (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(
           const_cast<msghdr*>(&message),
           const_cast<cmsghdr*>(header))) {  // NOLINT(cppcoreguidelines-pro-type-const-cast): glibc's macro
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    sent_fds_.clear();
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int raw = -1;
      std::memcpy(&raw, CMSG_DATA(header) + (i * sizeof(int)), sizeof(int));
      UniqueFd fd(raw);
      if (IsOfTheLastFiles(raw)) {
        lost = true;
      } else {
        sent_fds_.push_back(std::move(fd));
      }
    }
  }
  if (lost) {
    host_.LostFds(*this);
  }
}

bool Session::MayProcess() const {
  return !closed_ && !stopped_ && outstanding_.size() < (oob_ ? kQueueLimit : 1) && queued_ < kPauseQueued &&
         unread() < kPauseUnread;
}

// The client has enabled `oob`, its reply is on its way, and nothing of it is being executed. What it has
// sent behind that is the other thread's.
bool Session::MustMove() const { return !closed_ && !oob_ && client_.oob && outstanding_.empty(); }

void Session::Process() {
  if (processing_ || closed_) {
    return;
  }
  processing_ = true;
  const bool ended = ProcessForATurn();
  processing_ = false;
  if (MustMove()) {
    return MoveToMonitorThread();
  }
  if (!ended) {
    TakeAnotherTurn();
  }
  UpdateWatch();
  EndIfDone();
}

// So that clients take turns however much one of them sends, and however long its commands take: true if
// there is nothing left that could be done now.
bool Session::ProcessForATurn() {
  const std::int64_t end = loop_->Now(loop::ClockType::kRealtime) + kTurnNs;
  bool ended = false;
  // Output that is flushed may make room for what waits behind it: nobody else would come back to that.
  do {
    std::string_view rest = input_;
    while (!ended && !rest.empty() && MayProcess()) {
      if (auto parsed = parser_.Next(rest)) {
        Handle(*std::move(parsed), parser_.last_size());
        ended = MustMove() || loop_->Now(loop::ClockType::kRealtime) >= end;
      }
    }
    input_.erase(0, input_.size() - rest.size());
    CountHeld();
    Flush();
  } while (!ended && !input_.empty() && MayProcess());
  return input_.empty() || !MayProcess();
}

void Session::TakeAnotherTurn() {
  if (std::exchange(another_turn_, true)) {
    return;
  }
  loop::BottomHalf::ScheduleOnce(*loop_, [self = shared_from_this(), loop = loop_] {
    if (self->loop_ == loop) {  // else the rest is another thread's now
      self->another_turn_ = false;
      self->Process();
    }
  });
}

void Session::CountHeld() {
  const std::size_t held = closed_ ? 0 : parser_.held() + queued_;
  const std::size_t all = host_.held().now.fetch_add(held - held_, std::memory_order_relaxed) + held - held_;
  held_ = held;
  if (held <= kShareOfHeld) {
    return;
  }
  host_.held().much.store(true, std::memory_order_relaxed);
  if (all > kMostHeld) {
    log::Warning(
        "control client ({}) sends more than can be executed yet, as others do: {} bytes are held for all; "
        "disconnected",
        peer_, all);
    Close();
  }
}

void Session::Handle(JsonParser::Parsed parsed, std::size_t size) {
  if (!parsed) {
    return Send(WriteReply(Refuse(std::move(parsed).error()), std::nullopt));
  }
  std::optional<Json> id;
  auto request = ReadRequest(*std::move(parsed), oob_, id);
  if (!request) {
    return Send(WriteReply(std::unexpected(std::move(request).error()), id));
  }
  Dispatch(*std::move(request), size);
}

void Session::Dispatch(Request request, std::size_t size) {
  if (request.oob) {
    const auto id = std::move(request.id);
    return Send(WriteReply(host_.ExecuteOob(*this, std::move(request)), id));
  }
  if (!sent_fds_.empty() && host_.TakesFd(request.name)) {
    request.fd = std::move(sent_fds_.front());
    sent_fds_.pop_front();
  }
  outstanding_.push_back(size);
  queued_ += size;
  if (!on_monitor_thread()) {
    return host_.Execute(shared_from_this(), std::move(request));
  }
  loop::BottomHalf::ScheduleOnce(main_loop_,
                                 [self = shared_from_this(), request = std::move(request)]() mutable {
                                   if (!self->ended_) {
                                     self->host_.Execute(self, std::move(request));
                                   }
                                 });
}

void Session::Answer(std::string_view line) {
  queued_ -= outstanding_.front();  // the first: they are executed in their order
  outstanding_.pop_front();
  Send(line);
  Process();  // what had to wait
}

void Session::Send(std::string_view line) {
  if (closed_) {
    return;
  }
  out_ += line;
  if (!processing_) {
    Flush();
    UpdateWatch();
  }
}

// What a client has asked for is bounded by what it may ask at a time; events come of themselves.
void Session::SendUnasked(std::string_view line) {
  if (unread() != 0 && unasked_ + line.size() > kMostUnread) {
    log::Warning("control client ({}) does not read: {} bytes wait for it; disconnected", peer_, unread());
    return Close();
  }
  unasked_ += line.size();
  Send(line);
}

void Session::Flush() {
  while (!closed_ && unread() != 0) {
    const auto rest = std::string_view(out_).substr(sent_);
    const ssize_t put = ::send(socket_.get(), rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0) {
      if (errno == EINTR) {
        continue;
      }
      if (errno != EAGAIN) {
        Close();
      }
      return;
    }
    sent_ += static_cast<std::size_t>(put);
    if (unread() == 0) {
      out_.clear();
      sent_ = unasked_ = 0;
      if (out_.capacity() > kPauseUnread) {
        out_.shrink_to_fit();
      }
    } else if (sent_ > kPauseUnread) {
      out_.erase(0, std::exchange(sent_, 0));
    }
  }
}

void Session::UpdateWatch() {
  if (closed_ || !watch_) {
    return;
  }
  unsigned events = reading_ && input_.empty() && MayProcess() ? loop::Watch::kRead : loop::Watch::kHangUp;
  if (unread() != 0) {
    events |= loop::Watch::kWrite;
  }
  if (events != events_) {
    events_ = events;
    watch_->SetEvents(events);
  }
}

// A client that has said all that it wanted gets its replies, and then its end.
void Session::EndIfDone() {
  if (!reading_ && outstanding_.empty() && unread() == 0 && (stopped_ || input_.empty())) {
    Close();
  }
}

void Session::Close() {
  if (std::exchange(closed_, true)) {
    return;
  }
  watch_.reset();
  ::shutdown(socket_.get(), SHUT_RDWR);  // at once: the ring holds the file for a while
  socket_.Reset();
  sent_fds_.clear();
  out_.clear();
  sent_ = 0;
  parser_.Reset();
  CountHeld();
  if (!on_monitor_thread()) {
    ended_ = true;
    return host_.Ended(*this);
  }
  loop::BottomHalf::ScheduleOnce(main_loop_, [self = shared_from_this()] {
    if (!std::exchange(self->ended_, true)) {
      self->host_.Ended(*self);
    }
  });
}

void Session::MoveToMonitorThread() {
  oob_ = true;
  loop::IoThread* const thread = host_.monitor_thread();
  if (thread == nullptr) {
    return Process();
  }
  watch_.reset();
  another_turn_ = false;
  loop_ = &thread->loop();
  thread->Run([self = shared_from_this()] {
    self->Attach();
    self->Process();
  });
}

void Session::FlushAndClose(std::int64_t deadline_ns) {
  const auto self = shared_from_this();
  while (true) {
    Flush();
    const std::int64_t left = deadline_ns - main_loop_.Now(loop::ClockType::kRealtime);
    if (closed_ || unread() == 0 || left <= 0) {
      break;
    }
    pollfd entry{.fd = socket_.get(), .events = POLLOUT, .revents = 0};
    (void)::poll(&entry, 1, static_cast<int>((left / kNsPerMs) + 1));
  }
  Close();
}

}  // namespace gyre::control
