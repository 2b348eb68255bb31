#include "tools/gyrectl/output.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <system_error>

#include "gyre/base/format.h"

namespace gyre::ctl {
namespace {

// The length of the sequence that begins there; 0 if it is none, or one that a terminal obeys.
std::size_t Utf8Length(std::string_view text) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned first = byte(0);
  const std::size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (length == 0 || first > 0xf4 || text.size() < length) {
    return 0;
  }
  for (std::size_t at = 1; at < length; ++at) {
    if ((byte(at) & 0xc0) != 0x80) {
      return 0;
    }
  }
  const bool c1 = length == 2 && first == 0xc2 && byte(1) < 0xa0;
  return c1 ? 0 : length;
}

std::size_t Width(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }));
}

bool IsNumber(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789.-") == std::string_view::npos;
}

constexpr std::string_view kReset = "\x1b[0m";
std::string_view Code(Style style) {
  constexpr std::array<std::string_view, 5> kCodes{"", "\x1b[1m", "\x1b[32m", "\x1b[33m", "\x1b[31m"};
  return kCodes.at(static_cast<std::size_t>(style));
}

// Why standard output could not be written, the first time; 0: it could.
int& WriteError() {
  static int error = 0;
  return error;
}

void AppendRow(std::string& text, const std::vector<std::string>& cells,
               const std::vector<std::size_t>& widths, const std::vector<bool>& right) {
  std::string line;
  for (std::size_t at = 0; at < cells.size(); ++at) {
    const std::string gap(widths[at] - Width(cells[at]), ' ');
    line += at == 0 ? "" : "  ";
    line += right[at] ? gap + cells[at] : cells[at] + gap;
  }
  line.erase(line.find_last_not_of(' ') + 1);
  text += line + "\n";
}

}  // namespace

std::string Harmless(std::string_view text, bool lines) {
  std::string safe;
  while (!text.empty()) {
    const std::size_t length = Utf8Length(text);
    const char byte = text[0];
    const bool kept = lines && (byte == '\n' || byte == '\t');
    const bool control = length == 1 && (static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f);
    if (kept || (length != 0 && !control)) {
      safe += text.substr(0, length);
    } else if (!(lines && text.starts_with("\r\n"))) {
      safe += '?';
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return safe;
}

std::string Shortened(std::string text, std::size_t most) {
  if (Width(text) <= most) {
    return text;
  }
  std::size_t end = 0;
  for (std::size_t width = 0; end < text.size(); ++end) {
    width += Width(std::string_view(text).substr(end, 1));
    if (width == most) {
      break;
    }
  }
  text.resize(end);
  return text + "\xe2\x80\xa6";
}

std::string SizeText(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kUnits{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  std::uint64_t whole = bytes;
  std::uint64_t rest = 0;
  while (whole >= 1024 && unit + 1 < kUnits.size()) {
    rest = whole % 1024;
    whole /= 1024;
    ++unit;
  }
  const std::uint64_t tenths = rest * 10 / 1024;
  return tenths == 0 ? format("{} {}", whole, kUnits.at(unit))
                     : format("{}.{} {}", whole, tenths, kUnits.at(unit));
}

std::vector<std::string> Table::Bounded(std::vector<std::string> cells) {
  if (cells.size() > kMostColumns) {
    columns_left_out_ = std::max(columns_left_out_, cells.size() - kMostColumns);
    cells.resize(kMostColumns);
  }
  for (auto& cell : cells) {
    cell = Shortened(std::move(cell), kMostCell);
  }
  return cells;
}

void Table::Row(std::vector<std::string> cells) {
  if (rows_.size() == kMostRows) {
    ++rows_left_out_;
    return;
  }
  rows_.push_back(Bounded(std::move(cells)));
}

std::string Table::Text(bool colour) const {
  std::vector<std::size_t> widths;
  std::vector<bool> right;
  const auto measure = [&](const std::vector<std::string>& cells, bool body) {
    widths.resize(std::max(widths.size(), cells.size()));
    right.resize(widths.size(), true);
    for (std::size_t at = 0; at < cells.size(); ++at) {
      widths[at] = std::max(widths[at], Width(cells[at]));
      right[at] = right[at] && (!body || cells[at].empty() || cells[at] == "-" || IsNumber(cells[at]));
    }
  };
  measure(head_, false);
  for (const auto& row : rows_) {
    measure(row, true);
  }
  std::string text;
  if (!head_.empty()) {
    std::string line;
    AppendRow(line, head_, widths, right);
    line.pop_back();
    text = colour ? format("{}{}{}\n", Code(Style::kBold), line, kReset) : line + "\n";
  }
  for (const auto& row : rows_) {
    AppendRow(text, row, widths, right);
  }
  if (rows_left_out_ + columns_left_out_ > 0) {
    text +=
        format("({} rows and {} columns are left out; --json has them)\n", rows_left_out_, columns_left_out_);
  }
  return text;
}

Output Output::ForStandardStreams(bool json) {
  const char* const no_color = std::getenv("NO_COLOR");  // NOLINT(concurrency-mt-unsafe): one thread
  const bool wanted = no_color == nullptr || *no_color == '\0';
  return {json, !json && wanted && ::isatty(STDOUT_FILENO) != 0, !json && ::isatty(STDERR_FILENO) != 0};
}

void Output::Print(std::string_view text) const {
  const bool taken = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if ((std::fflush(stdout) != 0 || !taken) && WriteError() == 0) {
    WriteError() = errno != 0 ? errno : EIO;
  }
}

Outcome<void> Output::Written() {
  const int error = WriteError();
  return error == 0 ? Outcome<void>()
                    : Fail(Exit::kRefused, "standard output: " + std::generic_category().message(error));
}

std::string Output::Styled(Style style, std::string_view text) const {
  return colour_ && style != Style::kPlain ? format("{}{}{}", Code(style), text, kReset) : std::string(text);
}

std::string ProgressLine(std::string_view what, std::uint64_t done, std::uint64_t total) {
  constexpr std::size_t kCells = 30;
  if (total == 0) {
    return format("{}  {}", what, SizeText(done));
  }
  done = std::min(done, total);
  const auto part = static_cast<double>(done) / static_cast<double>(total);
  const auto full = static_cast<std::size_t>(part * kCells);
  return format("{} [{}{}] {:3}%  {} of {}", what, std::string(full, '#'), std::string(kCells - full, '.'),
                static_cast<unsigned>(part * 100), SizeText(done), SizeText(total));
}

void Output::Progress(std::string_view what, std::uint64_t done, std::uint64_t total) const {
  if (progress_) {
    std::fprintf(stderr, "\r\x1b[K%s", ProgressLine(what, done, total).c_str());
  }
}

void Output::EndProgress() const {
  if (progress_) {
    std::fputs("\r\x1b[K", stderr);
  }
}

}  // namespace gyre::ctl
