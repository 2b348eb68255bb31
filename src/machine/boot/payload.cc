#include "src/machine/boot/payload.h"

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "gyre/base/checked.h"
#include "gyre/base/format.h"

namespace gyre::machine::boot {
namespace {

using In = std::span<const std::byte>;
using Out = std::span<std::byte>;

// What a decoder may need beside its output: the largest dictionary that kernels are packed with is 128 MiB.
constexpr std::uint64_t kDecoderMemory = 192 * kMiB;

// The libraries take their input as what it is not: bytes to be written.
template <typename T>
T* Unconst(const std::byte* bytes) {
  return reinterpret_cast<T*>(
      const_cast<std::byte*>(bytes));  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

Error Broken(std::string_view why) { return Error::Usage(std::string(why)); }

Status CheckSize(std::uint64_t got, Out out) {
  if (got != out.size()) {
    return Fail(Broken(format("unpacks to {} bytes, not to the {} that it says", got, out.size())));
  }
  return {};
}

Status Gunzip(In in, Out out) {
  z_stream stream{};
  stream.next_in = Unconst<Bytef>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  constexpr int kGzipWindow = 15 + 16;
  if (inflateInit2(&stream, kGzipWindow) != Z_OK) {
    return Fail(Error::Host("zlib has no memory"));
  }
  const int code = inflate(&stream, Z_FINISH);
  const std::string why = stream.msg == nullptr ? "it is cut short, or too long" : stream.msg;
  inflateEnd(&stream);
  if (code != Z_STREAM_END) {
    return Fail(Broken(format("gzip: {}", why)));
  }
  return CheckSize(stream.total_out, out);
}

Status Unzstd(In in, Out out) {
  const std::size_t got = ZSTD_decompress(out.data(), out.size(), in.data(), in.size());
  if (ZSTD_isError(got) != 0) {
    return Fail(Broken(format("zstd: {}", ZSTD_getErrorName(got))));
  }
  return CheckSize(got, out);
}

// The legacy format: the magic, then blocks of at most 8 MiB, each behind its packed size, to the end.
Status Unlz4(In in, Out out) {
  constexpr unsigned kBlock = 8U << 20;
  std::size_t done = 0;
  for (In rest = in.subspan(4); !rest.empty();) {
    Le32 size;
    if (rest.size() < sizeof(size)) {
      return Fail(Broken("lz4: it is cut short in a block's size"));
    }
    std::memcpy(&size, rest.data(), sizeof(size));
    rest = rest.subspan(sizeof(size));
    if (size > rest.size() || size > LZ4_COMPRESSBOUND(kBlock)) {
      return Fail(Broken(format("lz4: a block of {} bytes where {} are left", size.value(), rest.size())));
    }
    const std::size_t room = std::min<std::size_t>(out.size() - done, kBlock);
    const int got = LZ4_decompress_safe(reinterpret_cast<const char*>(rest.data()),
                                        reinterpret_cast<char*>(out.data()) + done,
                                        static_cast<int>(size.value()), static_cast<int>(room));
    if (got < 0) {
      return Fail(Broken(format("lz4: a broken block at {:#x}", in.size() - rest.size())));
    }
    done += static_cast<std::size_t>(got);
    rest = rest.subspan(size);
  }
  return CheckSize(done, out);
}

Status LzmaCode(lzma_ret prepared, lzma_stream& stream, In in, Out out) {
  if (prepared != LZMA_OK) {
    return Fail(Error::Host("liblzma has no memory"));
  }
  stream.next_in = Unconst<std::uint8_t>(in.data());
  stream.avail_in = in.size();
  stream.next_out = reinterpret_cast<std::uint8_t*>(out.data());
  stream.avail_out = out.size();
  const lzma_ret code = lzma_code(&stream, LZMA_FINISH);
  const std::uint64_t got = stream.total_out;
  lzma_end(&stream);
  if (code == LZMA_MEMLIMIT_ERROR) {
    return Fail(Broken(format("xz: its dictionary needs more than {} MiB", kDecoderMemory / kMiB)));
  }
  if (code != LZMA_STREAM_END) {
    return Fail(
        Broken(format("xz: it is broken, cut short or too long (code {})", std::to_underlying(code))));
  }
  return CheckSize(got, out);
}

Status Unxz(In in, Out out) {
  lzma_stream stream = LZMA_STREAM_INIT;
  return LzmaCode(lzma_stream_decoder(&stream, kDecoderMemory, 0), stream, in, out);
}

Status Unlzma(In in, Out out) {
  lzma_stream stream = LZMA_STREAM_INIT;
  return LzmaCode(lzma_alone_decoder(&stream, kDecoderMemory), stream, in, out);
}

Status Bunzip2(In in, Out out) {
  auto size = static_cast<unsigned>(out.size());
  const int code =
      BZ2_bzBuffToBuffDecompress(reinterpret_cast<char*>(out.data()), &size, Unconst<char>(in.data()),
                                 static_cast<unsigned>(in.size()), 0, 0);
  if (code != BZ_OK) {
    return Fail(Broken(format("bzip2: it is broken, cut short or too long (code {})", code)));
  }
  return CheckSize(size, out);
}

}  // namespace

struct Payload::Format {
  std::string_view name;
  std::string_view magic;
  Status (*unpack)(In, Out);
  // The kernel's build writes the unpacked size behind all but gzip, which has it there itself.
  bool size_appended = true;
};

const Payload::Format* Payload::Recognise(In packed) {
  static constexpr std::array kFormats = {
      Format{.name = "gzip", .magic = "\x1f\x8b", .unpack = Gunzip, .size_appended = false},
      Format{.name = "zstd", .magic = "\x28\xb5\x2f\xfd", .unpack = Unzstd},
      Format{.name = "lz4", .magic = "\x02\x21\x4c\x18", .unpack = Unlz4},
      Format{.name = "xz",
             .magic = {"\xfd"
                       "7zXZ\0",
                       6},
             .unpack = Unxz},
      Format{.name = "lzma", .magic = {"\x5d\0\0", 3}, .unpack = Unlzma},
      Format{.name = "bzip2", .magic = "BZh", .unpack = Bunzip2}};
  const auto found = std::ranges::find_if(kFormats, [packed](const Format& format) {
    return packed.size() >= format.magic.size() &&
           std::memcmp(packed.data(), format.magic.data(), format.magic.size()) == 0;
  });
  return found == kFormats.end() ? nullptr : &*found;
}

std::string_view Payload::format_name() const { return format_->name; }

Result<std::optional<Payload>> Payload::Read(const ImageFile& file, const SetupHeader& header,
                                             std::uint64_t start, std::uint64_t size) {
  const std::uint64_t offset = header.payload_offset;
  const std::uint64_t length = header.payload_length;
  if (offset == 0 || length == 0) {
    return std::nullopt;
  }
  Le32 unpacked;
  if (!FitsWithin(offset, length, size) || length < 2 * sizeof(unpacked)) {
    return Fail(
        file.Bad(format("setup header: payload_offset {:#x} and payload_length {:#x} are not within the {} "
                        "bytes of the protected-mode part",
                        offset, length, size)));
  }
  Payload payload;
  payload.size_ = length;
  payload.packed_ = TRY(Mapping::Anonymous(length));
  TRY(file.Read(start + offset, payload.packed_.bytes(), "the payload"));
  payload.format_ = Recognise(payload.packed());
  if (payload.format_ == nullptr) {
    return std::nullopt;
  }
  std::memcpy(&unpacked, payload.packed().last(sizeof(unpacked)).data(), sizeof(unpacked));
  payload.unpacked_size_ = unpacked;
  // init_size holds the kernel unpacked, and some more.
  const std::uint64_t limit = std::min<std::uint64_t>(header.init_size, kMaxUnpacked);
  if (unpacked == 0 || unpacked > limit) {
    return Fail(file.Bad(format("payload ({}): says that it unpacks to {} bytes; 1 to {} are allowed",
                                payload.format_name(), unpacked.value(), limit)));
  }
  return payload;
}

Result<Mapping> Payload::Unpack() const {
  Mapping out = TRY(Mapping::Anonymous(unpacked_size_));
  TRY(format_->unpack(packed().first(size_ - (format_->size_appended ? sizeof(Le32) : 0)), out.bytes()));
  return out;
}

}  // namespace gyre::machine::boot
