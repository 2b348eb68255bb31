// A disk whose back end is another process, as far as it can tell: with a driver, on the real clock.
#pragma once

#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/block_config.h"
#include "devices/virtio/vhost_user_device.h"
#include "gyre/devices/virtio/registry.h"
#include "tests/support/vhost_user/fake_back_end.h"
#include "tests/unit/devices/virtio/transport_fixture.h"

namespace gyre::virtio {

class VhostUserTest : public DeviceTest {
 protected:
  using Mode = test::FakeBackEnd::Mode;
  static constexpr std::int64_t kTimeoutNs = 300'000'000;
  static constexpr std::uint64_t kHeaders = 0x80000;

  VhostUserTest() : DeviceTest(&loop::KernelTime(), true) {
    std::string name = (std::filesystem::temp_directory_path() / "gyre-vhost.XXXXXX").string();
    directory = ::mkdtemp(name.data());
    path = (directory / "s").string();
  }
  ~VhostUserTest() override {
    Unplug();
    back_end.reset();
    std::filesystem::remove_all(directory);
  }

  void StartBackEnd(test::FakeBackEnd::Options options = {}) {
    back_end.reset();  // which takes its name away
    back_end = std::make_unique<test::FakeBackEnd>(path, std::move(options));
  }
  Result<std::unique_ptr<VhostUser>> Open(unsigned queues = 1) {
    return VhostUser::Open(*loop_, {.path = path,
                                    .queues = queues,
                                    .config_size = sizeof(BlockConfig),
                                    .features = kBlockFlush | kBlockSize,
                                    .timeout_ns = kTimeoutNs});
  }
  void Make(unsigned queues = 1) {
    auto user = Open(queues).value();
    DeviceContext where = context();
    where.vhost_user_changed = [this](std::string_view id, bool up) {
      events.push_back(std::string(id) + (up ? " up" : " down"));
    };
    DeviceTraits traits{.name = "disk",
                        .id = 2,
                        .features = user->features() | kFeaturePacked,
                        .queues = queues,
                        .queue_size = 256,
                        .config_size = sizeof(BlockConfig)};
    auto made = std::make_unique<VhostUserDevice>(where, std::move(traits), "d", std::move(user));
    device = made.get();
    Plug(std::move(made));
  }
  // Runs the loop until it is so, for some seconds at most.
  bool Await(const std::function<bool()>& done) {
    for (int i = 0; i < 20'000; ++i) {
      if (done()) {
        return true;
      }
      RunPending();
      ::usleep(i < 100 ? 50 : 500);
    }
    return done();
  }
  // A request of `sectors` from `sector` on, whose data is at kData + 512 * sector.
  std::uint16_t Request(BlockRequest type, std::uint64_t sector, std::uint32_t sectors = 1,
                        unsigned queue = 0) {
    const std::uint64_t at = kHeaders + 32 * (next_++ % 1024);
    BlockHeader header;
    header.type = static_cast<std::uint32_t>(type);
    header.sector = sector;
    std::memcpy(memory.host() + at, &header, sizeof(header));
    memory.host()[at + 16] = std::byte{0xff};
    const std::array buffers = {
        test::Buffer{at, sizeof(header)},
        test::Buffer{kData + kSectorSize * sector, 512 * sectors, type == BlockRequest::kRead},
        test::Buffer{at + 16, 1, true}};
    last_status_ = at + 16;
    const std::uint16_t id = rings.at(queue)->Offer(buffers);
    mmio.Kick(queue);
    return id;
  }
  std::uint8_t last_status() const { return static_cast<std::uint8_t>(memory.host()[last_status_]); }
  void Fill(std::uint64_t sector, char byte) {
    std::memset(memory.host() + kData + kSectorSize * sector, byte, kSectorSize);
  }
  char OnDisk(std::uint64_t sector) {
    std::array<std::byte, 1> byte{};
    back_end->ReadDisk(kSectorSize * sector, byte);
    return static_cast<char>(byte[0]);
  }
  VhostUserInfo info() const { return device->info(); }

  std::filesystem::path directory;
  std::string path;
  std::unique_ptr<test::FakeBackEnd> back_end;
  VhostUserDevice* device = nullptr;
  std::vector<std::string> events;

 private:
  std::uint64_t next_ = 0;
  std::uint64_t last_status_ = 0;
};

}  // namespace gyre::virtio
