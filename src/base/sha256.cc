#include "gyre/base/sha256.h"

#include <bit>
#include <cstring>

namespace gyre {
namespace {

constexpr std::size_t kBlock = 64;

using State = std::array<std::uint32_t, 8>;

// The fractional parts of the square roots of the first eight primes.
constexpr State kStart = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

// The fractional parts of the cube roots of the first 64 primes.
constexpr std::array<std::uint32_t, 64> kRound = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t Mix(std::uint32_t x, int a, int b, int c) {
  return std::rotr(x, a) ^ std::rotr(x, b) ^ std::rotr(x, c);
}
std::uint32_t Extend(std::uint32_t x, int a, int b, int shift) {
  return std::rotr(x, a) ^ std::rotr(x, b) ^ (x >> shift);
}

void Compress(State& state, const std::byte* block) {
  std::array<std::uint32_t, 64> w;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled below
  std::memcpy(w.data(), block, kBlock);
  for (std::size_t i = 0; i < 16; ++i) {
    w[i] = std::byteswap(w[i]);
  }
  for (std::size_t i = 16; i < w.size(); ++i) {
    w[i] = w[i - 16] + Extend(w[i - 15], 7, 18, 3) + w[i - 7] + Extend(w[i - 2], 17, 19, 10);
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const std::uint32_t t1 = h + Mix(e, 6, 11, 25) + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
    const std::uint32_t t2 = Mix(a, 2, 13, 22) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const State add = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < state.size(); ++i) {
    state[i] += add[i];
  }
}

}  // namespace

Sha256Digest Sha256(std::span<const std::byte> bytes) {
  State state = kStart;
  const std::uint64_t bits = std::uint64_t{bytes.size()} * 8;
  for (; bytes.size() >= kBlock; bytes = bytes.subspan(kBlock)) {
    Compress(state, bytes.data());
  }
  // A one, zeroes, and the length in bits at the end of a block.
  std::array<std::byte, 2 * kBlock> last{};
  std::memcpy(last.data(), bytes.data(), bytes.size());
  last[bytes.size()] = std::byte{0x80};
  const std::size_t end = bytes.size() + 9 <= kBlock ? kBlock : 2 * kBlock;
  const std::uint64_t length = std::byteswap(bits);
  std::memcpy(last.data() + end - sizeof(length), &length, sizeof(length));
  for (std::size_t at = 0; at < end; at += kBlock) {
    Compress(state, last.data() + at);
  }
  Sha256Digest digest{};
  for (std::size_t i = 0; i < state.size(); ++i) {
    const std::uint32_t word = std::byteswap(state[i]);
    std::memcpy(digest.data() + 4 * i, &word, sizeof(word));
  }
  return digest;
}

}  // namespace gyre
