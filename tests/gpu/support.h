// What the GPU tests share: a driver in a file, readings made by hand, a probe that is told what
// to say.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/worker/gpu/gpu_table.h"
#include "runtime/worker/gpu/nvml_probe.h"

namespace pesc::worker {

inline constexpr uint64_t kMiB = 1ull << 20, kGiB = 1ull << 30;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pesc-gpu-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
    ::chmod(path_.c_str(), 0711);
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The driver that tests/fake_nvml/script.h describes. A process has one at a time.
class FakeDriver {
 public:
  explicit FakeDriver(const std::string& script = "") {
    say(script);
    ::setenv("PESC_FAKE_NVML", path().c_str(), 1);
  }
  ~FakeDriver() { ::unsetenv("PESC_FAKE_NVML"); }
  // Whole, for a reader at any moment.
  void say(const std::string& script) {
    const std::string next = path() + ".new";
    std::ofstream(next) << script;
    std::filesystem::rename(next, path());
  }
  std::string path() const { return (directory_.path() / "driver").string(); }
  std::filesystem::path directory() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
};

// Processes that exist only here: each with its parent.
struct Processes {
  std::map<uint32_t, uint32_t> parents;
  ParentOf parent_of() const {
    return [this](uint32_t pid) -> std::optional<uint32_t> {
      auto at = parents.find(pid);
      if (at == parents.end()) return std::nullopt;
      return at->second;
    };
  }
};

inline GpuReading gpu_reading(const std::string& uuid, uint64_t total_bytes = 12 * kGiB,
                              uint64_t used_bytes = 0, std::vector<ProcessReading> processes = {}) {
  GpuReading reading;
  reading.uuid = uuid;
  reading.name = "NVIDIA RTX 3060";
  reading.major = 8;
  reading.minor = 6;
  reading.memory = reading.memory_after = MemoryReading{total_bytes, used_bytes};
  reading.processes = std::move(processes);
  return reading;
}

inline DriverReading driver_reading(std::vector<GpuReading> gpus) {
  return {"535.129.03", std::move(gpus), {}, {}};
}

inline AttemptKey attempt_key(uint32_t rank) { return {JobId{1}, rank, 1}; }

// Says what it was told, one answer per reading, the last one again and again.
class FakeProbe final : public GpuProbe {
 public:
  struct Script {
    std::mutex mutex;
    std::condition_variable changed;
    absl::StatusOr<DriverReading> answer = absl::NotFoundError("no driver");
    bool hangs = false;
    std::atomic<uint32_t> readings = 0, full_readings = 0;

    void say(absl::StatusOr<DriverReading> next) {
      std::lock_guard lock(mutex);
      answer = std::move(next);
    }
    void hang(bool does) {
      std::lock_guard lock(mutex);
      hangs = does;
      changed.notify_all();
    }
  };
  explicit FakeProbe(std::shared_ptr<Script> script) : script_(std::move(script)) {}
  absl::StatusOr<DriverReading> read(bool full) override {
    std::unique_lock lock(script_->mutex);
    ++script_->readings;
    if (full) ++script_->full_readings;
    script_->changed.wait(lock, [this] { return !script_->hangs; });
    return script_->answer;
  }

 private:
  std::shared_ptr<Script> script_;
};

}  // namespace pesc::worker
