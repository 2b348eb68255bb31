// A machine's disks as whoever operates it sees them: what they are, what they have
// done, and what can be changed while the guest runs. Big lock held, on the main loop's
// thread, but for what says otherwise.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/histogram.h"
#include "gyre/base/mutex.h"
#include "gyre/base/result.h"
#include "gyre/loop/main_loop.h"

namespace gyre::virtio {

// What follows when the host cannot carry a request out.
enum class ErrorPolicy : std::uint8_t {
  kReport,   // the guest is told
  kIgnore,   // it is told that all is well
  kStop,     // the VM stops as io-error, and the request is tried again when it runs again
  kNoSpace,  // stop where there is no space, else report; for writing
};
enum class ErrorAction : std::uint8_t { kReport, kIgnore, kStop };
std::string_view Name(ErrorAction action);

// Told when the host has failed: of a disk that stops the VM once until it runs again, else once a
// second at most.
struct DiskError {
  std::string disk;
  bool read = false;
  ErrorAction action = ErrorAction::kReport;
  bool no_space = false;
  std::string reason;
};

// What the requests are counted as: writing zeroes is writing.
enum class DiskOp : std::uint8_t { kRead, kWrite, kFlush, kDiscard };
inline constexpr std::size_t kDiskOps = 4;

struct DiskStats {
  struct Of {
    std::uint64_t operations = 0;
    std::uint64_t bytes = 0;
    std::uint64_t time_ns = 0;  // from the queue to the answer, all together
    std::uint64_t failed = 0;   // by the host, and answered so
    std::uint64_t invalid = 0;  // not what a driver sends
    std::uint64_t merged = 0;   // carried out as a part of another's operation
    HistogramCounts latency;    // ns
  };
  std::array<Of, kDiskOps> of{};
  std::uint64_t highest_offset = 0;  // that was written, in bytes
  std::int64_t last_ns = 0;          // of the last answer, kRealtime; 0: there was none
};

// A limit is tokens a second, and how many may be spent at once; a rate of 0 is none.
struct DiskLimits {
  struct Limit {
    std::uint64_t rate = 0;   // at most kMost
    std::uint64_t burst = 0;  // 0: a tenth of the rate
    bool operator==(const Limit&) const = default;
  };
  static constexpr std::uint64_t kMost = std::uint64_t{1} << 40;
  struct Set {
    Limit all, read, write;
    bool operator==(const Set&) const = default;
  };
  Set bytes;
  Set operations;
  std::uint64_t operation_size = 0;  // bytes that count as one operation; 0: however many
  bool operator==(const DiskLimits&) const = default;
  bool any() const;
};

enum class IoStatus : std::uint8_t { kOk, kFailed, kNoSpace };

struct DiskInfo {
  std::string id;
  std::string path;
  std::uint64_t size = 0;       // bytes, as the guest sees it
  std::uint64_t allocated = 0;  // bytes that it takes on the host
  bool readonly = false;
  bool direct = false;  // cache modes, in QEMU's three words
  bool no_flush = false;
  bool writeback = false;
  std::optional<IoStatus> io_status;  // where a policy may stop the VM
  DiskLimits limits;
  std::string group;  // of the limits; empty without any
};

// One disk, for its operator.
class DiskControl {
 public:
  virtual ~DiskControl() = default;
  virtual DiskInfo Info() const = 0;
  virtual DiskStats Stats() const = 0;
  // Of the image and of what the guest sees. What is in flight completes first.
  virtual Status Resize(std::uint64_t bytes) = 0;
  // Another image in its place, under the same options; an error changes nothing.
  virtual Status ChangeImage(const std::string& path) = 0;
  // Of all disks in the group; an empty name: the group it is in, or one of its own.
  virtual void SetLimits(const DiskLimits& limits, const std::string& group) = 0;
  // For tests: sees what the host answered to each step, "read", "write", "durable write", "sync",
  // "allocate", and says what it is to be taken for. The queue's loop.
  using Fault = std::function<std::int32_t(std::string_view step, std::uint64_t offset, std::int32_t result)>;
  virtual void SetFault(Fault fault) = 0;
};

class ThrottleGroup;

// What the disks of a machine have in common. It outlives them.
class Disks {
 public:
  Disks(loop::MainLoop& loop, std::function<void(const DiskError&)> on_error);
  Disks(const Disks&) = delete;
  Disks& operator=(const Disks&) = delete;
  ~Disks();

  // In the order in which they were made.
  struct Entry {
    std::string id;
    DiskControl* disk = nullptr;
  };
  const std::vector<Entry>& all() const { return all_; }
  // Null if there is none.
  DiskControl* Find(std::string_view id) const;

  // --- The disks' own.
  // Refuses an id that another disk has.
  Status Add(DiskControl& disk, const std::string& id);
  void Remove(const DiskControl& disk);
  // As long as somebody holds it.
  std::shared_ptr<ThrottleGroup> Group(const std::string& name);
  // `on_error` is called with it by the main loop. Any thread.
  void Tell(DiskError error);

 private:
  void TellAll();

  std::function<void(const DiskError&)> on_error_;
  std::vector<Entry> all_;
  std::map<std::string, std::weak_ptr<ThrottleGroup>, std::less<>> groups_;
  Mutex mutex_;
  std::deque<DiskError> errors_ GUARDED_BY(mutex_);
  loop::BottomHalf tell_;
};

}  // namespace gyre::virtio
