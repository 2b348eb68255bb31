// gyred: init, main loop, cleanup.
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "gyre/base/big_lock.h"
#include "src/daemon/daemon.h"

namespace gyre::daemon {
namespace {

int Report(const Error& error) {
  std::fprintf(stderr, "gyred: %s\n", error.message().c_str());
  return error.kind() == ErrorKind::kUsage ? machine::kExitUsage : machine::kExitHostError;
}

int Run(int argc, const char* const* argv) {
  machine::Timeline timeline;
  timeline.Mark("process start");
  auto parsed = ParseOptions(argc, argv);
  if (!parsed) {
    return Report(parsed.error());
  }
  if (const auto* text = std::get_if<Text>(&*parsed)) {
    std::fputs(text->text.c_str(), stdout);
    return machine::kExitClean;
  }
  timeline.Mark("options read");
  auto environment = ServiceEnvironment::Take();
  if (!environment) {
    return Report(environment.error());
  }
  BigLock big_lock;
  const BigLockGuard guard(big_lock);
  const auto daemon = Daemon::Init(std::get<Options>(*std::move(parsed)), *std::move(environment), big_lock,
                                   std::move(timeline));
  if (!daemon) {
    return Report(daemon.error());
  }
  const int status = (*daemon)->RunMainLoop();
  (*daemon)->Cleanup();
  if ((*daemon)->leaves_vm_to_kernel()) {
    std::fflush(nullptr);
    ::_exit(status);
  }
  return status;
}

}  // namespace
}  // namespace gyre::daemon

int main(int argc, char** argv) {
  try {
    return gyre::daemon::Run(argc, argv);
  } catch (const std::exception& error) {  // A library's: ours are values.
    std::fprintf(stderr, "gyred: %s\n", error.what());
    return gyre::machine::kExitHostError;
  }
}
