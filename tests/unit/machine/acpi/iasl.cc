#include "tests/unit/machine/acpi/iasl.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <sstream>

namespace gyre::machine::test {
namespace {

// A directory that goes with its owner.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string path = ::testing::TempDir() + "gyre-acpi-XXXXXX";
    EXPECT_NE(::mkdtemp(path.data()), nullptr);
    path_ = path;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The tests' paths hold nothing that a shell would read otherwise.
bool Run(const std::string& command) {
  return std::system(command.c_str()) == 0;  // NOLINT(bugprone-command-processor): a test's tool
}

std::string Normalised(const std::string& text) {
  std::string bare = std::regex_replace(text, std::regex(R"(\s*/\*[^*]*\*+([^/*][^*]*\*+)*/)"), "");
  bare = std::regex_replace(bare, std::regex("//[^\n]*"), "");
  bare = bare.substr(0, bare.find("Raw Table Data"));  // the same once more
  std::istringstream lines(bare);
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string joined;
    for (std::string word; words >> word;) {
      joined += (joined.empty() ? "" : " ") + word;
    }
    if (!joined.empty()) {
      out += joined + "\n";
    }
  }
  return out;
}

}  // namespace

bool HaveIasl() {
  static const bool have = Run("iasl -v >/dev/null 2>&1");
  return have;
}

std::optional<std::string> Disassemble(std::span<const std::byte> table) {
  const TemporaryDirectory directory;
  std::ofstream(directory.File("table.aml"), std::ios::binary)
      .write(reinterpret_cast<const char*>(table.data()), static_cast<std::streamsize>(table.size()));
  const bool ok = Run("iasl -d -p " + directory.File("table") + " " + directory.File("table.aml") + " >" +
                      directory.File("log") + " 2>&1");
  const std::string log = ReadText(directory.File("log"));
  if (!ok || log.find("rror") != std::string::npos || log.find("arning") != std::string::npos) {
    ADD_FAILURE() << log;
    return std::nullopt;
  }
  return Normalised(ReadText(directory.File("table.dsl")));
}

// -on: keep names as the source has them.
std::optional<std::vector<std::byte>> Compile(const std::string& asl_path) {
  const TemporaryDirectory directory;
  if (!Run("iasl -on -p " + directory.File("table") + " " + asl_path + " >" + directory.File("log") +
           " 2>&1")) {
    ADD_FAILURE() << ReadText(directory.File("log"));
    return std::nullopt;
  }
  const std::string aml = ReadText(directory.File("table.aml"));
  const auto bytes = std::as_bytes(std::span(aml));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

std::string GoldenPath(const std::string& name) {
  const char* directory = std::getenv("GYRE_ACPI_GOLDEN");  // set by meson
  return std::string(directory == nullptr ? "tests/unit/machine/acpi/golden" : directory) + "/" + name;
}

std::string Golden(const std::string& name) { return Normalised(ReadText(GoldenPath(name))); }

}  // namespace gyre::machine::test
