// Batches of reads that do not wait.
#include "gyre/loop/read_batch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "async_op_fixture.h"

namespace gyre::loop {
namespace {

using testing::Each;
using testing::ElementsAre;

// Reads into small buffers of their own.
struct Reads {
  explicit Reads(std::size_t count) : texts(count, std::string(8, '.')), vectors(count), reads(count) {
    for (std::size_t i = 0; i < count; ++i) {
      vectors[i] = {.iov_base = texts[i].data(), .iov_len = texts[i].size()};
      reads[i].vectors = std::span(&vectors[i], 1);
    }
  }
  std::vector<std::int32_t> results() const {
    std::vector<std::int32_t> all;
    for (const auto& read : reads) {
      all.push_back(read.result);
    }
    return all;
  }
  std::string text(std::size_t i) const {
    return texts[i].substr(0, static_cast<std::size_t>(reads[i].result));
  }

  std::vector<std::string> texts;
  std::vector<iovec> vectors;
  std::vector<ReadBatch::Read> reads;
};

class ReadBatchTest : public AsyncOpTest {
 protected:
  ReadBatchTest() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds.data()), 0);
    ours_ = UniqueFd(fds[0]);
    theirs_ = UniqueFd(fds[1]);
  }
  void Send(const std::string& packet) const {
    ASSERT_EQ(::send(theirs_.get(), packet.data(), packet.size(), 0), static_cast<ssize_t>(packet.size()));
  }
  UniqueFd ours_, theirs_;
};

TEST_F(ReadBatchTest, WhatIsThereComesInOrder_AndTheRestSaysSo) {
  Send("a");
  Send("bb");
  Send("ccc");
  ReadBatch batch(*loop_, ours_.get());
  Reads reads(5);
  batch.Run(reads.reads);
  EXPECT_THAT(reads.results(), ElementsAre(1, 2, 3, -EAGAIN, -EAGAIN));
  EXPECT_EQ(reads.text(0), "a");
  EXPECT_EQ(reads.text(1), "bb");
  EXPECT_EQ(reads.text(2), "ccc");
  Send("d");
  Reads later(1);
  batch.Run(later.reads);
  EXPECT_EQ(later.text(0), "d");
}

TEST_F(ReadBatchTest, MoreThanTheRingTakes_AreDoneAllTheSame) {
  constexpr std::size_t kCount = 100;
  for (std::size_t i = 0; i < kCount; ++i) {
    Send(std::to_string(i));
  }
  ReadBatch batch(*loop_, ours_.get());
  Reads reads(3 * kCount);
  batch.Run(reads.reads);
  for (std::size_t i = 0; i < kCount; ++i) {
    ASSERT_EQ(reads.text(i), std::to_string(i));
  }
  const auto results = reads.results();
  EXPECT_THAT(std::span(results).subspan(kCount), Each(-EAGAIN));
}

TEST_F(ReadBatchTest, AVectorOfSeveralBuffersIsFilledInTurn) {
  Send("abcdef");
  std::string first(2, '.');
  std::string second(8, '.');
  const std::array vectors = {iovec{first.data(), first.size()}, iovec{second.data(), second.size()}};
  ReadBatch::Read read{.vectors = vectors};
  ReadBatch batch(*loop_, ours_.get());
  batch.Run(std::span(&read, 1));
  EXPECT_EQ(read.result, 6);
  EXPECT_EQ(first + second.substr(0, 4), "abcdef");
}

TEST_F(ReadBatchTest, WhatElseCompletesMeanwhileWaitsForItsTurn) {
  UniqueFd event = NewEventFd().value();
  int seen = 0;
  const EventFdWatch watch(*loop_, event.get(), [&] { ++seen; });
  PollOnce(*loop_);
  ASSERT_EQ(::eventfd_write(event.get(), 1), 0);
  ReadBatch batch(*loop_, ours_.get());
  Reads reads(2);
  batch.Run(reads.reads);
  EXPECT_EQ(seen, 0) << "no callback is run by a batch";
  EXPECT_TRUE(RunUntil([&] { return seen == 1; })) << "it sleeps over what the batch has met";
}

// Which for an inotify descriptor and for a terminal is so up to now.
TEST_F(ReadBatchTest, AFileThatDoesNotKnowNotToWait_DoesNotWaitAllTheSame) {
  const UniqueFd events(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  ReadBatch none(*loop_, events.get());
  Reads nothing(3);
  none.Run(nothing.reads);
  EXPECT_THAT(nothing.results(), Each(-EAGAIN));

  const UniqueFd terminal(::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  ASSERT_TRUE(::grantpt(terminal.get()) == 0 && ::unlockpt(terminal.get()) == 0);
  const UniqueFd other(::ioctl(terminal.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  ReadBatch batch(*loop_, terminal.get());
  for (const char* text : {"one", "two"}) {
    ASSERT_EQ(::write(other.get(), text, 3), 3);
    Reads reads(3);
    batch.Run(reads.reads);
    EXPECT_EQ(reads.text(0), text);
    EXPECT_EQ(reads.reads[1].result, -EAGAIN);
    EXPECT_EQ(reads.reads[2].result, -EAGAIN);
  }
}

// Files of /proc do not know it either.
TEST_F(ReadBatchTest, OfAFileWithoutTheFlag_ItIsReadAllTheSame) {
  const UniqueFd file(::open("/proc/self/comm", O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  ReadBatch batch(*loop_, file.get());
  Reads reads(1);
  batch.Run(reads.reads);
  EXPECT_GT(reads.reads[0].result, 0);
}

TEST_F(ReadBatchTest, OfADescriptorThatIsClosed_EachSaysSo) {
  ReadBatch batch(*loop_, -1);
  Reads reads(2);
  batch.Run(reads.reads);
  EXPECT_THAT(reads.results(), Each(-EBADF));
}

}  // namespace
}  // namespace gyre::loop
