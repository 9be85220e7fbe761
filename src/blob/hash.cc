#include "blob/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "blob/files.h"

namespace pesc::blob {
namespace {

int64_t nanoseconds(const timespec& time) {
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Fetched once: OpenSSL 3 looks an algorithm up anew on each use of EVP_sha256().
const EVP_MD* sha256_algorithm() {
  static const EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return algorithm;
}

}  // namespace

Hasher::Hasher() : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(context_, sha256_algorithm(), nullptr);
}

Hasher::~Hasher() { EVP_MD_CTX_free(context_); }

void Hasher::update(std::string_view bytes) {
  EVP_DigestUpdate(context_, bytes.data(), bytes.size());
  size_bytes_ += bytes.size();
}

Digest Hasher::finish() {
  Digest digest;
  EVP_DigestFinal_ex(context_, digest.bytes.data(), nullptr);
  return digest;
}

absl::StatusOr<ChangeCheck> ChangeCheck::start(int fd, const std::filesystem::path& path) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return errno_status(errno, "cannot read", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(path.string() +
                                      (S_ISDIR(info.st_mode)
                                           ? " is a directory, not a file"
                                           : " is not a regular file (a device, pipe or socket)"));
  }
  ChangeCheck check;
  check.size_bytes_ = static_cast<uint64_t>(info.st_size);
  check.modified_ns_ = nanoseconds(info.st_mtim);
  check.changed_ns_ = nanoseconds(info.st_ctim);
  return check;
}

absl::Status ChangeCheck::end(int fd, uint64_t read_bytes,
                              const std::filesystem::path& path) const {
  struct stat info;
  if (::fstat(fd, &info) != 0) return errno_status(errno, "cannot read", path);
  if (read_bytes != size_bytes_ || static_cast<uint64_t>(info.st_size) != size_bytes_ ||
      nanoseconds(info.st_mtim) != modified_ns_ || nanoseconds(info.st_ctim) != changed_ns_) {
    return absl::AbortedError("changed while it was being read: " + path.string() +
                              "; try again when nothing writes to it");
  }
  return absl::OkStatus();
}

absl::StatusOr<BlobRef> hash_file(const std::filesystem::path& path,
                                  const std::optional<ChangeCheck>& unchanged) {
  // O_NONBLOCK: a pipe that nobody writes to must be refused, not waited for.
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) return errno_status(errno, "cannot open", path);
  absl::StatusOr<ChangeCheck> check = ChangeCheck::start(fd.get(), path);
  if (!check.ok()) return check.status();
  if (unchanged) check = *unchanged;
  Hasher hasher;
  std::vector<char> buffer(256 * 1024);
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status(errno, "cannot read", path);
    if (n == 0) break;
    hasher.update({buffer.data(), static_cast<size_t>(n)});
    // A file that grows for ever must not keep us for ever.
    if (hasher.size_bytes() > check->size_bytes()) break;
  }
  const uint64_t size_bytes = hasher.size_bytes();
  if (absl::Status same = check->end(fd.get(), size_bytes, path); !same.ok()) return same;
  return BlobRef{hasher.finish(), size_bytes};
}

}  // namespace pesc::blob
