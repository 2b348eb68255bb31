#include "src/machine/acpi/table.h"

#include "src/machine/acpi/checksum.h"

namespace gyre::machine {

Bytes Table(std::string_view signature, std::uint8_t revision, const Bytes& body) {
  TableHeader header;
  header.signature = Text<4>(signature);
  header.revision = revision;
  header.length = static_cast<std::uint32_t>(sizeof(header) + body.size());
  header.checksum = static_cast<std::uint8_t>(ChecksumFor(WireBytes(header)) + ChecksumFor(body));
  Bytes table;
  table.reserve(header.length);
  AppendWire(table, header);
  table.insert(table.end(), body.begin(), body.end());
  return table;
}

}  // namespace gyre::machine
