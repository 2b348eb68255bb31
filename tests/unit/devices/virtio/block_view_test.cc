// An image's pages as memory: what is copied from them, and what becomes of those that cannot be had.
#include "devices/virtio/block_view.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <string>

#include "gyre/base/types.h"
#include "gyre/base/unique_fd.h"

namespace gyre::virtio {
namespace {

using Outcome = ImageView::Outcome;

constexpr std::uint64_t kPages = 8;

class ImageViewTest : public testing::Test {
 protected:
  ImageViewTest() {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      Write(page * kPageSize, std::string(kPageSize, static_cast<char>('a' + page)));
    }
    view = ImageView::Map(file.get(), kPages * kPageSize);
  }
  void Write(std::uint64_t offset, const std::string& bytes) {
    EXPECT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
  }
  void CutTo(std::uint64_t pages) {
    ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(pages * kPageSize)), 0);
  }
  // Into two vectors, the first of so many bytes.
  Outcome Read(std::uint64_t offset, std::size_t first, std::size_t second) {
    text.assign(first + second, '-');
    const std::array<iovec, 2> into = {iovec{text.data(), first}, iovec{text.data() + first, second}};
    return view->Read(offset, into);
  }

  UniqueFd file{::memfd_create("image", MFD_CLOEXEC)};
  std::unique_ptr<const ImageView> view;
  std::string text;
};

TEST_F(ImageViewTest, IsCopiedFromInOrder) {
  ASSERT_NE(view, nullptr);
  EXPECT_EQ(Read(kPageSize - 2, 3, 2), Outcome::kCopied);
  EXPECT_EQ(text, "aabbb");
}

TEST_F(ImageViewTest, ShowsWhatIsWritten) {
  EXPECT_EQ(Read(0, 1, 1), Outcome::kCopied);
  Write(0, "xy");
  EXPECT_EQ(Read(0, 1, 1), Outcome::kCopied);
  EXPECT_EQ(text, "xy");
}

TEST_F(ImageViewTest, HasWhatWasMapped) {
  EXPECT_TRUE(view->Has(0, kPages * kPageSize));
  EXPECT_TRUE(view->Has(kPages * kPageSize - 1, 1));
  EXPECT_FALSE(view->Has(kPages * kPageSize - 1, 2));
  EXPECT_FALSE(view->Has(UINT64_MAX, 2));
}

TEST_F(ImageViewTest, OfAFileThatHasBecomeShorter_SaysSoAndHasNothingAnyMore) {
  CutTo(2);
  EXPECT_EQ(Read(kPageSize, 8, 8), Outcome::kCopied);
  EXPECT_EQ(text, std::string(16, 'b'));
  EXPECT_TRUE(view->Has(0, 1));
  EXPECT_EQ(Read(2 * kPageSize - 8, 8, 8), Outcome::kNotThere);
  EXPECT_FALSE(view->Has(0, 1));
  // Also to who meets the page that was put there.
  EXPECT_EQ(Read(2 * kPageSize, 8, 8), Outcome::kNotThere);
}

TEST_F(ImageViewTest, IntoMemoryThatIsLost_SaysSoAndStaysGood) {
  const UniqueFd lost(::memfd_create("ram", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(lost.get(), kPageSize), 0);
  const auto memory = Mapping::File(lost.get(), 0, 2 * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED).value();
  const auto errors = BusErrors::Create().value();
  const BusErrorGuard guard(memory.bytes(), kPageSize, *errors);
  const std::array<iovec, 1> into = {iovec{memory.data(), 2 * kPageSize}};
  EXPECT_EQ(view->Read(0, into), Outcome::kMemoryLost);
  EXPECT_TRUE(errors->lost());
  EXPECT_TRUE(view->Has(0, 1));
  EXPECT_EQ(Read(0, 1, 1), Outcome::kCopied);
}

TEST_F(ImageViewTest, OfNoFile_IsNone) { EXPECT_EQ(ImageView::Map(-1, kPageSize), nullptr); }

}  // namespace
}  // namespace gyre::virtio
