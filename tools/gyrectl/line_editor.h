// Lines from a terminal, with history and completion (libedit), or from a pipe,
// without. One thread; one at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "tools/gyrectl/line.h"

namespace gyre::ctl {

class LineEditor {
 public:
  using Completer = std::function<Completion(std::string_view line)>;
  // `history`: the file to keep it in; empty: it is not kept.
  LineEditor(std::string prompt, std::string history, Completer completer);
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;
  ~LineEditor();

  bool interactive() const { return interactive_; }
  // Without its end; nothing at the end of the input. Ctrl-C makes it empty.
  std::optional<std::string> Read();

 private:
  struct Impl;
  bool interactive_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gyre::ctl
