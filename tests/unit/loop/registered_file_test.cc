// Files that the kernel looks up once: that operations on them are those on their fds.
#include <cerrno>

#include "async_op_fixture.h"
#include "loop/call_meter.h"
#include "loop/ring.h"
#include "loop/ring_sources.h"

namespace gyre::loop {
namespace {

using RegisteredFileTest = AsyncOpTest;

TEST_F(RegisteredFileTest, IsReadWrittenAndSyncedAsByItsFd) {
  const UniqueFd file = TemporaryFile();
  const RegisteredFile registered(loop(), file.get());
  const Bytes out = ToBytes("hello");
  const auto op = NewOp();
  op->Write(registered, out, 0);  // in the iteration that registers it
  EXPECT_EQ(Finish(), 5);
  EXPECT_TRUE(registered.registered());
  op->DataSync(registered);
  EXPECT_EQ(Finish(), 0);
  Bytes in(5);
  op->Read(file.get(), in, 0);
  EXPECT_EQ(Finish(), 5);
  EXPECT_EQ(ToText(in), "hello");
}

TEST_F(RegisteredFileTest, OfAReusedFd_IsTheNewFile) {
  const UniqueFd first = TemporaryFile();
  const UniqueFd second = TemporaryFile();
  const auto op = NewOp();
  const Bytes one = ToBytes("one");
  const Bytes two = ToBytes("two");
  const UniqueFd reused(::dup(first.get()));
  {
    const RegisteredFile registered(loop(), reused.get());
    op->Write(registered, one, 0);
    EXPECT_EQ(Finish(), 3);
  }
  ASSERT_EQ(::dup3(second.get(), reused.get(), O_CLOEXEC), reused.get());
  const RegisteredFile registered(loop(), reused.get());
  op->Write(registered, two, 0);
  EXPECT_EQ(Finish(), 3);
  Bytes in(3);
  op->Read(first.get(), in, 0);
  EXPECT_EQ(Finish(), 3);
  EXPECT_EQ(ToText(in), "one");
  op->Read(second.get(), in, 0);
  EXPECT_EQ(Finish(), 3);
  EXPECT_EQ(ToText(in), "two");
}

TEST_F(RegisteredFileTest, AnOperationOnIt_IsInTheRingAsItStarts) {
  const UniqueFd file = TemporaryFile();
  const RegisteredFile registered(loop(), file.get());
  Poll();
  const auto before = loop().stats().operations;
  const auto op = NewOp();
  const Bytes out = ToBytes("now");
  op->Write(registered, out, 0);
  EXPECT_EQ(loop().stats().operations, before + 1);
  EXPECT_TRUE(results_.empty());  // not from within Write
  EXPECT_EQ(Finish(), 3);
}

TEST_F(RegisteredFileTest, AnOperationOnOneThatIsToBeRegistered_WaitsForThat) {
  const UniqueFd file = TemporaryFile();
  Poll();
  const RegisteredFile registered(loop(), file.get());
  const auto before = loop().stats().operations;
  const auto op = NewOp();
  const Bytes out = ToBytes("later");
  op->Write(registered, out, 0);
  EXPECT_EQ(loop().stats().operations, before);
  EXPECT_EQ(Finish(), 5);
  EXPECT_TRUE(registered.registered());
}

TEST_F(RegisteredFileTest, Gone_TheKernelLetsGoOfTheFile) {
  Pipe pipe;
  {
    const RegisteredFile registered(loop(), pipe.write_end.get());
    Poll();
    ASSERT_TRUE(registered.registered());
    pipe.write_end.Reset();
    std::byte byte{};
    EXPECT_EQ(::read(pipe.read_end.get(), &byte, 1), -1);  // the kernel still has the other end
    EXPECT_EQ(errno, EAGAIN);
  }
  bool ended = false;
  const Watch watch(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) {
    std::byte byte{};
    ended = ::read(pipe.read_end.get(), &byte, 1) == 0;
  });
  EXPECT_TRUE(RunUntil([&] { return ended; }));
}

TEST_F(RegisteredFileTest, GoneBeforeItsLastOperationIsSubmitted_TheKernelLetsGoOfItBehindThat) {
  Pipe pipe;
  const Bytes out = ToBytes("x");
  {
    const RegisteredFile registered(loop(), pipe.write_end.get());
    Poll();
    ASSERT_TRUE(registered.registered());
    NewOp()->Write(registered, out, 0);  // and nobody waits for it
    pipe.write_end.Reset();
  }
  bool ended = false;
  const Watch watch(loop(), pipe.read_end.get(), Watch::kRead, [&](unsigned) {
    std::byte byte{};
    ended = ::read(pipe.read_end.get(), &byte, 1) == 0;
  });
  EXPECT_TRUE(RunUntil([&] { return ended; }));
}

TEST_F(RegisteredFileTest, MoreThanTheRingTakes_AllWork) {
  const UniqueFd file = TemporaryFile();
  std::vector<std::unique_ptr<RegisteredFile>> files;
  for (int i = 0; i < 300; ++i) {
    files.push_back(std::make_unique<RegisteredFile>(loop(), file.get()));
  }
  const auto op = NewOp();
  const Bytes out = ToBytes("x");
  for (const std::size_t place : {std::size_t{0}, std::size_t{255}, std::size_t{299}}) {
    op->Write(*files[place], out, 0);
    EXPECT_EQ(Finish(), 1);
  }
  EXPECT_TRUE(files[255]->registered());
  EXPECT_FALSE(files[299]->registered());
  files.resize(200);
  Poll();
  const RegisteredFile later(loop(), file.get());
  Poll();
  EXPECT_TRUE(later.registered());
}

// An operation stays unsubmitted if io_uring_enter(2) fails.
TEST(RingSourcesTest, FileForgotten_WhileAnOperationOnItIsUnsubmitted_IsKeptUntilItIs) {
  Ring ring = Ring::Create().value();
  CallMeter meter;
  RingSources sources(meter);
  const Pipe pipe;
  const FileSlot slot = ring.RegisterFile(pipe.write_end.get());
  ASSERT_TRUE(slot);
  const Bytes out = ToBytes("x");
  ring.Start(7, {.kind = OpKind::kWrite, .file_slot = slot, .memory = out.data(), .size = 1, .offset = 0});
  sources.ForgetFile(*slot);
  sources.ForgetFiles(ring);
  std::vector<Completion> completions;
  while (completions.empty()) {
    ASSERT_EQ(ring.Wait(1'000'000'000, completions), 0);
  }
  EXPECT_EQ(completions[0].result, 1);
  EXPECT_EQ(ring.unsubmitted(), 0U);
  sources.ForgetFiles(ring);
  EXPECT_EQ(ring.RegisterFile(pipe.write_end.get()), slot);  // free again
}

TEST_F(RegisteredFileTest, OfNoFd_IsNotRegisteredAndItsOperationsSaySo) {
  const RegisteredFile registered(loop(), 99'999);
  const auto op = NewOp();
  Bytes in(1);
  op->Read(registered, in, 0);
  EXPECT_EQ(Finish(), -EBADF);
  EXPECT_FALSE(registered.registered());
}

}  // namespace
}  // namespace gyre::loop
