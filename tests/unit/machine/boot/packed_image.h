// bzImages with a real payload, packed by the libraries as the kernel's build packs it.
#pragma once

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "gyre/base/check.h"
#include "tests/unit/machine/boot/image_builder.h"

namespace gyre::machine {

inline constexpr std::array kPackings = {"gzip", "zstd", "lz4", "xz", "lzma", "bzip2"};

inline std::size_t PackLzma(const std::string& packing, const Bytes& content, Bytes& out) {
  lzma_options_lzma options{};
  CHECK(!lzma_lzma_preset(&options, 1));
  lzma_stream stream = LZMA_STREAM_INIT;
  CHECK((packing == "xz" ? lzma_easy_encoder(&stream, 1, LZMA_CHECK_CRC32)
                         : lzma_alone_encoder(&stream, &options)) == LZMA_OK);
  stream.next_in = reinterpret_cast<const std::uint8_t*>(content.data().data());
  stream.avail_in = content.size();
  stream.next_out = reinterpret_cast<std::uint8_t*>(out.data().data());
  stream.avail_out = out.size();
  CHECK(lzma_code(&stream, LZMA_FINISH) == LZMA_STREAM_END);
  const std::size_t size = stream.total_out;
  lzma_end(&stream);
  return size;
}

inline std::size_t PackGzip(const Bytes& content, Bytes& out) {
  z_stream stream{};
  CHECK(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::vector<std::byte> in = content.data();
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data().data());
  stream.avail_out = static_cast<uInt>(out.size());
  CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  const std::size_t size = stream.total_out;
  deflateEnd(&stream);
  return size;
}

// The legacy format of two blocks or more, so that a block begins where another ends.
inline std::size_t PackLz4(const Bytes& content, Bytes& out) {
  constexpr std::size_t kBlock = 0x2000;
  std::size_t at = 4;
  out.Put<std::uint32_t>(0, 0x184c2102);
  for (std::size_t from = 0; from < content.size(); from += kBlock) {
    const int size = LZ4_compress_default(reinterpret_cast<const char*>(content.data().data()) + from,
                                          reinterpret_cast<char*>(out.data().data()) + at + 4,
                                          static_cast<int>(std::min(kBlock, content.size() - from)),
                                          static_cast<int>(out.size() - at - 4));
    CHECK(size > 0);
    out.Put(at, static_cast<std::uint32_t>(size));
    at += 4 + static_cast<std::size_t>(size);
  }
  return at;
}

inline Bytes Pack(const std::string& packing, const Bytes& content) {
  Bytes out(2 * content.size() + 4096);
  std::size_t size = 0;
  if (packing == "gzip") {
    return out.Cut(PackGzip(content, out));  // says its size itself
  }
  if (packing == "zstd") {
    size = ZSTD_compress(out.data().data(), out.size(), content.data().data(), content.size(), 1);
    CHECK(ZSTD_isError(size) == 0);
  } else if (packing == "lz4") {
    size = PackLz4(content, out);
  } else if (packing == "bzip2") {
    auto room = static_cast<unsigned>(out.size());
    std::vector<std::byte> in = content.data();
    CHECK(BZ2_bzBuffToBuffCompress(reinterpret_cast<char*>(out.data().data()), &room,
                                   reinterpret_cast<char*>(in.data()), static_cast<unsigned>(in.size()), 1, 0,
                                   0) == BZ_OK);
    size = room;
  } else {
    size = PackLzma(packing, content, out);
  }
  return out.Put(size, static_cast<std::uint32_t>(content.size())).Cut(size + 4);
}

namespace bz {
inline constexpr std::size_t kPayloadOffset = 0x248, kPayloadLength = 0x24c;
}  // namespace bz

// The protected-mode part has the payload at this offset, behind what unpacks it.
inline constexpr std::size_t kPayloadAt = 0x1000;

inline Bytes MakePackedBzImage(const Bytes& payload) {
  Bytes image = MakeBzImage();
  const std::size_t size = (kPayloadAt + payload.size() + 15) / 16 * 16;
  image.Put<std::uint32_t>(bz::kSyssize, static_cast<std::uint32_t>(size / 16))
      .Put<std::uint32_t>(bz::kPayloadOffset, kPayloadAt)
      .Put<std::uint32_t>(bz::kPayloadLength, static_cast<std::uint32_t>(payload.size()))
      .Fill(kBzSetupSize, size, 0x11);
  std::ranges::copy(payload.data(), image.data().begin() + kBzSetupSize + kPayloadAt);
  return image;
}

// The kernel's relocations follow the ELF file.
inline Bytes MakeVmlinux(std::uint8_t seed = 0x21) {
  Bytes elf = MakeElf<Elf64>();
  elf.Fill(kElfTextOffset, kElfTextSize, seed);
  return elf.Fill(elf.size(), 0x321, 0x55);
}

}  // namespace gyre::machine
