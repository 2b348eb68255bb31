// bzImages unpacked by us: what the guest gets, the cache's life, and what happens when either is broken.
#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "src/machine/boot/linux_params.h"
#include "tests/unit/machine/boot/boot_fixture.h"
#include "tests/unit/machine/boot/packed_image.h"

namespace gyre::machine {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kPackedEntry = 0x1000200;

// How often `text` has `what`.
std::size_t Count(const std::string& text, std::string_view what) {
  std::size_t count = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++count;
  }
  return count;
}

class UnpackTest : public testing::Test {
 protected:
  UnpackTest() : ram_(25 * kMiB) { CHECK(::mkdtemp(root_.data()) != nullptr); }
  ~UnpackTest() override { fs::remove_all(root_); }
  UnpackTest(const UnpackTest&) = delete;
  UnpackTest& operator=(const UnpackTest&) = delete;

  std::string cache() const { return root_ + "/a/kernels"; }
  std::vector<fs::path> Entries() const {
    std::vector<fs::path> entries;
    for (const auto& item : fs::directory_iterator(cache())) {
      if (item.is_regular_file() && !item.is_symlink()) {
        entries.push_back(item.path());
      }
    }
    return entries;
  }
  Result<std::unique_ptr<BootImage>> Open(const std::string& path, std::string cmdline = "quiet",
                                          std::uint64_t limit = kGiB) const {
    return OpenBootImage({.kernel_path = path,
                          .initrd_path = "",
                          .cmdline = std::move(cmdline),
                          .protocol = protocol_,
                          .kernel_cache = {.path = cache(), .limit = limit, .named = named_}});
  }
  // Opens and places; what was logged is in log_.
  kvm::EntryState Boot(const Bytes& content, std::string cmdline = "quiet", std::uint64_t limit = kGiB) {
    const TestFile kernel(content);
    testing::internal::CaptureStderr();
    auto image = Open(kernel.path(), std::move(cmdline), limit);
    if (!image) {
      log_ = testing::internal::GetCapturedStderr();
      ADD_FAILURE() << image.error().message();
      return {};
    }
    soil_ ? ram_.Soil(std::byte{0xa5}) : void();
    auto state = (*image)->Place(ram_.ram(), ram_.platform());
    log_ = testing::internal::GetCapturedStderr();
    description_ = (*image)->description();
    if (!state) {
      ADD_FAILURE() << state.error().message();
      return {};
    }
    EXPECT_TRUE(ram_.GuardsIntact());
    return *state;
  }
  boot::BootParams Params(const kvm::EntryState& state) const {
    return ram_.Get<boot::BootParams>(state.rsi);
  }
  void ExpectKernel(const Bytes& elf) const {
    const auto text = ram_.Read(kElfText, kElfTextSize);
    EXPECT_TRUE(std::equal(text.begin(), text.end(), elf.data().begin() + kElfTextOffset));
    const auto data = ram_.Read(kElfData, kElfDataMemory);
    EXPECT_TRUE(std::equal(data.begin(), data.begin() + kElfDataSize, elf.data().begin() + kElfDataOffset));
    EXPECT_EQ(std::count(data.begin() + kElfDataSize, data.end(), std::byte{0}),
              static_cast<std::ptrdiff_t>(kElfDataMemory - kElfDataSize));
  }
  // It boots as if there were no cache, and says once why.
  void ExpectPacked(const Bytes& content, const std::string& why, std::uint64_t limit = kGiB) {
    EXPECT_EQ(Boot(content, "quiet", limit).rip, kPackedEntry);
    EXPECT_THAT(log_, HasSubstr(why));
    EXPECT_EQ(Count(log_, "unpacks itself"), 1u) << log_;
    EXPECT_EQ(Count(log_, "\n"), 1u) << log_;
  }

  std::string root_ = "/tmp/gyre-unpack-XXXXXX";
  TestRam ram_;
  bool soil_ = true;
  bool named_ = true;
  BootProtocol protocol_ = BootProtocol::kAuto;
  std::string log_;
  std::string description_;
};

class Packing : public UnpackTest, public testing::WithParamInterface<const char*> {};

TEST_P(Packing, Kernel_IsEnteredAsTheDecompressorWouldLeaveIt) {
  const Bytes elf = MakeVmlinux();
  const Bytes image = MakePackedBzImage(Pack(GetParam(), elf));
  for (const char* const time : {"unpacked now", "from the cache"}) {
    SCOPED_TRACE(time);
    const auto state = Boot(image);
    EXPECT_THAT(log_, IsEmpty());
    EXPECT_EQ(description_, "Linux bzImage (unpacked, 64-bit entry, protocol 2.15)");
    EXPECT_EQ(state.mode, kvm::EntryState::Mode::kLong64);
    EXPECT_EQ(state.rip, kElfEntry);
    ExpectKernel(elf);
    const auto params = Params(state);
    EXPECT_EQ(+params.hdr.version, 0x020f);
    EXPECT_EQ(+params.hdr.init_size, 0x800000u);
    EXPECT_EQ(params.hdr.type_of_loader, 0xff);
    EXPECT_EQ(ram_.GetString(params.hdr.cmd_line_ptr), "quiet");
  }
  EXPECT_EQ(Entries().size(), 1u);
}

