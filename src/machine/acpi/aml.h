// A small typed encoder of the ACPI Machine Language (ACPI 6.4, chapter 20) and
// of resource templates (6.4). Each function returns the bytes of one object, and
// the types say where it may stand: a Term in a term list, a Data as a value, a
// Resource in a template. Names and numbers are ours, so a wrong one is a CHECK.
// Pure functions. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace gyre::machine::aml {

using Bytes = std::vector<std::byte>;

// An object's bytes, with room for most: a machine has hundreds, made anew at each start.
struct Object {
  Object() { bytes.reserve(64); }
  Bytes bytes;
};
struct Data : Object {};
struct Term : Object {};
struct Resource : Object {};

// A call's list, as it stands there: nothing of it is copied. Parameters alone.
template <typename T>
class List : public std::span<const T> {
 public:
  List(std::initializer_list<T> objects)  // NOLINT(google-explicit-constructor): a call says {a, b}
      : std::span<const T>(objects.begin(), objects.size()) {}
  List(const std::vector<T>& objects) : std::span<const T>(objects) {}  // NOLINT(google-explicit-constructor)
};

// --- Data objects (20.2.3) ---
// In the shortest of its encodings; all ones is Ones, which needs a definition
// block of revision 2 or later to have 64 bits.
Data Integer(std::uint64_t value);
Data String(std::string_view ascii);
// Compressed EISA id, such as "PNP0501" (19.3.4): three capitals, four hex digits.
Data EisaId(std::string_view id);
Data Buffer(std::span<const std::byte> content);
Data Package(List<Data> elements);  // at most 255
Data ResourceTemplate(List<Resource> resources);

// --- Terms (20.2.5) ---
// Names are paths as ASL writes them: "_HID", "\\_SB", "^COM1", "\\_SB.COM1".
Term Name(std::string_view path, const Data& value);
Term Scope(std::string_view path, List<Term> terms);
Term Device(std::string_view path, List<Term> terms);

// --- Fields (20.2.5.2) ---
// `size` bytes of memory at `address`.
Term MemoryRegion(std::string_view name, std::uint64_t address, std::uint32_t size);
struct FieldUnit {
  std::string_view name;  // one segment
  unsigned bits = 0;
};
// The region's bits from its start on, read and written 32 at a time.
Term DWordField(std::string_view region, List<FieldUnit> units);

// --- Methods (20.2.5.2 to 20.2.5.4) ---
Data Local(unsigned number);  // 0 to 7
Data Path(std::string_view path);
Data And(const Data& left, const Data& right);
// Serialized, with `arguments` of them.
Term Method(std::string_view path, unsigned arguments, List<Term> terms);
Term Store(const Data& value, const Data& target);
Term If(const Data& predicate, List<Term> terms);
Term Notify(std::string_view device, std::uint8_t value);

// --- Resource descriptors (6.4.2, 6.4.3) ---
enum class Trigger : std::uint8_t { kLevel = 0, kEdge = 1 };
enum class Polarity : std::uint8_t { kActiveHigh = 0, kActiveLow = 1 };
enum class Sharing : std::uint8_t { kExclusive = 0, kShared = 1 };
enum class Access : std::uint8_t { kReadOnly = 0, kReadWrite = 1 };

struct InterruptMode {
  Trigger trigger = Trigger::kEdge;
  Polarity polarity = Polarity::kActiveHigh;
  Sharing sharing = Sharing::kExclusive;
};

// `ports` ports from `first`, fixed, 16-bit decode (6.4.2.5).
Resource Io(std::uint16_t first, std::uint8_t ports);
// One ISA interrupt, 0 to 15 (6.4.2.1); without flags where the mode is the default.
Resource Irq(unsigned irq, InterruptMode mode = {});
// One global system interrupt that the device consumes (6.4.3.6).
Resource Interrupt(std::uint32_t gsi, InterruptMode mode = {});
Resource Memory32Fixed(std::uint32_t base, std::uint32_t size, Access access = Access::kReadWrite);

}  // namespace gyre::machine::aml
