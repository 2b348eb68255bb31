#include "src/base/journal.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>

namespace gyre::log {
namespace {

using namespace std::string_literals;

TEST(Journal, EntryHasItsFields) {
  const JournalEntry entry{.priority = '4', .vm = "web", .state = "running", .message = "hello"};
  EXPECT_EQ(entry.Text(),
            "PRIORITY=4\nSYSLOG_IDENTIFIER=gyred\nGYRE_VM=web\nGYRE_STATE=running\nMESSAGE=hello\n");
}

TEST(Journal, SeveralLinesAreCounted_AndEmptyFieldsLeftOut) {
  const JournalEntry entry{.message = "a\nb"};
  EXPECT_EQ(entry.Text(), "PRIORITY=6\nSYSLOG_IDENTIFIER=gyred\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"s);
}

TEST(Journal, EntryArrives_AndNobodyIsSaid) {
  std::string directory = "/tmp/gyre-journal-XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  const std::string path = directory + "/socket";
  EXPECT_FALSE(JournalSocket(path.c_str()).Send({.message = "x"}));
  {
    const UniqueFd journal(::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(&address.sun_path[0], path.size());
    ASSERT_EQ(::bind(journal.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    const JournalSocket socket(path.c_str());
    EXPECT_TRUE(socket.Send({.vm = "v", .message = "x"}));
    std::string text(256, '\0');
    const ssize_t got = ::recv(journal.get(), text.data(), text.size(), 0);
    ASSERT_GT(got, 0);
    EXPECT_EQ(text.substr(0, static_cast<std::size_t>(got)),
              "PRIORITY=6\nSYSLOG_IDENTIFIER=gyred\nGYRE_VM=v\nMESSAGE=x\n");
  }
  ::unlink(path.c_str());
  ::rmdir(directory.c_str());
}

}  // namespace
}  // namespace gyre::log
