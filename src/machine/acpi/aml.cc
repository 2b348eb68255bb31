#include "src/machine/acpi/aml.h"

#include <algorithm>
#include <array>
#include <concepts>
#include <limits>

#include "gyre/base/check.h"

namespace gyre::machine::aml {
namespace {

// Opcodes and prefixes (20.2 and 20.3).
constexpr std::uint8_t kZeroOp = 0x00;
constexpr std::uint8_t kOneOp = 0x01;
constexpr std::uint8_t kNameOp = 0x08;
constexpr std::uint8_t kMethodOp = 0x14;
constexpr std::uint8_t kLocal0Op = 0x60;
constexpr std::uint8_t kStoreOp = 0x70;
constexpr std::uint8_t kAndOp = 0x7b;
constexpr std::uint8_t kNotifyOp = 0x86;
constexpr std::uint8_t kIfOp = 0xa0;
constexpr std::uint8_t kBytePrefix = 0x0a;
constexpr std::uint8_t kWordPrefix = 0x0b;
constexpr std::uint8_t kDWordPrefix = 0x0c;
constexpr std::uint8_t kStringPrefix = 0x0d;
constexpr std::uint8_t kQWordPrefix = 0x0e;
constexpr std::uint8_t kScopeOp = 0x10;
constexpr std::uint8_t kBufferOp = 0x11;
constexpr std::uint8_t kPackageOp = 0x12;
constexpr std::uint8_t kDualNamePrefix = 0x2e;
constexpr std::uint8_t kMultiNamePrefix = 0x2f;
constexpr std::uint8_t kExtOpPrefix = 0x5b;
constexpr std::uint8_t kRegionOp = 0x80;  // after kExtOpPrefix, as the next two
constexpr std::uint8_t kFieldOp = 0x81;
constexpr std::uint8_t kDeviceOp = 0x82;
constexpr std::uint8_t kOnesOp = 0xff;

constexpr std::size_t kSegmentSize = 4;

void Put(Bytes& out, std::span<const std::byte> bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

template <std::unsigned_integral T>
void Put(Bytes& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
}

void Put(Bytes& out, std::string_view text) { Put(out, std::as_bytes(std::span(text))); }

// The most that a package length of one to four bytes can say (20.2.4).
constexpr std::array<std::size_t, 4> kLargestLength = {(1U << 6) - 1, (1U << 12) - 1, (1U << 20) - 1,
                                                       (1U << 28) - 1};

// `length` in `own` bytes.
void PutLength(Bytes& out, std::size_t length, std::size_t own) {
  CHECK(length <= kLargestLength.at(own - 1));
  if (own == 1) {
    Put(out, static_cast<std::uint8_t>(length));
    return;
  }
  Put(out, static_cast<std::uint8_t>((own - 1) << 6 | (length & 0xf)));
  for (std::size_t i = 0; i + 1 < own; ++i) {
    Put(out, static_cast<std::uint8_t>(length >> (4 + 8 * i)));
  }
}

// The length of a package covers itself, in as few bytes as hold the sum.
void PutPackageLength(Bytes& out, std::size_t payload) {
  std::size_t own = 1;
  while (payload + own > kLargestLength.at(own - 1)) {
    ++own;
  }
  PutLength(out, payload + own, own);
}

bool IsLeadChar(char c) { return (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNameChar(char c) { return IsLeadChar(c) || (c >= '0' && c <= '9'); }

// One segment, filled up to four characters (20.2.2).
void PutSegment(Bytes& out, std::string_view segment) {
  CHECK(!segment.empty() && segment.size() <= kSegmentSize);
  CHECK(IsLeadChar(segment.front()) && std::ranges::all_of(segment, IsNameChar));
  Put(out, segment);
  out.insert(out.end(), kSegmentSize - segment.size(), std::byte{'_'});
}

void PutPath(Bytes& out, std::string_view path) {
  while (path.starts_with('\\') || path.starts_with('^')) {
    Put(out, path.substr(0, 1));
    path.remove_prefix(1);
  }
  const auto dots = static_cast<std::size_t>(std::ranges::count(path, '.'));
  if (path.empty()) {
    Put(out, kZeroOp);  // NullName
    return;
  }
  if (dots == 1) {
    Put(out, kDualNamePrefix);
  } else if (dots > 1) {
    CHECK(dots < std::numeric_limits<std::uint8_t>::max());
    Put(out, kMultiNamePrefix);
    Put(out, static_cast<std::uint8_t>(dots + 1));
  }
  for (std::size_t i = 0; i <= dots; ++i) {
    const auto end = std::min(path.find('.'), path.size());
    PutSegment(out, path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
}

template <typename T>
std::size_t SizeOf(List<T> objects) {
  std::size_t size = 0;
  for (const auto& object : objects) {
    size += object.bytes.size();
  }
  return size;
}

// What stands before a term list, and the list, under one package length.
void PutBlock(Bytes& out, const Bytes& head, List<Term> terms) {
  PutPackageLength(out, head.size() + SizeOf(terms));
  Put(out, head);
  for (const auto& term : terms) {
    Put(out, term.bytes);
  }
}

void PutBlock(Bytes& out, std::string_view path, List<Term> terms) {
  Bytes head;
  PutPath(head, path);
  PutBlock(out, head, terms);
}

std::uint8_t HexDigit(char c) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const auto digit = kDigits.find(c);
  CHECK(digit != std::string_view::npos);
  return static_cast<std::uint8_t>(digit);
}

constexpr std::uint8_t Bit(auto enumerator, unsigned bit) {
  return static_cast<std::uint8_t>(static_cast<unsigned>(enumerator) << bit);
}

// Resource tags: a small one holds its length, a large one is followed by it.
constexpr std::uint8_t kIrqTag = 0x22;
constexpr std::uint8_t kIrqWithFlagsTag = 0x23;
constexpr std::uint8_t kIoTag = 0x47;
constexpr std::uint8_t kEndTag = 0x79;
constexpr std::uint8_t kMemory32FixedTag = 0x86;
constexpr std::uint8_t kExtendedInterruptTag = 0x89;

}  // namespace

Data Integer(std::uint64_t value) {
  Data data;
  if (value == 0) {
    Put(data.bytes, kZeroOp);
  } else if (value == 1) {
    Put(data.bytes, kOneOp);
  } else if (value == std::numeric_limits<std::uint64_t>::max()) {
    Put(data.bytes, kOnesOp);
  } else if (value <= std::numeric_limits<std::uint8_t>::max()) {
    Put(data.bytes, kBytePrefix);
    Put(data.bytes, static_cast<std::uint8_t>(value));
  } else if (value <= std::numeric_limits<std::uint16_t>::max()) {
    Put(data.bytes, kWordPrefix);
    Put(data.bytes, static_cast<std::uint16_t>(value));
  } else if (value <= std::numeric_limits<std::uint32_t>::max()) {
    Put(data.bytes, kDWordPrefix);
    Put(data.bytes, static_cast<std::uint32_t>(value));
  } else {
    Put(data.bytes, kQWordPrefix);
    Put(data.bytes, value);
  }
  return data;
}

Data String(std::string_view ascii) {
  CHECK(std::ranges::all_of(ascii, [](char c) { return c > 0; }));  // 20.2.3: 0x01 to 0x7f
  Data data;
  Put(data.bytes, kStringPrefix);
  Put(data.bytes, ascii);
  Put(data.bytes, std::uint8_t{0});
  return data;
}

Data EisaId(std::string_view id) {
  CHECK(id.size() == 7);
  unsigned vendor = 0;
  for (const char c : id.substr(0, 3)) {
    CHECK(c >= 'A' && c <= 'Z');
    vendor = vendor << 5 | static_cast<unsigned>(c - '@');
  }
  unsigned product = 0;
  for (const char c : id.substr(3)) {
    product = product << 4 | HexDigit(c);
  }
  // Both halves stand most significant byte first.
  const std::uint32_t compressed = vendor << 16 | product;
  return Integer(__builtin_bswap32(compressed));
}

Data Buffer(std::span<const std::byte> content) {
  const Data size = Integer(content.size());
  Data data;
  Put(data.bytes, kBufferOp);
  PutPackageLength(data.bytes, size.bytes.size() + content.size());
  Put(data.bytes, size.bytes);
  Put(data.bytes, content);
  return data;
}

Data Package(List<Data> elements) {
  CHECK(elements.size() <= std::numeric_limits<std::uint8_t>::max());
  Data data;
  Put(data.bytes, kPackageOp);
  PutPackageLength(data.bytes, 1 + SizeOf(elements));
  Put(data.bytes, static_cast<std::uint8_t>(elements.size()));
  for (const auto& element : elements) {
    Put(data.bytes, element.bytes);
  }
  return data;
}

Data ResourceTemplate(List<Resource> resources) {
  Bytes content;
  for (const auto& resource : resources) {
    Put(content, resource.bytes);
  }
  Put(content, kEndTag);
  Put(content, std::uint8_t{0});  // a checksum of zero counts as right (6.4.2.9)
  return Buffer(content);
}

Term Name(std::string_view path, const Data& value) {
  Term term;
  Put(term.bytes, kNameOp);
  PutPath(term.bytes, path);
  Put(term.bytes, value.bytes);
  return term;
}

Term Scope(std::string_view path, List<Term> terms) {
  Term term;
  Put(term.bytes, kScopeOp);
  PutBlock(term.bytes, path, terms);
  return term;
}

Term Device(std::string_view path, List<Term> terms) {
  Term term;
  Put(term.bytes, kExtOpPrefix);
  Put(term.bytes, kDeviceOp);
  PutBlock(term.bytes, path, terms);
  return term;
}

Term MemoryRegion(std::string_view name, std::uint64_t address, std::uint32_t size) {
  constexpr std::uint8_t kSystemMemory = 0;
  Term term;
  Put(term.bytes, kExtOpPrefix);
  Put(term.bytes, kRegionOp);
  PutPath(term.bytes, name);
  Put(term.bytes, kSystemMemory);
  Put(term.bytes, Integer(address).bytes);
  Put(term.bytes, Integer(size).bytes);
  return term;
}

Term DWordField(std::string_view region, List<FieldUnit> units) {
  constexpr std::uint8_t kDWordAccess = 3;  // no lock, other bits preserved
  Bytes content;
  PutPath(content, region);
  Put(content, kDWordAccess);
  for (const auto& unit : units) {
    PutSegment(content, unit.name);
    PutLength(content, unit.bits, unit.bits <= kLargestLength[0] ? 1 : 2);
  }
  Term term;
  Put(term.bytes, kExtOpPrefix);
  Put(term.bytes, kFieldOp);
  PutPackageLength(term.bytes, content.size());
  Put(term.bytes, content);
  return term;
}

Data Local(unsigned number) {
  CHECK(number <= 7);
  Data data;
  Put(data.bytes, static_cast<std::uint8_t>(kLocal0Op + number));
  return data;
}

Data Path(std::string_view path) {
  Data data;
  PutPath(data.bytes, path);
  return data;
}

Data And(const Data& left, const Data& right) {
  constexpr std::uint8_t kNoTarget = 0;
  Data data;
  Put(data.bytes, kAndOp);
  Put(data.bytes, left.bytes);
  Put(data.bytes, right.bytes);
  Put(data.bytes, kNoTarget);
  return data;
}

Term Method(std::string_view path, unsigned arguments, List<Term> terms) {
  CHECK(arguments <= 7);
  constexpr std::uint8_t kSerialized = 1U << 3;
  Bytes head;
  PutPath(head, path);
  Put(head, static_cast<std::uint8_t>(arguments | kSerialized));
  Term term;
  Put(term.bytes, kMethodOp);
  PutBlock(term.bytes, head, terms);
  return term;
}

Term Store(const Data& value, const Data& target) {
  Term term;
  Put(term.bytes, kStoreOp);
  Put(term.bytes, value.bytes);
  Put(term.bytes, target.bytes);
  return term;
}

Term If(const Data& predicate, List<Term> terms) {
  Term term;
  Put(term.bytes, kIfOp);
  PutBlock(term.bytes, predicate.bytes, terms);
  return term;
}

Term Notify(std::string_view device, std::uint8_t value) {
  Term term;
  Put(term.bytes, kNotifyOp);
  PutPath(term.bytes, device);
  Put(term.bytes, Integer(value).bytes);
  return term;
}

Resource Io(std::uint16_t first, std::uint8_t ports) {
  constexpr std::uint8_t kDecode16 = 1;
  Resource resource;
  Put(resource.bytes, kIoTag);
  Put(resource.bytes, kDecode16);
  Put(resource.bytes, first);            // lowest base
  Put(resource.bytes, first);            // highest base
  Put(resource.bytes, std::uint8_t{1});  // alignment
  Put(resource.bytes, ports);
  return resource;
}

Resource Irq(unsigned irq, InterruptMode mode) {
  CHECK(irq < 16);
  const bool is_default = mode.trigger == Trigger::kEdge && mode.polarity == Polarity::kActiveHigh &&
                          mode.sharing == Sharing::kExclusive;
  Resource resource;
  Put(resource.bytes, is_default ? kIrqTag : kIrqWithFlagsTag);
  Put(resource.bytes, static_cast<std::uint16_t>(1U << irq));
  if (!is_default) {
    Put(resource.bytes,
        static_cast<std::uint8_t>(Bit(mode.trigger, 0) | Bit(mode.polarity, 3) | Bit(mode.sharing, 4)));
  }
  return resource;
}

Resource Interrupt(std::uint32_t gsi, InterruptMode mode) {
  constexpr std::uint8_t kConsumer = 1;
  Resource resource;
  Put(resource.bytes, kExtendedInterruptTag);
  Put(resource.bytes, std::uint16_t{6});
  Put(resource.bytes, static_cast<std::uint8_t>(kConsumer | Bit(mode.trigger, 1) | Bit(mode.polarity, 2) |
                                                Bit(mode.sharing, 3)));
  Put(resource.bytes, std::uint8_t{1});  // one interrupt
  Put(resource.bytes, gsi);
  return resource;
}

Resource Memory32Fixed(std::uint32_t base, std::uint32_t size, Access access) {
  Resource resource;
  Put(resource.bytes, kMemory32FixedTag);
  Put(resource.bytes, std::uint16_t{9});
  Put(resource.bytes, Bit(access, 0));
  Put(resource.bytes, base);
  Put(resource.bytes, size);
  return resource;
}

}  // namespace gyre::machine::aml
