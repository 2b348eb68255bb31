#include "tools/agent/session.h"

#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX

#include <algorithm>
#include <array>
#include <utility>

#include "gyre/base/format.h"

namespace gyre::exec {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kGreetingTime{10'000};  // until the client has said what it wants
constexpr milliseconds kDrainTime{200};        // for a terminal that others than the command keep open
constexpr std::size_t kMostInTerminal = std::size_t{128} << 10;  // more than the kernel keeps
constexpr milliseconds kPartingTime{5'000};                      // until the client, who has all, is gone

pollfd Entry(int fd, short events) { return {.fd = fd, .events = events, .revents = 0}; }

}  // namespace

Session::Session(UniqueFd socket)
    : signals_{SIGCHLD, SIGTERM, SIGINT}, link_(std::move(socket), Side::kClient) {
  SetDeadline(kGreetingTime);
  link_.Put(FrameType::kHello, HelloPayload(kVersion));
}

void Session::Run() {
  ::signal(SIGPIPE, SIG_IGN);  // a command may end, or close its input, when it likes
  while (stage_ != Stage::kOver) {
    Poll();
    Advance();
  }
  EndCommand();
}

void Session::Poll() {
  // An output that the link has no room for is not looked at, or its end would be told again and again.
  const auto readable = [this](const std::optional<OutputStream>& stream) {
    return Entry(stream && link_.HasRoom() ? stream->fd() : -1, POLLIN);
  };
  std::array<pollfd, 5> fds = {Entry(link_.fd(), link_.events()), Entry(signals_.fd(), POLLIN),
                               input_ ? Entry(input_->fd(), input_->events()) : Entry(-1, 0),
                               readable(output_), readable(errors_)};
  if (::poll(fds.data(), fds.size(), WaitMs()) < 0) {
    return;
  }
  if (fds[1].revents != 0) {
    ServeSignals();
  }
  if (fds[2].revents != 0 && input_) {
    input_->Serve(link_);
  }
  if (fds[3].revents != 0 && output_) {
    output_->Serve(link_);
  }
  if (fds[4].revents != 0 && errors_) {
    errors_->Serve(link_);
  }
  if (fds[0].revents != 0 && stage_ != Stage::kOver) {
    ServeLink(fds[0].revents);
  }
}

int Session::WaitMs() const {
  if (!deadline_ || (stage_ == Stage::kDraining && !link_.HasRoom())) {
    return -1;
  }
  const auto left = std::chrono::ceil<milliseconds>(*deadline_ - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left, 0, 1'000'000));
}

// What follows from what has been served, and from the time.
void Session::Advance() {
  if (stage_ == Stage::kRunning && command_) {
    if (const auto end = command_->Reap()) {
      CommandEnded(*end);
    }
  }
  const bool late = deadline_ && Clock::now() >= *deadline_;
  if (stage_ == Stage::kDraining && (OutputIsOver() || (late && link_.HasRoom() && !output_->HasMore()))) {
    link_.Put(FrameType::kExit, ToPayload(end_));
    Part();
  } else if (stage_ == Stage::kGreeting && late) {
    Refuse({.text = "nobody has said what to do"});
  } else if (stage_ == Stage::kParting && late) {
    stage_ = Stage::kOver;
  }
  if (stage_ != Stage::kOver && !link_.Send()) {
    stage_ = Stage::kOver;
  }
  if (stage_ == Stage::kParting && link_.pending() == 0 && !std::exchange(finished_sending_, true)) {
    link_.EndSending();
    SetDeadline(kPartingTime);
  }
}

void Session::ServeSignals() {
  while (const int signal = signals_.Next()) {
    if (signal != SIGCHLD && stage_ != Stage::kParting) {
      Refuse({.text = "the agent has been ended"});
    }
  }
}

void Session::ServeLink(short events) {
  if ((events & (POLLIN | POLLHUP | POLLERR)) == 0) {
    return;
  }
  const bool there = stage_ == Stage::kParting ? link_.Discard() : link_.Receive();
  while (stage_ != Stage::kParting) {
    const auto frame = link_.Next();
    if (frame && !*frame) {
      break;
    }
    const auto taken = frame ? Take(**frame) : std::unexpected(frame.error());
    if (!taken || !*taken) {
      Refuse({.text = taken ? "a frame that breaks the rules" : taken.error().message()});
    }
  }
  if (!there) {
    stage_ = Stage::kOver;  // the command, if there is one, ends with this object
  }
}

Result<bool> Session::Take(const Frame& frame) {
  if (frame.type == FrameType::kHello) {
    const std::uint32_t version = TRY(ParseHello(frame.payload));
    if (version > kVersion) {
      Refuse({.text = format("version {} of the protocol is not known here, but {}", version, kVersion)});
    }
    return true;
  }
  if (frame.type == FrameType::kStart) {
    if (stage_ != Stage::kGreeting) {
      return false;
    }
    Start(frame.payload);
    return true;
  }
  return stage_ == Stage::kGreeting ? Result<bool>(false) : TakeForCommand(frame);
}

Result<bool> Session::TakeForCommand(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kStdin:
      return input_->Take(frame.payload, link_);
    case FrameType::kStdinEnd:
      return input_->End(command_->on_terminal() ? std::optional(command_->EndCharacter()) : std::nullopt);
    case FrameType::kResize:
      command_->Resize(TRY(ParseResize(frame.payload)));
      return true;
    case FrameType::kSignal:
      command_->Signal(static_cast<int>(TRY(ParseSignal(frame.payload))));
      return true;
    default:
      return false;
  }
}

void Session::Start(std::string_view payload) {
  const auto request = ParseStart(payload);
  if (!request) {
    Refuse({.text = request.error().message()});
    return;
  }
  auto command = Command::Start(*request);
  if (!command) {
    Refuse(command.error());
    return;
  }
  command_.emplace(*std::move(command));
  Command::Streams& streams = command_->streams();
  input_.emplace(std::move(streams.input), link_);
  output_.emplace(std::move(streams.output), FrameType::kStdout);
  errors_.emplace(std::move(streams.errors), FrameType::kStderr);
  stage_ = Stage::kRunning;
  deadline_.reset();
}

void Session::CommandEnded(const ExitReport& report) {
  end_ = report;
  stage_ = Stage::kDraining;
  if (command_->on_terminal()) {  // which passes on what was written, and then its end, a little later
    output_->EndWithin(kMostInTerminal);
    SetDeadline(kDrainTime);
  } else {
    output_->EndWithWhatIsThere();
    errors_->EndWithWhatIsThere();
  }
}

bool Session::OutputIsOver() const { return output_->fd() < 0 && errors_->fd() < 0; }

void Session::Refuse(const ErrorReport& report) {
  link_.Put(FrameType::kError, ToPayload(report));
  Part();
}

void Session::Part() {
  stage_ = Stage::kParting;
  deadline_.reset();
  link_.Send();
  EndCommand();
}

void Session::EndCommand() {
  // What a command on pipes has to say of its end shall not be what ends it; a terminal's end tells more
  // processes than we know.
  if (command_ && command_->on_terminal()) {
    input_.reset();
    output_.reset();
  }
  command_.reset();
  input_.reset();
  output_.reset();
  errors_.reset();
}

}  // namespace gyre::exec
