// What the DSDT says of the board: one small function a device, so a new device
// is one more function and one more line in DsdtTerms. Pure functions. Any thread.
#pragma once

#include <vector>

#include "src/machine/acpi/aml.h"
#include "src/machine/acpi/tables.h"

namespace gyre::machine {

// The definition block's terms, without the table's header (ACPI 6.4, 5.2.11.1).
std::vector<aml::Term> DsdtTerms(const AcpiConfig& config);

}  // namespace gyre::machine
