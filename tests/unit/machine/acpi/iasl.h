// The reference compiler of ACPI's language (package acpica-tools), as an
// independent judge of our bytes.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace gyre::machine::test {

constexpr const char* kNoIasl = "iasl (Debian package acpica-tools) is not installed";

bool HaveIasl();
// The table's disassembly without comments, blank lines and runs of blanks;
// nothing where iasl failed or complained.
std::optional<std::string> Disassemble(std::span<const std::byte> table);
// The table that the ASL file compiles to; nothing where it does not.
std::optional<std::vector<std::byte>> Compile(const std::string& asl_path);
// A file of tests/unit/machine/acpi/golden, normalised as Disassemble does it.
std::string Golden(const std::string& name);
std::string GoldenPath(const std::string& name);

}  // namespace gyre::machine::test
