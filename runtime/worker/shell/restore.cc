#include "runtime/worker/shell/restore.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "blob/files.h"
#include "protocol/codec.h"
#include "runtime/common/state_dir.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/snapshot.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kWindowBytes = 32 << 20;
constexpr size_t kWindowChunks = 256;
constexpr uint64_t kMaxManifestBytes = 256 << 20;
constexpr size_t kBlockBytes = 64 << 10;  // zeros are left out in such blocks

timespec time_of(int64_t unix_ms) {
  timespec time{};
  time.tv_sec = unix_ms / 1'000;
  time.tv_nsec = (unix_ms % 1'000) * 1'000'000;
  if (time.tv_nsec < 0) {
    time.tv_nsec += 1'000'000'000;
    --time.tv_sec;
  }
  return time;
}

bool is_zeros(const BlobRef& blob) {
  return blob.size_bytes == kCheckpointChunkBytes && blob == zero_chunk();
}

bool is_zeros(std::string_view bytes) {
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

// The last chunk that has to be written.
std::optional<size_t> last_written(const CheckpointFile& file) {
  for (size_t i = file.chunks.size(); i > 0; --i) {
    if (!is_zeros(file.chunks[i - 1])) return i - 1;
  }
  return std::nullopt;
}

// Nobody else is in the directory while it is written: it is closed to the ranks' user.
class Writer {
 public:
  explicit Writer(const RestoreOrder& order) : order_(order) {}

  absl::Status make(const CheckpointFile& file) const {
    const std::string target = path_of(file);
    switch (file.kind) {
      case CheckpointFileKind::directory:
        if (::mkdir(target.c_str(), 0700) != 0) {
          return common::errno_status(errno, "make the directory", target);
        }
        return absl::OkStatus();
      case CheckpointFileKind::symlink:
        if (::symlink(file.target.c_str(), target.c_str()) != 0) {
          return common::errno_status(errno, "link", target);
        }
        return order_.dirs->give(target);
      case CheckpointFileKind::file: {
        blob::Fd fd(::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        if (!fd) return common::errno_status(errno, "make", target);
        off_t size = 0;
        for (const BlobRef& chunk : file.chunks) size += static_cast<off_t>(chunk.size_bytes);
        // What is not written is a hole, as it may have been in the file that was saved.
        if (size > 0 && ::ftruncate(fd.get(), size) != 0) {
          return common::errno_status(errno, "write", target);
        }
        return last_written(file) ? absl::OkStatus() : finish(file);
      }
    }
    return absl::OkStatus();
  }

  absl::Status write(const CheckpointFile& file, size_t chunk, bool last) const {
    const std::string target = path_of(file);
    const BlobRef& blob = file.chunks[chunk];
    auto bytes = order_.cache->store().read(blob.digest, 0, blob.size_bytes);
    if (!bytes.ok()) return bytes.status();
    if (bytes->size() != blob.size_bytes) return absl::DataLossError("a chunk is too short");
    blob::Fd fd(::open(target.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return common::errno_status(errno, "write", target);
    absl::Status written =
        write_data(fd.get(), *bytes, static_cast<off_t>(chunk * kCheckpointChunkBytes), target);
    return written.ok() && last ? finish(file) : written;
  }

  // Last: what is in a directory may have to be written although it is read-only.
  absl::Status finish(const CheckpointFile& file) const {
    const std::string target = path_of(file);
    if (file.kind == CheckpointFileKind::symlink) return absl::OkStatus();
    const timespec times[2] = {time_of(file.modified_unix_ms), time_of(file.modified_unix_ms)};
    if (::chmod(target.c_str(), file.mode & 0777) != 0 ||
        (file.kind == CheckpointFileKind::file &&
         ::utimensat(AT_FDCWD, target.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)) {
      return common::errno_status(errno, "set up", target);
    }
    return order_.dirs->give(target);
  }

 private:
  // All but the blocks of zeros.
  static absl::Status write_data(int fd, std::string_view bytes, off_t offset,
                                 const std::string& target) {
    for (size_t at = 0; at < bytes.size();) {
      size_t end = at;
      while (end < bytes.size() && !is_zeros(bytes.substr(end, kBlockBytes))) end += kBlockBytes;
      end = std::min(end, bytes.size());
      if (end > at) {
        const off_t begin = offset + static_cast<off_t>(at);
        if (::lseek(fd, begin, SEEK_SET) != begin) {
          return common::errno_status(errno, "write", target);
        }
        absl::Status written = blob::write_all(fd, bytes.substr(at, end - at), target);
        if (!written.ok()) return written;
      }
      at = end + kBlockBytes;  // the one that stopped it
    }
    return absl::OkStatus();
  }

  std::string path_of(const CheckpointFile& file) const {
    return order_.paths.checkpoint + "/" + file.path;
  }
  const RestoreOrder& order_;
};

class Restoring {
 public:
  Restoring(rpc::Loop& loop, Fetcher& fetcher, RestoreOrder order)
      : loop_(loop),
        fetcher_(fetcher),
        order_(std::make_shared<RestoreOrder>(std::move(order))),
        manifest_(std::make_shared<CheckpointManifest>()) {}
  ~Restoring() { order_->cache->unpin(pinned_); }

  kj::Promise<void> run() {
    const BlobRef blob = order_->checkpoint.manifest;
    if (blob.size_bytes > kMaxManifestBytes) {
      return rpc::to_exception(absl::InvalidArgumentError("the manifest is too large"));
    }
    pin({blob});
    return fetcher_.ensure(pinned_)
        .then([this, blob] {
          return blocking(loop_, [order = order_, manifest = manifest_, blob]() -> absl::Status {
            auto bytes = order->cache->store().read(blob.digest, 0, blob.size_bytes);
            if (!bytes.ok()) return bytes.status();
            auto parsed = protocol::parse_manifest(*bytes);
            if (!parsed.ok()) return parsed.status();
            *manifest = *std::move(parsed);
            absl::Status checked = check_restorable(*manifest, blob.size_bytes);
            return checked.ok() ? make_all(*order, *manifest) : checked;
          });
        })
        .then([this](absl::Status status) {
          rpc::throw_if_error(status);
          return next_window();
        });
  }

 private:
  static absl::Status make_all(const RestoreOrder& order, const CheckpointManifest& manifest) {
    const Writer writer(order);
    for (const CheckpointFile& file : manifest.files) {
      absl::Status made = writer.make(file);
      if (!made.ok()) return made;
    }
    return absl::OkStatus();
  }

  void pin(std::vector<BlobRef> blobs) {
    order_->cache->pin(blobs);
    order_->cache->unpin(std::exchange(pinned_, std::move(blobs)));
  }

  struct Chunk {
    size_t file = 0, chunk = 0;
    bool last = false;  // of its file
  };

  kj::Promise<void> next_window() {
    if (!order_->wanted()) return rpc::to_exception(absl::CancelledError("not wanted any more"));
    std::vector<Chunk> window;
    std::set<BlobRef> blobs;
    for (uint64_t bytes = 0; file_ < manifest_->files.size();) {
      const std::vector<BlobRef>& chunks = manifest_->files[file_].chunks;
      if (chunk_ == 0) last_ = last_written(manifest_->files[file_]);
      if (!last_ || chunk_ > *last_) {
        ++file_;
        chunk_ = 0;
        continue;
      }
      if (is_zeros(chunks[chunk_])) {
        ++chunk_;
        continue;
      }
      if (bytes >= kWindowBytes || window.size() >= kWindowChunks) break;
      bytes += chunks[chunk_].size_bytes;
      blobs.insert(chunks[chunk_]);
      window.push_back({file_, chunk_, chunk_ == *last_});
      ++chunk_;
    }
    if (window.empty()) return finish_directories();
    pin({blobs.begin(), blobs.end()});
    return fetcher_.ensure(pinned_)
        .then([this, window = std::move(window)]() mutable {
          return blocking(
              loop_,
              [order = order_, manifest = manifest_, window = std::move(window)]() -> absl::Status {
                const Writer writer(*order);
                for (const auto& [file, chunk, last] : window) {
                  absl::Status written = writer.write(manifest->files[file], chunk, last);
                  if (!written.ok()) return written;
                }
                return absl::OkStatus();
              });
        })
        .then([this](absl::Status status) {
          rpc::throw_if_error(status);
          return next_window();
        });
  }

  kj::Promise<void> finish_directories() {
    return blocking(loop_,
                    [order = order_, manifest = manifest_]() -> absl::Status {
                      const Writer writer(*order);
                      for (auto it = manifest->files.rbegin(); it != manifest->files.rend(); ++it) {
                        if (it->kind != CheckpointFileKind::directory) continue;
                        absl::Status done = writer.finish(*it);
                        if (!done.ok()) return done;
                      }
                      return absl::OkStatus();
                    })
        .then([](absl::Status status) { rpc::throw_if_error(status); });
  }

  rpc::Loop& loop_;
  Fetcher& fetcher_;
  std::shared_ptr<RestoreOrder> order_;
  std::shared_ptr<CheckpointManifest> manifest_;
  std::vector<BlobRef> pinned_;
  size_t file_ = 0, chunk_ = 0;
  std::optional<size_t> last_;  // of this file's chunks, the last to be written
};

}  // namespace

absl::Status check_restorable(const CheckpointManifest& manifest, uint64_t manifest_bytes) {
  if (manifest_bytes > kMaxManifestBytes) {
    return absl::InvalidArgumentError("the manifest is too large: use fewer files");
  }
  size_t chunks = 0;
  for (const CheckpointFile& file : manifest.files) {
    chunks += file.chunks.size();
    for (size_t i = 0; i < file.chunks.size(); ++i) {
      const uint64_t size = file.chunks[i].size_bytes;
      const bool last = i + 1 == file.chunks.size();
      if (size > kCheckpointChunkBytes || (!last && size != kCheckpointChunkBytes)) {
        return absl::InvalidArgumentError("the manifest has a chunk of a wrong size");
      }
    }
  }
  if (manifest.files.size() > kMaxCheckpointFiles || chunks > kMaxCheckpointChunks) {
    return absl::InvalidArgumentError("the manifest names more than a checkpoint may have");
  }
  return absl::OkStatus();
}

kj::Promise<void> restore_checkpoint(rpc::Loop& loop, Fetcher& fetcher, RestoreOrder order) {
  auto restoring = kj::heap<Restoring>(loop, fetcher, std::move(order));
  kj::Promise<void> done = restoring->run();
  return done.attach(kj::mv(restoring));
}

}  // namespace pesc::worker
