// What people see: tables, colours, a progress bar. Text from the server is made
// harmless for a terminal first. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tools/gyrectl/outcome.h"

namespace gyre::ctl {

// Control characters, C1 ones and broken UTF-8 become '?'; line ends and tabs stay if `lines`.
std::string Harmless(std::string_view text, bool lines = false);
// Its first characters and an ellipsis, `most` in all, where there are more than that.
std::string Shortened(std::string text, std::size_t most);
// "256 MiB", "1.5 GiB", "12 bytes".
std::string SizeText(std::uint64_t bytes);

enum class Style : std::uint8_t { kPlain, kBold, kGood, kWarn, kBad };

// Every row is as wide as the widest, so that what a server can make of it is bounded: what is
// beyond the limits is left out, and the last line tells.
class Table {
 public:
  static constexpr std::size_t kMostRows = 10'000;
  static constexpr std::size_t kMostColumns = 64;
  static constexpr std::size_t kMostCell = 256;  // characters

  // A column whose cells are all numbers is aligned to the right.
  void Head(std::vector<std::string> cells) { head_ = Bounded(std::move(cells)); }
  void Row(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  std::string Text(bool colour) const;

 private:
  std::vector<std::string> Bounded(std::vector<std::string> cells);

  std::vector<std::string> head_;
  std::vector<std::vector<std::string>> rows_;
  std::size_t rows_left_out_ = 0;
  std::size_t columns_left_out_ = 0;
};

class Output {
 public:
  // Colour: a terminal, and NO_COLOR is not set.
  static Output ForStandardStreams(bool json);
  Output(bool json, bool colour, bool progress) : json_(json), colour_(colour), progress_(progress) {}

  bool json() const { return json_; }
  bool colour() const { return colour_; }
  void Print(std::string_view text) const;  // to stdout, flushed
  // Whether all that was printed so far, by whatever Output, has got where it should.
  static Outcome<void> Written();
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
