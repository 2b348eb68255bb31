#include "devices/virtio/block_control.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <utility>

#include "gyre/base/format.h"

namespace gyre::virtio {
namespace {

using PolicyName = std::pair<std::string_view, ErrorPolicy>;

Result<ErrorPolicy> ParsePolicy(const Properties& properties, std::string_view name, ErrorPolicy otherwise,
                                std::span<const PolicyName> known) {
  const auto text = properties.Get(name);
  if (!text) {
    return otherwise;
  }
  std::string names;
  for (const auto& [word, policy] : known) {
    if (word == *text) {
      return policy;
    }
    names += format("{}{}", names.empty() ? "" : ", ", word);
  }
  return Fail(Error::Usage(format("{}={}: is not one of {}", name, *text, names)));
}

Result<DiskLimits::Limit> ParseLimit(const Properties& properties, const std::string& name) {
  DiskLimits::Limit limit;
  limit.rate = TRY(properties.Number(name, 0, 0, DiskLimits::kMost));
  limit.burst = TRY(properties.Number(name + "-burst", 0, 0, DiskLimits::kMost));
  if (limit.burst != 0 && limit.rate == 0) {
    return Fail(Error::Usage(format("{}-burst={}: without {}=", name, limit.burst, name)));
  }
  return limit;
}

}  // namespace

Result<ErrorPolicies> ParseErrorPolicies(const Properties& properties) {
  static constexpr std::array<PolicyName, 4> kPolicies = {{{"report", ErrorPolicy::kReport},
                                                           {"ignore", ErrorPolicy::kIgnore},
                                                           {"stop", ErrorPolicy::kStop},
                                                           {"enospc", ErrorPolicy::kNoSpace}}};
  ErrorPolicies policies;
  policies.read = TRY(ParsePolicy(properties, "rerror", policies.read, std::span(kPolicies).first(3)));
  policies.write = TRY(ParsePolicy(properties, "werror", policies.write, kPolicies));
  return policies;
}

Status ParseLimits(const Properties& properties, BlockOptions& options) {
  options.limits.bytes = {.all = TRY(ParseLimit(properties, "rate")),
                          .read = TRY(ParseLimit(properties, "read-rate")),
                          .write = TRY(ParseLimit(properties, "write-rate"))};
  options.limits.operations = {.all = TRY(ParseLimit(properties, "ops")),
                               .read = TRY(ParseLimit(properties, "read-ops")),
                               .write = TRY(ParseLimit(properties, "write-ops"))};
  options.limit_group = properties.Get("limit-group").value_or("");
  return {};
}

BlockControl::BlockControl(Disk& disk, std::vector<std::unique_ptr<BlockLane>>& lanes, Disks* disks,
                           Device device, std::uint32_t block_size)
    : disk_(disk), lanes_(lanes), disks_(disks), device_(std::move(device)), block_size_(block_size) {}

BlockControl::~BlockControl() {
  if (disks_ != nullptr) {
    disks_->Remove(*this);
  }
}

Status BlockControl::Begin(const BlockOptions& options) {
  if (disks_ != nullptr) {
    TRY(disks_->Add(*this, options.id));
  }
  id_ = options.id;
  disk_.errors.SetNames(id_, disk_.options.path);
  if (options.limits.any() || !options.limit_group.empty()) {
    SetLimits(options.limits, options.limit_group);
  }
  return {};
}

DiskInfo BlockControl::Info() const {
  DiskInfo info;
  info.id = id_;
  info.path = disk_.options.path;
  info.size = disk_.image.size;
  struct stat status{};
  if (::fstat(disk_.image.fd.get(), &status) == 0) {
    info.allocated = static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  const CacheMode cache = disk_.options.cache;
  info.readonly = disk_.options.readonly;
  info.direct = cache == CacheMode::kNone;
  info.no_flush = cache == CacheMode::kUnsafe;
  info.writeback = cache != CacheMode::kWritethrough;
  if (disk_.errors.may_stop()) {
    info.io_status = disk_.errors.status();
  }
  if (group_) {
    info.limits = group_->limits();
    info.group = group_->name();
  }
  return info;
}

DiskStats BlockControl::Stats() const {
  DiskStats sum;
  for (const auto& lane : lanes_) {
    lane->stats().AddTo(sum, lane->Now());
  }
  return sum;
}

Status BlockControl::Resize(std::uint64_t bytes) {
  if (disk_.options.readonly) {
    return Fail(Error::Usage(format("{}: is read only", disk_.options.path)));
  }
  if (bytes == 0 || bytes % block_size_ != 0 || bytes > INT64_MAX) {
    return Fail(Error::Usage(format("{} bytes are not a number of blocks of {}", bytes, block_size_)));
  }
  Status done;
  device_.quiesce([&] { done = disk_.image.Resize(disk_.options, bytes); });
  if (done) {
    device_.changed();
  }
  return done;
}

Status BlockControl::ChangeImage(const std::string& path) {
  ImageOptions options = disk_.options;
  options.path = path;
  BlockImage image = TRY(BlockImage::Open(options));
  device_.quiesce([&] {
    device_.forget_files();
    disk_.image = std::move(image);
    disk_.options.path = path;
    disk_.zero_range = true;
    disk_.sync_lost = 0;
    disk_.cached_writes = false;
    disk_.errors.SetNames(id_, path);
  });
  device_.changed();
  return {};
}

// Limits of a group are changed where it is; one joins or leaves it only while nothing of it waits.
void BlockControl::SetLimits(const DiskLimits& limits, const std::string& group) {
  if (!limits.any() && group.empty()) {
    if (group_) {
      JoinGroup(nullptr);
    }
    return;
  }
  std::string name = group;
  if (name.empty()) {
    name = group_ ? group_->name() : id_;
  }
  auto wanted = disks_ != nullptr ? disks_->Group(name) : std::make_shared<ThrottleGroup>(name);
  // Who joins by its name alone takes the limits as they are.
  if (limits.any()) {
    wanted->Configure(limits);
  }
  if (wanted != group_) {
    JoinGroup(std::move(wanted));
  }
}

void BlockControl::JoinGroup(std::shared_ptr<ThrottleGroup> group) {
  device_.quiesce([&] {
    group_ = std::move(group);
    for (const auto& lane : lanes_) {
      lane->SetGroup(group_);
    }
  });
}

}  // namespace gyre::virtio
