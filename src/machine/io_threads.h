// The machine's I/O threads: loops of their own that virtio queues can be assigned to.
// Main loop's thread, big lock held.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/result.h"
#include "gyre/loop/io_thread.h"

namespace gyre::machine {

struct IoThreadConfig {
  std::string id;
  std::vector<unsigned> cpus;  // where it may run; empty: everywhere
  loop::PollLimits poll;
};

// "ID[,cpus=N-M][,poll-max-ns=N][,poll-grow=N][,poll-shrink=N]". Errors do not name the option.
Result<IoThreadConfig> ParseIoThread(std::string_view text);

class IoThreads {
 public:
  struct Entry {
    IoThreadConfig config;
    std::unique_ptr<loop::IoThread> thread;
  };
  // An error is a thread's that the host does not give, or gives no such CPU.
  static Result<IoThreads> Create(loop::MainLoop& loop, const std::vector<IoThreadConfig>& configs);

  const std::vector<Entry>& all() const { return entries_; }
  // Those that "ID:ID:..." names, in that order; none for an empty text.
  Result<std::vector<loop::IoThread*>> Named(std::string_view ids) const;

 private:
  std::vector<Entry> entries_;
};

}  // namespace gyre::machine
