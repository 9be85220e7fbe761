#include "common/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/failure.h"

namespace samples {

FileWriter::FileWriter(const std::string& path)
    : path_(path),
      temporary_(path + ".tmp"),
      fd_(open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ < 0) fail("created");
}

FileWriter::~FileWriter() {
  if (fd_ < 0) return;
  (void)close(fd_);
  (void)unlink(temporary_.c_str());
}

void FileWriter::write(const void* data, std::size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd_, at, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("written");
    at += written;
    size -= static_cast<std::size_t>(written);
  }
}

void FileWriter::done() {
  if (fsync(fd_) != 0) fail("written");
  const int fd = fd_;
  fd_ = -1;
  if (close(fd) != 0 || rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    (void)unlink(temporary_.c_str());
    errno = error;
    fail("written");
  }
}

void FileWriter::fail(const char* what) const {
  const int error = errno;
  throw Failure(
      kFailed,
      path_ + " cannot be " + what + ": " + std::strerror(error) +
          (error == ENOSPC || error == EDQUOT ? "; free some space there, or write less" : ""));
}

void write_file(const std::string& path, const std::string& bytes) {
  FileWriter file(path);
  file.write(bytes);
  file.done();
}

std::string read_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::string out;
  char buffer[65536];
  ssize_t got = fd < 0 ? -1 : 1;
  while (fd >= 0 && got != 0) {
    got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) break;
    out.append(buffer, static_cast<std::size_t>(got));
  }
  const int error = errno;
  if (fd >= 0) (void)close(fd);
  if (got < 0) throw Failure(kFailed, path + " cannot be read: " + std::strerror(error));
  return out;
}

}  // namespace samples
