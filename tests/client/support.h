// Programs for the ranks of a test, in a directory of its own.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>

#include "pesc/pesc.h"

namespace pesc {

class Directory {
 public:
  Directory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pesc-client-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

  std::string script(const std::string& name, const std::string& lines) const {
    std::filesystem::path path = path_ / name;
    std::ofstream(path) << "#!/bin/sh\n" << lines << "\n";
    chmod(path.c_str(), 0755);
    return path.string();
  }
  std::string fifo(const std::string& name) const {
    std::filesystem::path path = path_ / name;
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    return path.string();
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Blocks until a rank has written a line into the FIFO.
inline std::string read_line(const std::string& fifo) {
  std::ifstream in(fifo);
  std::string line;
  std::getline(in, line);
  return line;
}

inline Job job_of(const std::string& program, uint32_t repetitions = 1) {
  Job job;
  job.program = program;
  job.repetitions = repetitions;
  job.inject = Inject::env;
  job.grace = std::chrono::milliseconds(500);
  return job;
}

// One thread sets it, another waits for it.
class Flag {
 public:
  void set() {
    std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// The embedded cluster, whatever the machine's configuration names.
class Embedded : public ::testing::Test {
 protected:
  Embedded() {
    setenv("XDG_CONFIG_HOME", (directory_ / "config").c_str(), 1);
    setenv("XDG_STATE_HOME", (directory_ / "state").c_str(), 1);
    unsetenv("PESC_COORDINATOR");
    unsetenv("PESC_JOIN_FILE");
  }
  Client local(const LocalOptions& options = {}) {
    absl::StatusOr<Client> client = Client::local(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  Directory directory_;
};

}  // namespace pesc
