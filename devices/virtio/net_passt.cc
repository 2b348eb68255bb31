#include "devices/virtio/net_passt.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

#include "devices/virtio/child_process.h"
#include "devices/virtio/net_stream.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"
#include "gyre/base/numbers.h"

namespace gyre::virtio {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kMostDelay = 60 * kSecond;

class Passt final : public NetBackend {
 public:
  Passt(loop::EventLoop& main, PasstOptions options)
      : main_(main),
        options_(std::move(options)),
        connection_(main, [this] { Ended(); }),
        restart_(main, loop::ClockType::kRealtime, [this] { Restart(); }) {}

  Status Start() {
    std::array<int, 2> pair{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0) {
      return Fail(Error::Sys("socketpair", errno));
    }
    UniqueFd ours(pair[0]);
    const UniqueFd theirs(pair[1]);
    std::vector<std::string> words = {options_.program, "--foreground", "--quiet",
                                      "--one-off",      "--fd",         format("{}", ChildProcess::kSocket)};
    words.insert(words.end(), options_.arguments.begin(), options_.arguments.end());
    child_ = TRY(ChildProcess::Start(words, theirs.get()));
    exit_.emplace(main_, child_->pid_fd(), loop::Watch::kRead, [this](unsigned) { Ended(); });
    started_ns_ = main_.Now(loop::ClockType::kRealtime);
    connection_.Set(std::move(ours));
    return {};
  }

  std::uint64_t offloads() const override { return 0; }
  unsigned pairs() const override { return 1; }
  std::string description() const override { return options_.program; }
  bool up() const override { return connection_.there(); }
  void OnChange(std::function<void()> changed) override { changed_ = std::move(changed); }
  void SetOffloads(std::uint64_t /*offloads*/) override {}
  void SetPairs(unsigned /*pairs*/) override {}
  std::unique_ptr<NetSource> NewSource(unsigned /*pair*/, loop::EventLoop& loop,
                                       std::function<void()> readable) override {
    return NewStreamSource(connection_, loop, std::move(readable));
  }
  std::unique_ptr<NetSink> NewSink(unsigned /*pair*/, loop::EventLoop& loop,
                                   std::function<void()> room) override {
    return NewStreamSink(connection_, loop, std::move(room));
  }

 private:
  // It has ended, or its connection has.
  void Ended() {
    connection_.Set({});
    exit_.reset();
    const std::string how = child_->End();
    child_.reset();
    const std::int64_t now = main_.Now(loop::ClockType::kRealtime);
    delay_ns_ = now - started_ns_ > kMostDelay ? kSecond : std::min(2 * delay_ns_, kMostDelay);
    log::Warning("{}: has ended {}; the guest's link is down, and it is started again in {} s",
                 options_.program, how, delay_ns_ / kSecond);
    restart_.Set(now + delay_ns_);
    Changed();
  }
  void Restart() {
    if (auto started = Start(); !started) {
      delay_ns_ = std::min(2 * delay_ns_, kMostDelay);
      log::Warning("{}; tried again in {} s", started.error().message(), delay_ns_ / kSecond);
      restart_.Set(main_.Now(loop::ClockType::kRealtime) + delay_ns_);
      return;
    }
    Changed();
  }
  void Changed() {
    if (changed_) {
      changed_();
    }
  }

  loop::EventLoop& main_;
  const PasstOptions options_;
  std::function<void()> changed_;
  NetConnection connection_;
  std::unique_ptr<ChildProcess> child_;
  std::optional<loop::Watch> exit_;  // gone before the child
  loop::Timer restart_;
  std::int64_t started_ns_ = 0;
  std::int64_t delay_ns_ = kSecond / 2;
};

bool IsPort(std::string_view text) { return ParseNumber<std::uint16_t>(text).value_or(0) != 0; }

bool IsAddress(std::string_view text) {
  return text.find_first_not_of("0123456789abcdefABCDEF.:%") == std::string_view::npos;
}

}  // namespace

Result<std::vector<std::string>> ToPasstForward(std::string_view text) {
  const auto bad = [text] {
    return Fail(Error::Usage(format("hostfwd={}: is not of the form tcp|udp:[HOST]:PORT-:GUESTPORT", text)));
  };
  const bool tcp = text.starts_with("tcp:");
  const auto dash = text.rfind("-:");
  if ((!tcp && !text.starts_with("udp:")) || dash == std::string_view::npos) {
    return bad();
  }
  const auto guest_port = text.substr(dash + 2);
  const auto host = text.substr(4, dash - 4);
  const auto colon = host.rfind(':');
  if (colon == std::string_view::npos) {
    return bad();
  }
  auto address = host.substr(0, colon);
  const auto host_port = host.substr(colon + 1);
  if (address.starts_with('[') && address.ends_with(']')) {
    address = address.substr(1, address.size() - 2);
  }
  if (!IsPort(host_port) || !IsPort(guest_port) || !IsAddress(address)) {
    return bad();
  }
  return std::vector<std::string>{
      tcp ? "--tcp-ports" : "--udp-ports",
      format("{}{}{}:{}", address, address.empty() ? "" : "/", host_port, guest_port)};
}

Result<std::unique_ptr<NetBackend>> StartPasst(loop::EventLoop& main, PasstOptions options) {
  auto passt = std::make_unique<Passt>(main, std::move(options));
  TRY(passt->Start());
  return passt;
}

}  // namespace gyre::virtio
