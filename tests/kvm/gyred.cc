#include "tests/kvm/gyred.h"

#include <fcntl.h>
#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): POSIX
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include "gyre/base/unique_fd.h"

namespace gyre::test {
namespace {

std::string Environment(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

void GyredTest::SetUp() {
  if (const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC)); !kvm) {
    GTEST_SKIP() << "/dev/kvm: " << std::generic_category().message(errno);
  }
  ASSERT_NE(Environment("GYRED"), "") << "set GYRED to the program and GUESTS to the guests' directory";
  ASSERT_NE(Environment("GUESTS"), "");
  std::string name = std::filesystem::temp_directory_path() / "gyre-kvm-XXXXXX";
  ASSERT_NE(::mkdtemp(name.data()), nullptr);
  directory_ = name;
}

void GyredTest::TearDown() {
  if (!directory_.empty()) {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }
}

std::string GyredTest::Guest(std::string_view name) {
  return Environment("GUESTS") + "/" + std::string(name);
}

Arguments GyredTest::Command(std::string_view guest, const Arguments& more) {
  Arguments arguments = {Environment("GYRED"), "--kernel", Guest(guest)};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

ProcessResult GyredTest::RunGuest(std::string_view guest, const Arguments& more, std::string_view input) {
  return RunProcess(Command(guest, more), input);
}

Process GyredTest::StartGuest(std::string_view guest, const Arguments& more) {
  auto process = Process::Start(Command(guest, more));
  if (!process) {
    throw std::runtime_error(process.error().message());
  }
  return *std::move(process);
}

std::string GyredTest::WriteTempFile(std::string_view name, std::string_view content) const {
  const std::string path = TempPath(name);
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  return path;
}

std::vector<std::string> Lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const auto end = text.find('\n');
    lines.emplace_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

std::vector<std::string> LinesAfter(std::string_view text, std::string_view start) {
  std::vector<std::string> rests;
  for (const auto& line : Lines(text)) {
    if (line.starts_with(start)) {
      rests.push_back(line.substr(start.size()));
    }
  }
  return rests;
}

}  // namespace gyre::test
