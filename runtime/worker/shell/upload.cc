#include "runtime/worker/shell/upload.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <memory>
#include <utility>

#include "blob/files.h"
#include "protocol/codec.h"
#include "runtime/worker/shell/async.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kChunkBytes = 512 * 1024;
constexpr size_t kWindow = 8;

class Uploading {
 public:
  Uploading(rpc::Loop& loop, protocol::Upload::Client upload, BlobRef blob, std::string path,
            int fd, uint64_t file_offset)
      : loop_(loop),
        upload_(kj::mv(upload)),
        blob_(blob),
        path_(std::move(path)),
        file_offset_(file_offset),
        file_(std::make_shared<blob::Fd>(fd)) {}

  kj::Promise<void> run() {
    if (offset_ < blob_.size_bytes && writes_.size() < kWindow) return read_and_send();
    if (writes_.empty()) return upload_.finishRequest().send().ignoreResult();
    kj::Promise<void> first = kj::mv(writes_.front());
    writes_.pop_front();
    return first.then([this] { return run(); });
  }

 private:
  kj::Promise<void> read_and_send() {
    return blocking(loop_,
                    [file = file_, offset = file_offset_ + offset_, path = path_,
                     size = std::min(kChunkBytes, blob_.size_bytes - offset_)] {
                      return blob::pread_up_to(file->get(), offset, size, path);
                    })
        .then([this](absl::StatusOr<std::string> bytes) {
          rpc::throw_if_error(bytes.status());
          if (bytes->empty()) {
            rpc::throw_if_error(absl::DataLossError(path_ + " is shorter than it was"));
          }
          auto request = upload_.writeRequest();
          request.setOffset(offset_);
          request.setData(protocol::as_data(*bytes));
          writes_.push_back(request.send().ignoreResult());
          offset_ += bytes->size();
          return run();
        });
  }

  rpc::Loop& loop_;
  protocol::Upload::Client upload_;
  const BlobRef blob_;
  const std::string path_;
  const uint64_t file_offset_;
  std::shared_ptr<blob::Fd> file_;
  uint64_t offset_ = 0;
  std::deque<kj::Promise<void>> writes_;
};

}  // namespace

kj::Promise<void> upload_piece(rpc::Loop& loop, protocol::Blobs::Client blobs, BlobRef blob,
                               std::string path, uint64_t offset) {
  // A checkpoint's file is its program's too, which may have a lease on it: this thread cannot
  // wait.
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return rpc::to_exception(blob::errno_status(errno, "cannot open", path));
  auto begin = blobs.uploadRequest();
  protocol::encode(begin.initBlob(), blob);
  auto uploading =
      kj::heap<Uploading>(loop, begin.send().getUpload(), blob, std::move(path), fd, offset);
  kj::Promise<void> done = uploading->run();
  return done.attach(kj::mv(uploading));
}

kj::Promise<void> upload_file(rpc::Loop& loop, protocol::Blobs::Client blobs, BlobRef blob,
                              std::string path) {
  auto request = blobs.missingRequest();
  request.initDigests(1).set(0, protocol::as_data(blob.digest));
  return request.send().then(
      [&loop, blobs, blob, path = std::move(path)](auto&& response) mutable -> kj::Promise<void> {
        if (response.getMissing().size() == 0) return kj::READY_NOW;
        return upload_piece(loop, blobs, blob, std::move(path), 0);
      });
}

}  // namespace pesc::worker
