// What the worker's tests share: a temporary directory, a blob by its bytes.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "model/ids.h"
#include "runtime/worker/shell/attempt_dirs.h"

namespace pesc::worker {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "pesc-test-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { (void)remove_tree(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline bool is_root() { return ::geteuid() == 0; }

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline BlobRef blob_of(const std::string& bytes) { return {sha256(bytes), bytes.size()}; }

inline AttemptKey key_of(uint32_t rank, uint32_t attempt = 1) {
  return {JobId{(uint64_t{77} << 32) + 5}, rank, attempt};
}

}  // namespace pesc::worker
