// Which transfers a disk's thread carries out itself, and which io_uring has, be they reads or writes.
#include <array>
#include <string>
#include <vector>

#include "tests/unit/devices/virtio/block_here_fixture.h"

namespace gyre::virtio {
namespace {

using test::Buffer;

enum class Way : bool { kRead, kWrite };

class BlockCarriedHere : public BlockHereFixture, public testing::WithParamInterface<Way> {
 protected:
  bool read() const { return GetParam() == Way::kRead; }
  std::uint64_t OperationsOfOne(const std::vector<Buffer>& data) {
    return Operations([&] { EXPECT_EQ(Request(read() ? kRead : kWrite, kFirst, data), kOk); });
  }
  std::uint64_t OperationsOfPages(std::size_t pages) {
    return OperationsOfOne(std::vector(pages, Buffer{kData, kSmall, read()}));
  }
  std::string NoneHere() const { return read() ? NoReadsHere() : NoWritesHere(); }
};

INSTANTIATE_TEST_SUITE_P(Way, BlockCarriedHere, testing::Values(Way::kRead, Way::kWrite),
                         [](const auto& way) { return way.param == Way::kRead ? "Read" : "Write"; });

TEST_P(BlockCarriedHere, OnTheMainLoop_TheKernelHasThem) {
  Make("", kFlushFeature);
  EXPECT_EQ(ReadAt(0), kOk);
  EXPECT_EQ(OperationsOfPages(1), 1U);
}

TEST_P(BlockCarriedHere, WhereTheOptionSaysSo_TheKernelHasThem) {
  Start(",aio=io_uring");
  EXPECT_EQ(OperationsOfPages(1), 1U);
}

TEST_P(BlockCarriedHere, PastThePageCache_TheKernelHasThem) {
  if (!DirectWorks()) {
    GTEST_SKIP() << "no O_DIRECT on this file system";
  }
  Start(",cache=none");
  EXPECT_EQ(OperationsOfPages(1), 1U);
}

TEST_P(BlockCarriedHere, LongOnes_TheKernelHas) {
  Start();
  EXPECT_EQ(OperationsOfPages(65), 1U);
  SKIP_IF_NONE_HERE(NoneHere());
  EXPECT_TRUE(SoonNone([&] { return OperationsOfPages(64); }));
}

}  // namespace
}  // namespace gyre::virtio
