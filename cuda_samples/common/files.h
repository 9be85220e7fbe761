#pragma once

#include <cstddef>
#include <string>

namespace samples {

// A file that appears under its name when it is complete, and is whole or not there at all: a rank
// that dies of a full disk leaves no half of a result. Throws Failure.
class FileWriter {
 public:
  explicit FileWriter(const std::string& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, std::size_t size);
  void write(const std::string& bytes) { write(bytes.data(), bytes.size()); }
  void done();

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_, temporary_;
  int fd_;
};

void write_file(const std::string& path, const std::string& bytes);

// Throws Failure when it cannot be read.
std::string read_file(const std::string& path);

}  // namespace samples
