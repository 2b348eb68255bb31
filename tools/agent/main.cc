// gyre-agent: executes what gyrectl exec asks for, in a guest (gyre-agent(8)).
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX

#include <cstdio>
#include <exception>
#include <string_view>
#include <vector>

#include "gyre/base/format.h"
#include "gyre/base/numbers.h"
#include "tools/agent/server.h"
#include "tools/exec/standard_streams.h"

namespace gyre::exec {
namespace {

constexpr const char* kHelp =
    "gyre-agent [--listen ADDRESS] [--connections N]\n"
    "Executes the commands of gyrectl exec in this guest.\n"
    "  --listen ADDRESS   vsock[:PORT] (vsock:1022), or unix:PATH\n"
    "  --connections N    commands at a time, at most (64)\n"
    "  --help, --version  print this, or that, and exit\n";

Result<unsigned> ParseConnections(std::string_view text) {
  const auto number = ParseNumber<unsigned>(text);
  if (!number || *number == 0 || *number > 4096) {
    return Fail(Error::Usage(format("--connections: '{}' is no number from 1 to 4096", text)));
  }
  return *number;
}

Status ParseOption(std::string_view name, std::string_view value, ServerOptions& options) {
  if (name == "--listen") {
    options.listen = TRY(ParseListenAddress(value));
    return {};
  }
  options.connections = TRY(ParseConnections(value));
  return {};
}

Result<ServerOptions> ParseOptions(const std::vector<std::string_view>& words) {
  ServerOptions options;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    if (words[i] != "--listen" && words[i] != "--connections") {
      return Fail(Error::Usage(format("'{}' is no option (gyre-agent --help)", words[i])));
    }
    if (i + 1 == words.size()) {
      return Fail(Error::Usage(format("{} has no value", words[i])));
    }
    TRY(ParseOption(words[i], words[i + 1], options));
  }
  return options;
}

int Main(const std::vector<std::string_view>& words) {
  FillStandardStreams();
  ::signal(SIGCHLD, SIG_DFL);  // whoever ignores that has no children's ends
  if (words.size() == 1 && (words[0] == "--help" || words[0] == "--version")) {
    std::fputs(words[0] == "--help" ? kHelp : "gyre-agent " GYRE_VERSION "\n", stdout);
    return 0;
  }
  const auto options = ParseOptions(words);
  const Status served = options ? Serve(*options) : std::unexpected(options.error());
  if (served) {
    return 0;
  }
  std::fprintf(stderr, "gyre-agent: %s\n", served.error().message().c_str());
  return served.error().kind() == ErrorKind::kUsage ? 2 : 1;
}

}  // namespace
}  // namespace gyre::exec

int main(int argc, char** argv) {
  try {
    return gyre::exec::Main({argv + (argc > 0 ? 1 : 0), argv + argc});
  } catch (const std::exception& error) {  // the library's: ours are values
    std::fprintf(stderr, "gyre-agent: %s\n", error.what());
    return 1;
  }
}
