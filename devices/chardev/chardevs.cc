#include "gyre/devices/chardevs.h"

#include <algorithm>
#include <utility>

#include "gyre/base/check.h"
#include "gyre/base/format.h"
#include "gyre/base/log.h"

namespace gyre::devices {
namespace {

constexpr std::string_view kStdio = "stdio";

}  // namespace

Chardev::Chardev(std::string label, std::unique_ptr<CharBackend> backend)
    : label_(std::move(label)), backend_(std::move(backend)) {}

RingBuffer* Chardev::ring_buffer() { return dynamic_cast<RingBuffer*>(backend_.get()); }

void Chardev::SetFrontend(CharFrontend* frontend) {
  frontend_ = frontend;
  backend_->SetFrontend(frontend);
}

void Chardev::Replace(std::unique_ptr<CharBackend> backend) {
  backend_->SetFrontend(nullptr);
  backend_ = std::move(backend);
  size_ = {};
  if (frontend_ == nullptr) {
    return;
  }
  frontend_->OpenChanged(false);
  backend_->SetFrontend(frontend_);
  if (backend_->open()) {
    frontend_->OpenChanged(true);
  }
  frontend_->Resized();
  frontend_->WriteReady();
}

void Chardev::Resize(WindowSize size) {
  size_ = size;
  if (frontend_ != nullptr) {
    frontend_->Resized();
  }
}

Status Chardevs::CheckFree(const std::string& spec, const Chardev* but) const {
  const auto has_it = [&](const auto& chardev) {
    return chardev.get() != but && chardev->filename() == kStdio;
  };
  if (spec != kStdio) {
    return {};
  }
  if (const auto other = std::ranges::find_if(all_, has_it); other != all_.end()) {
    return Fail(Error::Usage(format("stdio: {} has it already", (*other)->label())));
  }
  return {};
}

Result<Chardev*> Chardevs::Add(std::string label, const std::string& spec) {
  CHECK(Find(label) == nullptr);
  TRY(CheckFree(spec, nullptr));
  all_.push_back(std::make_unique<Chardev>(std::move(label), TRY(NewCharBackend(loop_, spec))));
  Chardev* const chardev = all_.back().get();
  log::Info("{}: {}", chardev->label(), chardev->filename());
  return chardev;
}

std::string Chardevs::NewLabel(std::string_view kind) const {
  for (unsigned number = 0;; ++number) {
    if (auto label = format("{}{}", kind, number); Find(label) == nullptr) {
      return label;
    }
  }
}

Status Chardevs::Change(Chardev& chardev, const std::string& spec) {
  if (spec == kStdio && chardev.filename() == kStdio) {
    return {};  // a second one would take the first's raw mode for the terminal's own
  }
  TRY(CheckFree(spec, &chardev));
  chardev.Replace(TRY(NewCharBackend(loop_, spec)));
  log::Info("{}: {} from now on", chardev.label(), chardev.filename());
  change_notifiers_.Notify(chardev);
  return {};
}

Chardev* Chardevs::Find(std::string_view label) const {
  const auto found = std::ranges::find(all_, label, &Chardev::label);
  return found == all_.end() ? nullptr : found->get();
}

void Chardevs::WindowChanged() {
  for (const auto& chardev : all_) {
    chardev->WindowChanged();
  }
}

}  // namespace gyre::devices
