// A tree of files that looks like a machine's /proc, /run and /dev.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <utmp.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

namespace pesc::worker::owner {

class FakeMachine {
 public:
  FakeMachine() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pesc-owner-XXXXXX").string();
    root = ::mkdtemp(pattern.data());
    for (const char* directory :
         {"proc", "run/systemd/sessions", "dev/pts", "dev/input", "var/run"}) {
      std::filesystem::create_directories(root / directory);
    }
    cpu(0, 1'000);
    put("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 800 kB\n");
    put("run/utmp", "");
  }
  ~FakeMachine() { std::filesystem::remove_all(root); }
  FakeMachine(const FakeMachine&) = delete;
  FakeMachine& operator=(const FakeMachine&) = delete;

  void put(const std::string& path, const std::string& bytes) {
    std::ofstream(root / path, std::ios::binary) << bytes;
  }
  void cpu(uint64_t busy, uint64_t idle) {
    put("proc/stat", "cpu  " + std::to_string(busy) + " 0 0 " + std::to_string(idle) +
                         " 0 0 0 0 0 0\ncpu0 1 2 3 4\n");
  }
  // In place, as login does it.
  void log_in(const std::string& user, const std::string& line, int64_t since_s, int pid = 0,
              short type = USER_PROCESS) {
    std::ofstream(root / "run/utmp", std::ios::binary | std::ios::app)
        << entry(user, line, since_s, pid, type);
  }
  static std::string entry(const std::string& user, const std::string& line, int64_t since_s,
                           int pid, short type) {
    utmp login{};
    login.ut_type = type;
    login.ut_pid = pid;
    std::memcpy(login.ut_user, user.data(), std::min(user.size(), sizeof login.ut_user));
    std::memcpy(login.ut_line, line.data(), std::min(line.size(), sizeof login.ut_line));
    login.ut_tv.tv_sec = static_cast<int32_t>(since_s);
    return std::string(reinterpret_cast<const char*>(&login), sizeof login);
  }
  // A terminal (or an input device) that was read last at that time.
  void device(const std::string& path, int64_t read_s) {
    put("dev/" + path, "keys");
    const timespec times[2] = {{read_s, 0}, {read_s, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, (root / "dev" / path).c_str(), times, 0), 0);
  }
  // As logind does it: made beside, and moved.
  void session(const std::string& id, const std::string& text) {
    put("run/systemd/." + id, text);
    std::filesystem::rename(root / "run/systemd" / ("." + id), root / "run/systemd/sessions" / id);
  }

  std::filesystem::path root;
};

}  // namespace pesc::worker::owner
