// What the loop's thread carries out itself.
#include <fcntl.h>

#include <array>
#include <cerrno>

#include "async_op_fixture.h"

namespace gyre::loop {
namespace {

class WriteHereTest : public AsyncOpTest {
 protected:
  std::string Content() const {
    Bytes bytes(32);
    const ssize_t count = ::pread(file.get(), bytes.data(), bytes.size(), 0);
    return ToText(std::span(bytes).first(static_cast<std::size_t>(std::max<ssize_t>(count, 0))));
  }
  void Start(AsyncOp& op, int fd) {
    const std::array<iovec, 2> vectors = {iovec{first.data(), first.size()},
                                          iovec{second.data(), second.size()}};
    op.WriteVectorHere(fd, vectors, 0);
  }
  UniqueFd file = TemporaryFile();
  Bytes first = ToBytes("ab");
  Bytes second = ToBytes("cde");
};

TEST_F(WriteHereTest, IsInTheFileAtOnce_AndItsCallbackComesFromTheLoop) {
  Poll();
  const auto before = loop().stats().operations;
  const auto op = NewOp();
  Start(*op, file.get());
  EXPECT_EQ(Content(), "abcde");
  EXPECT_TRUE(op->pending());
  EXPECT_TRUE(results_.empty());
  EXPECT_EQ(Finish(), 5);
  EXPECT_FALSE(op->pending());
  EXPECT_EQ(loop().stats().operations, before);
}

TEST_F(WriteHereTest, Refused_TheCallbackHasTheError) {
  const UniqueFd reader(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto op = NewOp();
  Start(*op, reader.get());
  EXPECT_EQ(Finish(), -EBADF);
}

TEST_F(WriteHereTest, CancelledTooLate_TheResultIsWhatWasDone) {
  const auto op = NewOp();
  Start(*op, file.get());
  op->Cancel();
  EXPECT_EQ(Finish(), 5);
}

TEST_F(WriteHereTest, DestroyedBeforeItsCallback_ThatDoesNotCome) {
  Start(*NewOp(), file.get());
  Poll();
  EXPECT_TRUE(results_.empty());
  EXPECT_EQ(Content(), "abcde");
}

TEST_F(WriteHereTest, AnOperationOfTheKernelsFollowsOnTheSameObject) {
  const auto op = NewOp();
  Start(*op, file.get());
  EXPECT_EQ(Finish(), 5);
  Bytes in(5);
  op->Read(file.get(), in, 0);
  EXPECT_EQ(Finish(), 5);
  EXPECT_EQ(ToText(in), "abcde");
}

TEST_F(WriteHereTest, DoneByItsCaller_TheCallbackComesWithThat) {
  Poll();
  const auto before = loop().stats().operations;
  const auto op = NewOp();
  op->DoneHere(7);
  EXPECT_TRUE(op->pending());
  EXPECT_TRUE(results_.empty());
  EXPECT_EQ(Finish(), 7);
  EXPECT_EQ(loop().stats().operations, before);
}

TEST_F(WriteHereTest, DoneByItsCallerAndDestroyed_NothingIsClosed) {
  {
    const auto op = NewOp();
    op->Accept(-1);  // whose result would be a descriptor
    EXPECT_EQ(Finish(), -EBADF);
    op->DoneHere(file.get());
  }
  Poll();
  EXPECT_EQ(::fcntl(file.get(), F_GETFD), FD_CLOEXEC);
}

}  // namespace
}  // namespace gyre::loop
