#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

#include "gyre/base/unique_fd.h"
#include "gyre/kvm/inspect.h"
#include "kvm/ioctl.h"
#include "kvm/kvm_api.h"

namespace gyre::kvm {
namespace {

// KVM is trusted, but a size that makes no sense shall not become an allocation.
constexpr std::uint32_t kMostStatistics = 4096;
constexpr std::uint32_t kMostNameSize = 256;
constexpr std::size_t kMostValues = 4096;

Status ReadAt(int fd, std::span<std::byte> into, std::uint64_t offset, const char* what) {
  const ssize_t got = ::pread(fd, into.data(), into.size(), static_cast<off_t>(offset));
  if (got != static_cast<ssize_t>(into.size())) {
    return Fail(got < 0 ? Error::Sys(what, errno) : Error::Host("KVM's statistics are cut short"));
  }
  return {};
}

Statistic Describe(const kvm_stats_desc& raw, std::string name) {
  Statistic statistic;
  statistic.name = std::move(name);
  const std::uint32_t type = raw.flags & KVM_STATS_TYPE_MASK;
  statistic.type =
      type <= KVM_STATS_TYPE_MAX ? static_cast<Statistic::Type>(type) : Statistic::Type::kInstant;
  const std::uint32_t unit = (raw.flags & KVM_STATS_UNIT_MASK) >> KVM_STATS_UNIT_SHIFT;
  statistic.unit = unit <= static_cast<std::uint32_t>(Statistic::Unit::kBoolean)
                       ? static_cast<Statistic::Unit>(unit)
                       : Statistic::Unit::kNone;
  statistic.base = (raw.flags & KVM_STATS_BASE_MASK) == KVM_STATS_BASE_POW2 ? 2 : 10;
  statistic.exponent = raw.exponent;
  statistic.bucket_size = type == KVM_STATS_TYPE_LINEAR_HIST ? raw.bucket_size : 0;
  return statistic;
}

}  // namespace

Result<UniqueFd> OpenStatistics(int fd) {
  return UniqueFd(TRY(Call(fd, KVM_GET_STATS_FD, "KVM_GET_STATS_FD")));
}

Result<std::vector<Statistic>> ReadStatistics(int statistics_fd) {
  kvm_stats_header header{};
  TRY(ReadAt(statistics_fd, std::as_writable_bytes(std::span(&header, 1)), 0, "KVM statistics"));
  if (header.num_desc > kMostStatistics || header.name_size > kMostNameSize) {
    return Fail(Error::Host("KVM's statistics have a header that makes no sense"));
  }
  const std::size_t stride = sizeof(kvm_stats_desc) + header.name_size;
  std::vector<std::byte> descriptors(stride * header.num_desc);
  TRY(ReadAt(statistics_fd, descriptors, header.desc_offset, "KVM statistics"));
  std::vector<Statistic> all;
  for (std::uint32_t i = 0; i < header.num_desc; ++i) {
    kvm_stats_desc raw{};
    const auto entry = std::span(descriptors).subspan(i * stride, stride);
    std::memcpy(&raw, entry.data(), sizeof(raw));
    const auto* const name = reinterpret_cast<const char*>(entry.data() + sizeof(raw));
    all.push_back(Describe(raw, std::string(name, ::strnlen(name, header.name_size))));
    if (raw.size > kMostValues) {
      return Fail(Error::Host("KVM's statistics have a size that makes no sense"));
    }
    all.back().values.resize(raw.size);
    TRY(ReadAt(statistics_fd, std::as_writable_bytes(std::span(all.back().values)),
               header.data_offset + raw.offset, "KVM statistics"));
  }
  return all;
}

}  // namespace gyre::kvm
