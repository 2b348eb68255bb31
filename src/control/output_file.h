// A file that a client has asked for: written beside its name and put in its place
// when it is whole, so that nobody sees half of one. One thread at a time.
#pragma once

#include <string>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"

namespace gyre::control {

class OutputFile {
 public:
  // A new one is readable by gyred's user alone; one that is replaced keeps its owner and permissions. Where
  // that cannot be, and where the directory takes no file, it is written in its place. What exists and is no
  // regular file (a FIFO, a device) is opened as it is.
  static Result<OutputFile> Create(std::string path);
  // Around a descriptor that a client has sent.
  explicit OutputFile(UniqueFd fd) : fd_(std::move(fd)) {}
  OutputFile(OutputFile&& other) noexcept
      : fd_(std::move(other.fd_)),
        path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})) {}
  OutputFile& operator=(OutputFile&&) = delete;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  // Without Commit: as if nothing had been.
  ~OutputFile();

  int fd() const { return fd_.get(); }
  Status Commit();

 private:
  OutputFile(UniqueFd fd, std::string path, std::string temporary)
      : fd_(std::move(fd)), path_(std::move(path)), temporary_(std::move(temporary)) {}
  UniqueFd fd_;
  std::string path_;
  std::string temporary_;  // empty: none
};

}  // namespace gyre::control
