// Messages to local APICs, and the GSI routing table by which KVM sends them
// itself when an irqfd fires or wants to know whose end of interrupt to report.
// Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "gyre/base/irq.h"
#include "gyre/base/mutex.h"
#include "gyre/base/result.h"

namespace gyre::kvm {

struct Route {
  Gsi gsi;
  MsiMessage message;
  bool operator==(const Route&) const = default;
};

// The table behind SetRoute. Pure.
class RouteTable {
 public:
  // False if nothing changed.
  bool Set(Gsi gsi, const std::optional<MsiMessage>& message);
  std::vector<Route> routes() const;

 private:
  std::map<Gsi, MsiMessage> routes_;
};

class MsiRouter final : public MsiSink {
 public:
  explicit MsiRouter(int vm_fd) : vm_fd_(vm_fd) {}
  void Send(const MsiMessage& message) override;
  void SetRoute(Gsi gsi, const std::optional<MsiMessage>& message) override;

 private:
  Status Apply() REQUIRES(mutex_);

  int vm_fd_;
  Mutex mutex_;
  RouteTable table_ GUARDED_BY(mutex_);
};

}  // namespace gyre::kvm
