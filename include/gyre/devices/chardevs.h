// The machine's char devices: each has a label ("serial0"), a back end that can be
// exchanged while the guest runs, and the port that uses it. Main loop's thread, big
// lock held.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gyre/base/notifier.h"
#include "gyre/base/result.h"
#include "gyre/devices/char_backend.h"
#include "gyre/devices/ring_buffer.h"
#include "gyre/loop/main_loop.h"

namespace gyre::devices {

// What a port has to do with: a back end that may be another tomorrow.
class Chardev final : public CharBackend {
 public:
  Chardev(std::string label, std::unique_ptr<CharBackend> backend);

  const std::string& label() const { return label_; }
  bool in_use() const { return frontend_ != nullptr; }
  // Null if its back end is of another kind.
  RingBuffer* ring_buffer();
  // The frontend sees the old one's other end go, and the new one's come. What the old one still
  // had to say in either direction is lost.
  void Replace(std::unique_ptr<CharBackend> backend);
  // Whatever the back end says, from now on.
  void Resize(WindowSize size);

  std::size_t Write(std::span<const std::uint8_t> bytes) override { return backend_->Write(bytes); }
  void SetFrontend(CharFrontend* frontend) override;
  void ResumeInput() override { backend_->ResumeInput(); }
  std::string filename() const override { return backend_->filename(); }
  bool open() const override { return backend_->open(); }
  WindowSize size() const override { return size_ == WindowSize() ? backend_->size() : size_; }
  void WindowChanged() override { backend_->WindowChanged(); }
  int listener() const override { return backend_->listener(); }

 private:
  const std::string label_;
  std::unique_ptr<CharBackend> backend_;
  CharFrontend* frontend_ = nullptr;
  WindowSize size_;  // that somebody has told; zeros: nobody
};

class Chardevs {
 public:
  explicit Chardevs(loop::MainLoop& loop) : loop_(loop) {}
  Chardevs(const Chardevs&) = delete;
  Chardevs& operator=(const Chardevs&) = delete;

  // No two of one label. It stays as long as this does. The process's stdin is one's alone.
  Result<Chardev*> Add(std::string label, const std::string& spec);
  // "console0", or the first number after it that is free.
  std::string NewLabel(std::string_view kind) const;
  // If it fails, all is as it was.
  Status Change(Chardev& chardev, const std::string& spec);
  // All go; nobody uses one.
  void Clear() { all_.clear(); }
  // Null if there is none.
  Chardev* Find(std::string_view label) const;
  std::span<const std::unique_ptr<Chardev>> all() const { return all_; }
  // The process's own terminal may have another size.
  void WindowChanged();
  // One has another back end.
  NotifierList<const Chardev&>& change_notifiers() { return change_notifiers_; }

 private:
  Status CheckFree(const std::string& spec, const Chardev* but) const;

  loop::MainLoop& loop_;
  std::vector<std::unique_ptr<Chardev>> all_;
  NotifierList<const Chardev&> change_notifiers_;
};

}  // namespace gyre::devices
