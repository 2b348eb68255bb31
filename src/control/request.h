// The envelope of requests and replies on a QMP wire. Pure.
#pragma once

#include <optional>
#include <string>

#include "gyre/base/unique_fd.h"
#include "src/control/command.h"
#include "src/control/json.h"

namespace gyre::control {

struct Request {
  std::string name;
  bool oob = false;  // asked for by exec-oob
  Json arguments = Json::object();
  std::optional<Json> id;  // echoed as it is
  UniqueFd fd;
};

// Takes what a client has sent apart; the id is filled in as far as it could be read, so
// that an error reply can carry it.
std::expected<Request, CommandError> ReadRequest(Json message, bool oob_enabled, std::optional<Json>& id);

// One line, CRLF included.
std::string WriteReply(const Outcome& outcome, const std::optional<Json>& id);
// `wall_ns`: less than 0 if the clock has failed, which is told as -1 and -1.
std::string WriteEvent(std::string_view name, const Json& data, std::int64_t wall_ns);
std::string WriteGreeting();

// The `qemu` member of the version that greeting and query-version tell: the release whose wire this is.
Json VersionInfo();

}  // namespace gyre::control
