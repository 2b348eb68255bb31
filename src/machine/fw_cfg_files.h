// What fw_cfg tells firmware of the machine, in the files that SeaBIOS reads. Pure but for the device.
#pragma once

#include <vector>

#include "gyre/devices/platform/firmware.h"
#include "src/machine/acpi/tables.h"
#include "src/machine/boot/boot.h"

namespace gyre::machine {

// `acpi` may be without bytes: no tables. Its tables stand in RAM that `map` calls reserved.
void DescribeToFirmware(devices::FwCfg& fw_cfg, unsigned vcpus, const std::vector<MemoryMapEntry>& map,
                        const TableBlob& acpi);

}  // namespace gyre::machine