TEST_P(Packing, PayloadThatIsCut_LeavesTheKernelToUnpackItself) {
  const Bytes payload = Pack(GetParam(), MakeVmlinux());
  const std::uint32_t size = payload.Get<std::uint32_t>(payload.size() - 4);
  for (const std::size_t cut : {payload.size() / 2, payload.size() - 20, std::size_t{9}}) {
    SCOPED_TRACE(cut);
    Bytes rest = payload.Cut(cut);
    ExpectPacked(MakePackedBzImage(rest.Put(cut, size)), "payload: ");
  }
  EXPECT_THAT(Entries(), IsEmpty());
}

TEST_P(Packing, PayloadThatIsLongerOrShorterThanItSays_IsNotUsed) {
  const Bytes payload = Pack(GetParam(), MakeVmlinux());
  const auto size = payload.Get<std::uint32_t>(payload.size() - 4);
  for (const std::uint32_t says : {size - 1, size + 1, size / 2, 1u}) {
    SCOPED_TRACE(says);
    ExpectPacked(MakePackedBzImage(Bytes(payload).Put(payload.size() - 4, says)), "payload: ");
  }
  EXPECT_THAT(Entries(), IsEmpty());
}

TEST_P(Packing, PayloadWithAnyWrongByte_IsNoDanger) {
  soil_ = false;  // which would take most of the time
  std::mt19937 random(1);
  const Bytes payload = Pack(GetParam(), MakeVmlinux());
  for (int i = 0; i < 150; ++i) {
    Bytes broken = payload;
    for (int flips = 0; flips < 1 + i % 3; ++flips) {
      broken.data()[random() % broken.size()] ^= static_cast<std::byte>(1 + random() % 255);
    }
    const auto entry = Boot(MakePackedBzImage(broken)).rip;
    EXPECT_TRUE(entry == kPackedEntry || ram_.ram().Span(GuestAddress(entry), 1)) << entry;
    EXPECT_LE(Count(log_, "\n"), 1u) << log_;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Packing, testing::ValuesIn(kPackings),
                         [](const auto& packing) { return std::string(packing.param); });

TEST_F(UnpackTest, BootLinux_LeavesTheKernelToUnpackItself) {
  protocol_ = BootProtocol::kLinux;
  EXPECT_EQ(Boot(MakePackedBzImage(Pack("zstd", MakeVmlinux()))).rip, kPackedEntry);
  EXPECT_THAT(log_, IsEmpty());
  EXPECT_FALSE(fs::exists(cache()));
}

TEST_F(UnpackTest, UnknownPackingOrNoPayload_IsNothingToWarnOf) {
  for (const Bytes& image : {MakePackedBzImage(Bytes().Fill(0, 0x100, 0x89)), MakeBzImage()}) {
    EXPECT_EQ(Boot(image).rip, kPackedEntry);
    EXPECT_THAT(log_, HasSubstr("info: "));
    EXPECT_EQ(Count(log_, "\n"), 1u) << log_;
  }
}

TEST_F(UnpackTest, KaslrFlag_IsTheDecompressorsUnlessTheCommandLineForbidsIt) {
  const Bytes image = MakePackedBzImage(Pack("zstd", MakeVmlinux()));
  for (const auto& [cmdline, flag] : {std::pair("quiet", true),
                                      {"nokaslr", false},
                                      {"a nokaslr", false},
                                      {"nokaslr b", false},
                                      {"xnokaslr nokaslry", true}}) {
    SCOPED_TRACE(cmdline);
    EXPECT_EQ((Params(Boot(image, cmdline)).hdr.loadflags & boot::kKaslr) != 0, flag);
  }
  protocol_ = BootProtocol::kLinux;
  EXPECT_EQ(Params(Boot(image)).hdr.loadflags & boot::kKaslr, 0)
      << "else the decompressor would take it for its own";
}

TEST_F(UnpackTest, PayloadBeyondTheProtectedPart_IsNotRead) {
  const Bytes image = MakePackedBzImage(Pack("zstd", MakeVmlinux()));
  ExpectPacked(Bytes(image).Put<std::uint32_t>(bz::kPayloadLength, ~0u), "payload_length 0xffffffff");
  ExpectPacked(Bytes(image).Put<std::uint32_t>(bz::kPayloadOffset, ~0u), "payload_offset 0xffffffff");
  ExpectPacked(Bytes(image).Put<std::uint32_t>(bz::kPayloadLength, 7), "payload_length 0x7");
}

TEST_F(UnpackTest, PayloadThatWouldUnpackToMoreThanInitSize_IsNotUnpacked) {
  const Bytes payload = Pack("zstd", Bytes(0x800001));
  EXPECT_LT(payload.size(), 0x2000u);
  ExpectPacked(MakePackedBzImage(payload), "says that it unpacks to 8388609 bytes; 1 to 8388608 are allowed");
  ExpectPacked(MakePackedBzImage(Bytes(payload).Put(payload.size() - 4, 0u)), "unpacks to 0 bytes");
}

TEST_F(UnpackTest, PayloadThatIsNoKernel_LeavesTheKernelToUnpackItself) {
  ExpectPacked(MakePackedBzImage(Pack("zstd", Bytes().Fill(0, 0x1000, 1))), "(unpacked): is not an ELF");
  ExpectPacked(MakePackedBzImage(Pack("zstd", MakeElf<Elf32>())), "(unpacked): is an ELF32");
  Bytes far = MakeVmlinux();
  ChangeProgramHeader<Elf64>(far, 1, [](Elf64_Phdr& header) { header.p_paddr = 1ull << 40; });
  ExpectPacked(MakePackedBzImage(Pack("zstd", far)), "is not in guest RAM");
}

TEST_F(UnpackTest, DamagedEntry_IsToldOfOnceAndMadeAnew) {
  const Bytes elf = MakeVmlinux();
  const Bytes image = MakePackedBzImage(Pack("zstd", elf));
  Boot(image);
  const fs::path entry = Entries().at(0);
  const auto size = fs::file_size(entry);
  const auto flip = [&](std::uint64_t at) {
    std::fstream file(entry, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const auto byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(at)).put(byte);
  };
  const std::map<std::string, std::function<void()>> damages = {
      {"a bit of the text", [&] { flip(kElfTextOffset + 5); }},
      {"a bit of the trailer", [&] { flip(size - 1); }},
      {"cut", [&] { fs::resize_file(entry, size - 1000); }},
      {"cut to almost nothing", [&] { fs::resize_file(entry, 3); }},
      {"longer", [&] { fs::resize_file(entry, size + 1000); }}};
  for (const auto& [what, damage] : damages) {
    SCOPED_TRACE(what);
    damage();
    EXPECT_EQ(Boot(image).rip, kElfEntry);
    ExpectKernel(elf);
    EXPECT_THAT(log_, HasSubstr("is damaged and made anew"));
    EXPECT_EQ(Count(log_, "\n"), 1u) << log_;
    EXPECT_EQ(Boot(image).rip, kElfEntry);
    EXPECT_THAT(log_, IsEmpty());
  }
}

TEST_F(UnpackTest, EntryUnderAnothersName_IsDamaged) {
  const Bytes one = MakePackedBzImage(Pack("zstd", MakeVmlinux(1)));
  const Bytes two = MakePackedBzImage(Pack("zstd", MakeVmlinux(2)));
  Boot(one);
  const fs::path first = Entries().at(0);
  Boot(two);
  for (const auto& entry : Entries()) {
    if (entry != first) {
      fs::copy_file(entry, first, fs::copy_options::overwrite_existing);
    }
  }
  Boot(one);
  EXPECT_THAT(log_, HasSubstr("no trailer, or another file's"));
  ExpectKernel(MakeVmlinux(1));
}

TEST_F(UnpackTest, ImageKnownByItsFile_IsNotTakenForWhatItWas) {
  const std::string path = root_ + "/bzImage";
  const auto write = [&](std::uint8_t seed) {
    const Bytes image = MakePackedBzImage(Pack("zstd", MakeVmlinux(seed)));
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(image.data().data()),
               static_cast<std::streamsize>(image.size()));
  };
  const auto boot = [&] {
    auto image = Open(path);
    ASSERT_TRUE(image) << image.error().message();
    ASSERT_TRUE((*image)->Place(ram_.ram(), ram_.platform()));
  };
  write(1);
  const timespec enough{.tv_sec = 1, .tv_nsec = 100'000'000};
  ASSERT_EQ(::nanosleep(&enough, nullptr), 0);  // one that is as young as this is not noted
  boot();
  ExpectKernel(MakeVmlinux(1));
  const auto links = [&] {
    return std::ranges::count_if(fs::directory_iterator(cache()),
                                 [](const auto& item) { return item.is_symlink(); });
  };
  EXPECT_EQ(links(), 1);
  // Known, and yet its entry is damaged.
  std::ofstream(Entries().at(0), std::ios::binary | std::ios::in).write("x", 1);
  testing::internal::CaptureStderr();
  boot();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("is damaged and made anew"));
  ExpectKernel(MakeVmlinux(1));
  write(2);
  boot();
  ExpectKernel(MakeVmlinux(2));
}

