// record_writer write DIRECTORY FIRST: writes numbered records to the file DIRECTORY/records without end,
// each made durable by fsync(2) and then told by a line "gyre-guest: record N ."; every fourth replaces the
// file DIRECTORY/current as well, by a new one and rename(2), and is told once the directory is durable too.
// Between them it makes and removes files that nobody waits for, so that a file system's journal has more to
// do. record_writer check DIRECTORY LAST: prints the highest number that is there once every record up to
// LAST, or one that took its place later, is there whole; else what is not, and ends with 1.
//
// A record has 1 KiB and stands in the slot of its number modulo 4096.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr std::uint64_t kSlots = 4096;
using Record = std::array<std::uint64_t, 128>;  // each word is the number

[[noreturn]] void Die(const std::string& what) {
  std::perror(("record_writer: " + what).c_str());
  std::exit(2);
}

Record Make(std::uint64_t number) {
  Record record;
  record.fill(number);
  return record;
}

off_t PlaceOf(std::uint64_t number) { return static_cast<off_t>(number % kSlots * sizeof(Record)); }

int Open(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  return fd < 0 ? (Die(path), -1) : fd;
}

void Put(int fd, std::uint64_t number, off_t place) {
  const Record record = Make(number);
  if (::pwrite(fd, record.data(), sizeof(record), place) != static_cast<ssize_t>(sizeof(record)) ||
      ::fsync(fd) != 0) {
    Die("a record");
  }
}

void Replace(const std::string& directory, int directory_fd, std::uint64_t number) {
  const std::string part = directory + "/part";
  const int fd = Open(part, O_WRONLY | O_CREAT | O_TRUNC);
  Put(fd, number, 0);
  ::close(fd);
  if (::rename(part.c_str(), (directory + "/current").c_str()) != 0 || ::fsync(directory_fd) != 0) {
    Die(part);
  }
}

void MakeNoise(const std::string& directory, std::uint64_t number) {
  static const std::array<char, 16384> bytes{};
  const auto name = [&](std::uint64_t of) { return directory + "/noise" + std::to_string(of); };
  const int fd = Open(name(number), O_WRONLY | O_CREAT | O_TRUNC);
  if (::write(fd, bytes.data(), bytes.size()) < 0) {
    Die("noise");
  }
  ::close(fd);
  ::unlink(name(number - std::min<std::uint64_t>(number, 64)).c_str());
}

[[noreturn]] void Write(const std::string& directory, std::uint64_t number) {
  const int fd = Open(directory + "/records", O_WRONLY | O_CREAT);
  const int directory_fd = Open(directory, O_RDONLY | O_DIRECTORY);
  for (;; ++number) {
    Put(fd, number, PlaceOf(number));
    if (number % 4 == 0) {
      Replace(directory, directory_fd, number);
    }
    if (number % 8 == 0) {
      MakeNoise(directory, number);
    }
    std::printf("gyre-guest: record %llu .\n", static_cast<unsigned long long>(number));
    std::fflush(stdout);
  }
}

// The number of the whole record there; 0 if there is none.
std::uint64_t Get(int fd, off_t place) {
  Record record{};
  if (::pread(fd, record.data(), sizeof(record), place) != static_cast<ssize_t>(sizeof(record)) ||
      record != Make(record[0])) {
    return 0;
  }
  return record[0];
}

int Check(const std::string& directory, std::uint64_t last) {
  if (last == 0) {
    std::puts("0");
    return 0;
  }
  const int fd = Open(directory + "/records", O_RDONLY);
  std::uint64_t highest = 0;
  for (std::uint64_t number = last - std::min(last - 1, kSlots - 1); number <= last + 1; ++number) {
    const std::uint64_t found = Get(fd, PlaceOf(number));
    // The slot behind the last may have its record of a round ago still, and may have been cut in its
    // writing.
    if (number <= last && (found < number || found % kSlots != number % kSlots)) {
      std::printf("record %llu is not there (%llu is)\n", static_cast<unsigned long long>(number),
                  static_cast<unsigned long long>(found));
      return 1;
    }
    highest = std::max(highest, found);
  }
  if (last >= 4) {
    const std::uint64_t current = Get(Open(directory + "/current", O_RDONLY), 0);
    if (current < last - last % 4) {
      std::printf("the last file is that of %llu\n", static_cast<unsigned long long>(current));
      return 1;
    }
  }
  std::printf("%llu\n", static_cast<unsigned long long>(highest));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "write") == 0) {
    Write(argv[2], std::strtoull(argv[3], nullptr, 10));
  }
  if (argc == 4 && std::strcmp(argv[1], "check") == 0) {
    return Check(argv[2], std::strtoull(argv[3], nullptr, 10));
  }
  std::fputs("usage: record_writer write|check DIRECTORY NUMBER\n", stderr);
  return 2;
}
