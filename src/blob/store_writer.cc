// The store: blobs that arrive in pieces. They stay in memory while they are small enough to be
// packed, and go on in a file of their own in tmp/ when they are not.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "blob/hash_beside.h"
#include "blob/store_impl.h"

namespace pesc::blob {

namespace {

class FilePrefix final : public Store::Prefix {
 public:
  FilePrefix(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  absl::StatusOr<std::string> read(uint64_t offset, uint64_t max_bytes) const override {
    return pread_up_to(fd_.get(), offset, max_bytes, path_);
  }

 private:
  const Fd fd_;
  const std::filesystem::path path_;
};

}  // namespace

// Named in the store's class as its friend.
class StoreWriter final : public Store::Writer {
 public:
  StoreWriter(StoreImpl& store, std::optional<BlobRef> expected)
      : store_(store), expected_(expected) {}

  ~StoreWriter() override {
    if (!name_.empty()) ::unlink(store_.temporary_path(name_).c_str());
  }

  absl::Status append(std::string_view bytes) override {
    if (!status_.ok()) return status_;
    return status_ = do_append(bytes);
  }

  absl::StatusOr<BlobRef> finish() override {
    if (!status_.ok()) return status_;
    status_ = absl::FailedPreconditionError("this blob was finished already");
    const uint64_t size_bytes = hasher_.size_bytes();
    const BlobRef blob{hasher_.finish(), size_bytes};
    if (expected_ && blob != *expected_) {
      return absl::DataLossError("blob " + to_hex(expected_->digest) + " of " +
                                 std::to_string(expected_->size_bytes) + " bytes arrived as " +
                                 to_hex(blob.digest) + " of " + std::to_string(size_bytes) +
                                 " bytes; send it again");
    }
    if (!fd_) return store_.put_hashed(blob.digest, buffer_);
    fd_ = Fd();
    if (absl::Status adopted = store_.adopt_large(blob, name_); !adopted.ok()) return adopted;
    name_.clear();
    return blob;
  }

  uint64_t written_bytes() const override { return hasher_.size_bytes(); }

  std::shared_ptr<const Store::Prefix> prefix() override {
    if (!fd_) return nullptr;
    if (prefix_) return prefix_;
    const int fd = ::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return nullptr;
    return prefix_ = std::make_shared<FilePrefix>(fd, store_.temporary_path(name_));
  }

 private:
  // How much may be dirty before the disk is set to work: without it the sync() of a large blob is
  // one long wait for all of it.
  static constexpr uint64_t kWritebackBytes = 8 << 20;

  absl::Status do_append(std::string_view bytes) {
    if (expected_ && hasher_.size_bytes() + bytes.size() > expected_->size_bytes) {
      return absl::DataLossError("blob " + to_hex(expected_->digest) + " is longer than the " +
                                 std::to_string(expected_->size_bytes) +
                                 " bytes it was said to be");
    }
    // Until this returns the bytes are there; whatever it returns, they have been hashed.
    hasher_.start(bytes);
    absl::Status status = write(bytes);
    hasher_.join();
    return status;
  }

  absl::Status write(std::string_view bytes) {
    if (!fd_ && hasher_.size_bytes() < store_.options_.pack_below_bytes) {
      buffer_ += bytes;
      return absl::OkStatus();
    }
    if (!fd_) {
      if (absl::Status opened = open_file(); !opened.ok()) return opened;
    }
    const std::filesystem::path path = store_.temporary_path(name_);
    if (absl::Status written = write_all(fd_.get(), bytes, path); !written.ok()) return written;
    const uint64_t dirty = hasher_.size_bytes() - written_back_;
    if (store_.options_.durable && dirty >= kWritebackBytes) {
      ::sync_file_range(fd_.get(), static_cast<off_t>(written_back_), static_cast<off_t>(dirty),
                        SYNC_FILE_RANGE_WRITE);
      written_back_ += dirty;
    }
    return absl::OkStatus();
  }

  absl::Status open_file() {
    const std::string name = store_.new_temporary_name();
    const std::filesystem::path path = store_.temporary_path(name);
    fd_ = Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd_) return errno_status(errno, "cannot make", path);
    name_ = name;
    absl::Status written = write_all(fd_.get(), buffer_, path);
    std::string().swap(buffer_);
    return written;
  }

  StoreImpl& store_;
  const std::optional<BlobRef> expected_;
  HashBeside hasher_;
  std::string buffer_;
  Fd fd_;
  std::shared_ptr<const Store::Prefix> prefix_;
  std::string name_;  // in tmp/, while it is ours
  uint64_t written_back_ = 0;
  absl::Status status_;
};

absl::StatusOr<std::unique_ptr<Store::Writer>> StoreImpl::begin(std::optional<BlobRef> expected) {
  return std::unique_ptr<Writer>(std::make_unique<StoreWriter>(*this, expected));
}

absl::StatusOr<BlobRef> StoreImpl::put_file(const std::filesystem::path& path) {
  Fd from(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!from) return errno_status(errno, "cannot open", path);
  absl::StatusOr<ChangeCheck> check = ChangeCheck::start(from.get(), path);
  if (!check.ok()) return check.status();
  StoreWriter writer(*this, std::nullopt);
  constexpr uint64_t kPiece = 1 << 20;
  while (writer.written_bytes() <= check->size_bytes()) {
    absl::StatusOr<std::string> bytes =
        pread_up_to(from.get(), writer.written_bytes(), kPiece, path);
    if (!bytes.ok()) return bytes.status();
    if (bytes->empty()) break;
    if (absl::Status appended = writer.append(*bytes); !appended.ok()) return appended;
  }
  if (absl::Status same = check->end(from.get(), writer.written_bytes(), path); !same.ok()) {
    return same;
  }
  return writer.finish();
}

}  // namespace pesc::blob
