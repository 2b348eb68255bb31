// What people see: tables, colours, a progress bar. Text from the server is made
// harmless for a terminal first. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gyre::ctl {

// Control characters, C1 ones and broken UTF-8 become '?'; line ends and tabs stay if `lines`.
std::string Harmless(std::string_view text, bool lines = false);
// "256 MiB", "1.5 GiB", "12 bytes".
std::string SizeText(std::uint64_t bytes);

enum class Style : std::uint8_t { kPlain, kBold, kGood, kWarn, kBad };

class Table {
 public:
  // A column whose cells are all numbers is aligned to the right.
  void Head(std::vector<std::string> cells) { head_ = std::move(cells); }
  void Row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  std::string Text(bool colour) const;

 private:
  std::vector<std::string> head_;
  std::vector<std::vector<std::string>> rows_;
};

class Output {
 public:
  // Colour: a terminal, and NO_COLOR is not set.
  static Output ForStandardStreams(bool json);
  Output(bool json, bool colour, bool progress) : json_(json), colour_(colour), progress_(progress) {}

  bool json() const { return json_; }
  bool colour() const { return colour_; }
  void Print(std::string_view text) const;  // to stdout, flushed
  void Show(const Table& table) const { Print(table.Text(colour_)); }
  std::string Styled(Style style, std::string_view text) const;
  // On a terminal's standard error; nothing elsewhere. `total` 0: not known yet.
  void Progress(std::string_view what, std::uint64_t done, std::uint64_t total) const;
  void EndProgress() const;

 private:
  bool json_;
  bool colour_;
  bool progress_;
};

// The line that Progress draws.
std::string ProgressLine(std::string_view what, std::uint64_t done, std::uint64_t total);

}  // namespace gyre::ctl
