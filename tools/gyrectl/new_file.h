// A file that appears under its name when it is whole, or never. Others may write
// to its directory: nothing of theirs is opened, and without `replace` nothing is
// replaced. One thread.
#pragma once

#include <cstdint>
#include <string>

#include "gyre/base/unique_fd.h"
#include "tools/gyrectl/outcome.h"

namespace gyre::ctl {

class NewFile {
 public:
  // kNamed: under a name of its own until then, as where a file system has no files without one.
  enum class Meanwhile : std::uint8_t { kNameless, kNamed };

  // kUsage: what is there may not be replaced. Mode 0600.
  static Outcome<NewFile> Create(const std::string& path, bool replace,
                                 Meanwhile meanwhile = Meanwhile::kNameless);
  NewFile(NewFile&& other) noexcept = default;
  NewFile& operator=(NewFile&&) = delete;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile();

  int fd() const { return fd_.get(); }
  std::uint64_t size() const;
  Outcome<void> Publish();  // once

 private:
  NewFile(std::string path, bool replace);
  bool Rename() const;

  std::string path_;
  std::string part_;
  bool replace_;
  UniqueFd fd_;
  bool has_name_ = false;  // `part_` is it
};

}  // namespace gyre::ctl