TEST_F(UnpackTest, EntryCutShortBeforeAReset_LeavesTheKernelToUnpackItself) {
  const TestFile kernel(MakePackedBzImage(Pack("zstd", MakeVmlinux())));
  auto image = Open(kernel.path());
  ASSERT_TRUE(image);
  EXPECT_EQ((*image)->Place(ram_.ram(), ram_.platform())->rip, kElfEntry);
  ASSERT_EQ(::truncate(Entries().at(0).c_str(), 4096), 0);
  testing::internal::CaptureStderr();
  EXPECT_EQ((*image)->Place(ram_.ram(), ram_.platform())->rip, kPackedEntry);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("has shrunk to 4096 bytes, it had"));
}

TEST_F(UnpackTest, Limit_RemovesWhatHasBeenUnusedForLongest) {
  const std::uint64_t limit = 2 * MakeVmlinux().size() + 1000;
  std::vector<fs::path> made;
  for (std::uint8_t seed = 0; seed < 3; ++seed) {
    Boot(MakePackedBzImage(Pack("zstd", MakeVmlinux(seed))), "quiet", limit);
    for (const auto& entry : Entries()) {
      if (std::ranges::find(made, entry) == made.end()) {
        made.push_back(entry);
        // Each a year older than the next, but the second, which is the oldest.
        const std::int64_t year = seed == 1 ? 1990 : 2000 + seed;
        const timespec times[] = {{.tv_sec = (year - 1970) * 365 * 86400, .tv_nsec = 0},
                                  {.tv_sec = 0, .tv_nsec = UTIME_OMIT}};
        ASSERT_EQ(::utimensat(AT_FDCWD, entry.c_str(), times, 0), 0);
      }
    }
  }
  ASSERT_EQ(made.size(), 3u);
  EXPECT_TRUE(fs::exists(made[0]));
  EXPECT_FALSE(fs::exists(made[1]));
  EXPECT_TRUE(fs::exists(made[2]));
}

