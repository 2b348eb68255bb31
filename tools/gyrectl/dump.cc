// dump: the file is ours, so that its owner, mode and place are the caller's and
// not the server's; the server gets its descriptor. It has no name until it is
// whole.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "gyre/base/format.h"
#include "gyre/base/unique_fd.h"
#include "tools/gyrectl/subcommand.h"

namespace gyre::ctl {
namespace {

constexpr double kBetweenLooks = 0.2;  // seconds
constexpr double kAnswerTime = 30;     // seconds for each answer meanwhile
constexpr const char* kFdName = "gyrectl-dump";

std::unexpected<Failure> HostFailure(const std::string& what) {
  return Fail(Exit::kRefused, format("{}: {}", what, std::generic_category().message(errno)));
}

// A file that appears under its name at Publish, or never.
class NewFile {
 public:
  static Outcome<NewFile> Create(const std::string& path, bool replace) {
    struct stat there = {};
    const bool is_there = ::stat(path.c_str(), &there) == 0;
    if (is_there && !S_ISREG(there.st_mode)) {
      return Fail(Exit::kUsage, format("{} is there, and is not a file that could be replaced", path));
    }
    if (is_there && !replace) {
      return Fail(Exit::kUsage, format("{} is there already (--force replaces it)", path));
    }
    NewFile file(path, replace);
    const std::string directory = std::filesystem::path(path).parent_path();
    file.fd_ =
        UniqueFd(::open(directory.empty() ? "." : directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!file.fd_ && (errno == EOPNOTSUPP || errno == EISDIR)) {
      file.fd_ =
          UniqueFd(::open(file.part_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
      file.has_name_ = static_cast<bool>(file.fd_);
    }
    if (!file.fd_) {
      return HostFailure(path);
    }
    return file;
  }
  NewFile(NewFile&& other) noexcept = default;
  NewFile& operator=(NewFile&&) = delete;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() {
    if (fd_ && has_name_) {
      ::unlink(part_.c_str());
    }
  }

  int fd() const { return fd_.get(); }
  std::uint64_t size() const {
    struct stat status = {};
    return ::fstat(fd_.get(), &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
  }

  Outcome<void> Publish() {
    const std::string own = format("/proc/self/fd/{}", fd_.get());
    if (!has_name_) {
      const std::string& name = replace_ ? part_ : path_;
      if (::linkat(AT_FDCWD, own.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
        return HostFailure(name);
      }
      has_name_ = replace_;
    }
    if (has_name_ && ::rename(part_.c_str(), path_.c_str()) != 0) {
      return HostFailure(path_);
    }
    has_name_ = false;
    return {};
  }

 private:
  NewFile(std::string path, bool replace)
      : path_(std::move(path)), part_(format("{}.part-{}", path_, ::getpid())), replace_(replace) {}

  std::string path_;
  std::string part_;
  bool replace_;
  UniqueFd fd_;
  bool has_name_ = false;  // `part_` is it
};

std::uint64_t Count(const Json& status, const char* key) {
  return static_cast<std::uint64_t>(std::max<std::int64_t>(IntegerOf(status, key).value_or(0), 0));
}

// Until the server says that it has done.
Outcome<void> Follow(Call& call) {
  while (true) {
    const Deadline answer = call.deadline.Earlier(Deadline::After(kAnswerTime));
    const Json status = TRY(call.client->Execute("query-dump", Json::object(), answer));
    const std::string state = TextOf(status, "status");
    if (state == "completed") {
      return {};
    }
    if (state != "active") {
      return Fail(Exit::kRefused, format("the dump has failed ({})", Harmless(state)));
    }
    call.output.Progress("dump", Count(status, "completed"), Count(status, "total"));
    if (call.deadline.passed()) {
      return Fail(Exit::kTimeout, "the dump is not done in time");
    }
    TRY(call.client->NextEvent(call.deadline.Earlier(Deadline::After(kBetweenLooks))));
  }
}

}  // namespace

Outcome<void> RunDump(Call& call) {
  const std::string path = call.Value("FILE");
  NewFile file = TRY(NewFile::Create(path, call.Has("force")));
  const Deadline answer = call.deadline.Earlier(Deadline::After(kAnswerTime));
  TRY(call.client->Execute("getfd", {{"fdname", kFdName}}, answer, file.fd()));
  TRY(call.client->Execute("dump-guest-memory",
                           {{"paging", false}, {"protocol", format("fd:{}", kFdName)}, {"detach", true}},
                           answer));
  const auto done = Follow(call);
  call.output.EndProgress();
  TRY(Outcome<void>(done));
  TRY(file.Publish());
  if (call.output.json()) {
    call.output.Print(ToText({{"file", path}, {"size", file.size()}}) + "\n");
  } else {
    call.output.Print(format("{}: {}\n", path, SizeText(file.size())));
  }
  return {};
}

}  // namespace gyre::ctl
