// What the threads of another process have run, for the programs that measure it from outside.
#pragma once

#include <sys/types.h>

#include <cctype>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <system_error>

namespace gyre::bench {

// Nanoseconds by thread's name; those of one name, but for a number at its end, together.
using ThreadTimes = std::map<std::string, std::int64_t>;

inline ThreadTimes ReadThreadTimes(pid_t pid) {
  ThreadTimes times;
  std::error_code error;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", error)) {
    std::string name;
    std::int64_t ran = 0;
    if (std::getline(std::ifstream(task.path() / "comm"), name) &&
        std::ifstream(task.path() / "schedstat") >> ran) {
      while (name.size() > 1 && std::isdigit(static_cast<unsigned char>(name.back())) != 0) {
        name.pop_back();
      }
      times[name] += ran;
    }
  }
  return times;
}

// As a JSON object: what has run since `before`.
inline std::string TimesSince(const ThreadTimes& before, const ThreadTimes& after) {
  std::string out;
  for (const auto& [name, ran] : after) {
    const auto earlier = before.find(name);
    out += (out.empty() ? "{\"" : ", \"") + name +
           "\": " + std::to_string(ran - (earlier == before.end() ? 0 : earlier->second));
  }
  return out.empty() ? "{}" : out + "}";
}

}  // namespace gyre::bench