TEST_F(UnpackTest, KernelBeyondTheLimit_LeavesTheOthersAlone) {
  Boot(MakePackedBzImage(Pack("zstd", MakeVmlinux(1))));
  ExpectPacked(MakePackedBzImage(Pack("zstd", MakeVmlinux(2))), "may hold 1000 bytes; the kernel has", 1000);
  EXPECT_EQ(Entries().size(), 1u);
}

TEST_F(UnpackTest, WhatACrashLeft_IsRemoved) {
  fs::create_directories(cache());
  fs::permissions(cache(), fs::perms::owner_all);
  std::ofstream(cache() + "/new.1") << "half a kernel";
  Boot(MakePackedBzImage(Pack("zstd", MakeVmlinux())));
  EXPECT_FALSE(fs::exists(cache() + "/new.1"));
  EXPECT_EQ(Entries().size(), 1u);
}

TEST_F(UnpackTest, DirectoryIsTheOwnersAlone) {
  const Bytes image = MakePackedBzImage(Pack("zstd", MakeVmlinux()));
  Boot(image);
  EXPECT_EQ(fs::status(cache()).permissions(), fs::perms::owner_all);
  EXPECT_EQ(fs::status(Entries().at(0)).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  fs::permissions(cache(), fs::perms::group_write, fs::perm_options::add);
  ExpectPacked(image, "others may write there");
}

TEST_F(UnpackTest, DirectoryThatCannotBe_LeavesTheKernelToUnpackItself) {
  std::ofstream(root_ + "/a") << "a file";
  ExpectPacked(MakePackedBzImage(Pack("zstd", MakeVmlinux())), "/a/kernels: Not a directory");
  named_ = false;
  EXPECT_EQ(Boot(MakePackedBzImage(Pack("zstd", MakeVmlinux()))).rip, kPackedEntry);
  EXPECT_THAT(log_, HasSubstr("info: kernel cache ")) << "nobody has asked for it";
}

TEST_F(UnpackTest, SeveralProcessesAtOnce_MakeOneEntryAndAllBoot) {
  const Bytes elf = MakeVmlinux();
  const TestFile kernel(MakePackedBzImage(Pack("xz", elf)));
  std::vector<pid_t> children;
  for (int i = 0; i < 8; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto image = Open(kernel.path());
      const auto state = image ? (*image)->Place(ram_.ram(), ram_.platform()) : Result<kvm::EntryState>();
      ::_exit(state && state->rip == kElfEntry ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Entries().size(), 1u);
}

}  // namespace
}  // namespace gyre::machine
