#include "tools/gyrectl/line_editor.h"

#include <histedit.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <iostream>

namespace gyre::ctl {
namespace {

constexpr int kHistoryLines = 1000;
constexpr std::size_t kLongestLine = 1U << 20;

}  // namespace

struct LineEditor::Impl {
  std::string prompt;
  std::string history_file;
  Completer completer;
  EditLine* editor = nullptr;
  History* history = nullptr;
  HistEvent event{};
  bool dropped = false;  // the line, by Ctrl-C

  static char* Prompt(EditLine* editor) {
    Impl* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return self->prompt.data();
  }

  static unsigned char OnInterrupt(EditLine* editor, int /*key*/) {
    Impl* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    self->dropped = true;
    std::fputs("^C", stdout);
    return CC_NEWLINE;
  }

  // With each line: whatever ends us, the lines before are there the next time.
  void Save() {
    if (!history_file.empty()) {
      ::history(history, &event, H_SAVE, history_file.c_str());
    }
  }

  static unsigned char OnTab(EditLine* editor, int /*key*/) {
    Impl* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    const LineInfo* const info = el_line(editor);
    const Completion done =
        self->completer({info->buffer, static_cast<std::size_t>(info->cursor - info->buffer)});
    if (!done.candidates.empty()) {
      std::fputc('\n', stdout);
      for (const auto& candidate : done.candidates) {
        std::fprintf(stdout, "%s  ", candidate.c_str());
      }
      std::fputc('\n', stdout);
      return CC_REDISPLAY;
    }
    if (done.insert.empty() || el_insertstr(editor, done.insert.c_str()) != 0) {
      return CC_REFRESH_BEEP;
    }
    return CC_REFRESH;
  }
};

LineEditor::LineEditor(std::string prompt, std::string history, Completer completer)
    : interactive_(::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0),
      impl_(std::make_unique<Impl>()) {
  if (!interactive_) {
    return;
  }
  std::setlocale(LC_CTYPE, "");  // NOLINT(concurrency-mt-unsafe): one thread
  impl_->prompt = std::move(prompt);
  impl_->history_file = std::move(history);
  impl_->completer = std::move(completer);
  impl_->history = history_init();
  ::history(impl_->history, &impl_->event, H_SETSIZE, kHistoryLines);
  ::history(impl_->history, &impl_->event, H_SETUNIQUE, 1);
  if (!impl_->history_file.empty()) {
    ::history(impl_->history, &impl_->event, H_LOAD, impl_->history_file.c_str());
  }
  impl_->editor = el_init("gyrectl", stdin, stdout, stderr);
  el_set(impl_->editor, EL_CLIENTDATA, impl_.get());
  el_set(impl_->editor, EL_PROMPT, Impl::Prompt);
  el_set(impl_->editor, EL_EDITOR, "emacs");
  el_set(impl_->editor, EL_SIGNAL, 1);
  el_set(impl_->editor, EL_HIST, ::history, impl_->history);
  el_set(impl_->editor, EL_ADDFN, "gyre-complete", "complete the word", Impl::OnTab);
  el_set(impl_->editor, EL_BIND, "^I", "gyre-complete", nullptr);
  // While a line is edited Ctrl-C is a key, not a signal.
  el_set(impl_->editor, EL_SETTY, "-d", "-isig", nullptr);
  el_set(impl_->editor, EL_ADDFN, "gyre-drop", "drop the line", Impl::OnInterrupt);
  el_set(impl_->editor, EL_BIND, "^C", "gyre-drop", nullptr);
}

LineEditor::~LineEditor() {
  if (impl_->editor != nullptr) {
    el_end(impl_->editor);
  }
  if (impl_->history != nullptr) {
    history_end(impl_->history);
  }
}

std::optional<std::string> LineEditor::Read() {
  if (!interactive_) {
    std::string line;
    return std::getline(std::cin, line) && line.size() <= kLongestLine ? std::optional(line) : std::nullopt;
  }
  int length = 0;
  impl_->dropped = false;
  const char* const text = el_gets(impl_->editor, &length);
  if (text == nullptr || length <= 0) {
    std::fputc('\n', stdout);
    return std::nullopt;
  }
  if (impl_->dropped) {
    return "";
  }
  std::string line(text, static_cast<std::size_t>(length));
  while (line.ends_with('\n') || line.ends_with('\r')) {
    line.pop_back();
  }
  if (line.find_first_not_of(' ') != std::string::npos) {
    ::history(impl_->history, &impl_->event, H_ENTER, text);
    impl_->Save();
  }
  return line;
}

}  // namespace gyre::ctl
