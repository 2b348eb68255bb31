#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#include <glib-unix.h>
#include <glib.h>
#pragma GCC diagnostic pop

#include <vector>

#include "gyre/base/unique_fd.h"
#include "tools/bench_support/loop/peer.h"

namespace gyre::bench {
namespace {

// A source without fds, which is due when its time has come: GLib's cheapest timer that can be moved.
gboolean DispatchTimed(GSource* source, GSourceFunc callback, gpointer data) {
  g_source_set_ready_time(source, -1);
  callback(data);
  return 1;
}
GSourceFuncs timed_source = {nullptr, nullptr, DispatchTimed, nullptr, nullptr, nullptr};

class GlibPeer final : public Peer {
 public:
  GlibPeer() : context_(g_main_context_new()) {}
  ~GlibPeer() override {
    for (GSource* source : sources_) {
      g_source_destroy(source);
      g_source_unref(source);
    }
    g_main_context_unref(context_);
  }
  GlibPeer(const GlibPeer&) = delete;
  GlibPeer& operator=(const GlibPeer&) = delete;

  std::string_view name() const override { return "glib"; }
  void WatchEventFds(std::span<const int> fds, std::uint64_t& events) override {
    const GUnixFDSourceFunc on_event = [](int fd, GIOCondition, void* data) -> gboolean {
      *static_cast<std::uint64_t*>(data) += DrainEventFd(fd) ? 1 : 0;
      return 1;
    };
    for (const int fd : fds) {
      GSource* source = g_unix_fd_source_new(fd, G_IO_IN);
      g_source_set_callback(source, reinterpret_cast<GSourceFunc>(reinterpret_cast<void (*)()>(on_event)),
                            &events, nullptr);
      Attach(source);
    }
  }
  void Iterate() override { g_main_context_iteration(context_, 0); }

  void MakeTimers(std::size_t count, std::uint64_t& fired) override { MakeTimed(count, fired); }
  void SetTimer(std::size_t timer, std::int64_t deadline_ns) override {
    g_source_set_ready_time(sources_[timer], deadline_ns / 1000);
  }
  void MakeDeferred(std::size_t count, std::uint64_t& ran) override { MakeTimed(count, ran); }
  void Defer(std::size_t call) override { g_source_set_ready_time(sources_[call], 0); }

  bool has_reads() const override { return false; }
  void MakeReads(std::size_t, std::uint64_t&) override {}
  void StartRead(std::size_t, int, std::uint64_t) override {}

  void Serve(const std::function<void()>& poked) override {
    poked_ = &poked;
    while (!stopped_) {
      g_main_context_iteration(context_, 1);
    }
  }
  void Poke() override {
    GSource* source = g_idle_source_new();
    g_source_set_priority(source, G_PRIORITY_DEFAULT);
    g_source_set_callback(
        source,
        [](void* self) -> gboolean {
          (*static_cast<GlibPeer*>(self)->poked_)();
          return 0;
        },
        this, nullptr);
    g_source_attach(source, context_);
    g_source_unref(source);
  }
  void Stop() override { stopped_ = true; }

 private:
  void MakeTimed(std::size_t count, std::uint64_t& calls) {
    for (std::size_t i = 0; i < count; ++i) {
      GSource* source = g_source_new(&timed_source, sizeof(GSource));
      g_source_set_callback(
          source,
          [](void* data) -> gboolean {
            ++*static_cast<std::uint64_t*>(data);
            return 1;
          },
          &calls, nullptr);
      Attach(source);
    }
  }
  void Attach(GSource* source) {
    g_source_attach(source, context_);
    sources_.push_back(source);
  }

  GMainContext* context_;
  std::vector<GSource*> sources_;
  const std::function<void()>* poked_ = nullptr;
  bool stopped_ = false;
};

}  // namespace

std::unique_ptr<Peer> NewGlib() { return std::make_unique<GlibPeer>(); }

}  // namespace gyre::bench
