#include "client/transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <future>

namespace pesc::client {
namespace {

namespace fs = std::filesystem;
using protocol::Blobs;
using protocol::Upload;

capnp::Data::Reader as_data(const std::string& bytes) {
  return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}
capnp::Data::Reader as_data(const Digest& digest) {
  return {digest.bytes.data(), digest.bytes.size()};
}

kj::Promise<Blobs::Client> blobs_of(UserSession& session) {
  return session.blobsRequest().send().getBlobs();
}

class File {
 public:
  static absl::StatusOr<File> open(const fs::path& path) {
    int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      return absl::AbortedError("'" + path.string() +
                                "' cannot be read any more: " + strerror(errno));
    }
    return File(fd);
  }
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }

  // As much as there is, up to max_bytes.
  absl::StatusOr<std::string> read(uint64_t offset, size_t max_bytes) {
    std::string bytes(max_bytes, '\0');
    absl::StatusOr<size_t> have = read(offset, bytes.data(), max_bytes);
    if (!have.ok()) return have.status();
    bytes.resize(*have);
    return bytes;
  }
  absl::StatusOr<size_t> read(uint64_t offset, char* to, size_t max_bytes) {
    size_t have = 0;
    while (have < max_bytes) {
      ssize_t n = pread(fd_, to + have, max_bytes - have, offset + have);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        return absl::AbortedError(std::string("reading a file failed: ") + strerror(errno));
      if (n == 0) break;
      have += n;
    }
    return have;
  }
  // Not one that has grown: that is not what was hashed.
  bool ends_at(uint64_t offset) {
    char more;
    absl::StatusOr<size_t> have = read(offset, &more, 1);
    return have.ok() && *have == 0;
  }

 private:
  explicit File(int fd) : fd_(fd) {}
  int fd_;
};

absl::Status changed(const fs::path& path) {
  return absl::AbortedError("'" + path.string() +
                            "' changed while it was being submitted; nothing was stored, submit "
                            "again when it is complete");
}

absl::Status upload_large(Session& session, const BlobRef& blob, const fs::path& path) {
  absl::StatusOr<File> opened = File::open(path);
  if (!opened.ok()) return opened.status();
  auto file = std::make_shared<File>(*std::move(opened));
  auto vanished = std::make_shared<bool>(false);
  // One promise for the whole upload, so that a broken connection starts it again from the front.
  absl::Status status = session.call_void([&](UserSession& user) {
    struct State {
      explicit State(Upload::Client upload) : upload(kj::mv(upload)) {}
      Upload::Client upload;
      uint64_t next = 0;
    };
    return blobs_of(user)
        .then([&blob](Blobs::Client blobs) {
          auto request = blobs.uploadRequest();
          request.getBlob().setDigest(as_data(blob.digest));
          request.getBlob().setSizeBytes(blob.size_bytes);
          return request.send();
        })
        .then([&, file, vanished](capnp::Response<Blobs::UploadResults> response) {
          auto state = std::make_shared<State>(response.getUpload());
          auto lanes = kj::heapArrayBuilder<kj::Promise<void>>(kWindowChunks);
          for (uint32_t i = 0; i < kWindowChunks; ++i) {
            // Each lane sends its next chunk when its last one was answered: a window, in order.
            auto lane = std::make_shared<std::function<kj::Promise<void>()>>();
            std::weak_ptr<std::function<kj::Promise<void>()>> weak = lane;
            *lane = [&blob, file, vanished, state, weak]() -> kj::Promise<void> {
              if (state->next >= blob.size_bytes || *vanished) return kj::READY_NOW;
              uint64_t offset = state->next;
              size_t size = std::min<uint64_t>(kChunkBytes, blob.size_bytes - offset);
              auto request = state->upload.writeRequest(capnp::MessageSize{size / 8 + 32, 1});
              request.setOffset(offset);
              // Straight into the message: no byte is copied in between.
              capnp::Data::Builder data = request.initData(size);
              absl::StatusOr<size_t> have =
                  file->read(offset, reinterpret_cast<char*>(data.begin()), size);
              bool last = offset + size == blob.size_bytes;
              if (!have.ok() || *have != size || (last && !file->ends_at(blob.size_bytes))) {
                *vanished = true;
                return kj::READY_NOW;
              }
              state->next += size;
              auto self = weak.lock();
              return request.send().ignoreResult().then([self] { return (*self)(); });
            };
            lanes.add((*lane)().attach(kj::heap(lane)));
          }
          return kj::joinPromises(lanes.finish()).then([state, vanished]() -> kj::Promise<void> {
            if (*vanished) return kj::READY_NOW;
            return state->upload.finishRequest().send().ignoreResult();
          });
        });
  });
  if (*vanished || status.code() == absl::StatusCode::kDataLoss) return changed(path);
  return status;
}

absl::StatusOr<std::vector<BlobRef>> missing_of(Session& session,
                                                const std::vector<BlobRef>& blobs) {
  std::vector<BlobRef> missing;
  constexpr size_t kPage = 10'000;
  for (size_t from = 0; from < blobs.size(); from += kPage) {
    size_t count = std::min(kPage, blobs.size() - from);
    auto indices = session.call<std::vector<uint32_t>>([&](UserSession& user) {
      return blobs_of(user)
          .then([&](Blobs::Client client) {
            auto request = client.missingRequest();
            auto list = request.initDigests(count);
            for (size_t i = 0; i < count; ++i) list.set(i, as_data(blobs[from + i].digest));
            return request.send();
          })
          .then([](capnp::Response<Blobs::MissingResults> response) {
            std::vector<uint32_t> indices;
            for (uint32_t index : response.getMissing()) indices.push_back(index);
            return indices;
          });
    });
    if (!indices.ok()) return indices.status();
    for (uint32_t index : *indices) {
      if (index < count) missing.push_back(blobs[from + index]);
    }
  }
  return missing;
}

absl::Status put_small(Session& session, const std::vector<std::string>& bytes) {
  return session.call_void([&](UserSession& user) {
    return blobs_of(user).then([&](Blobs::Client client) {
      auto request = client.putRequest();
      auto list = request.initBlobs(bytes.size());
      for (size_t i = 0; i < bytes.size(); ++i) list.set(i, as_data(bytes[i]));
      return request.send().ignoreResult();
    });
  });
}

}  // namespace

absl::Status upload(Session& session, const std::vector<BlobRef>& blobs,
                    const std::map<Digest, fs::path>& sources) {
  absl::StatusOr<std::vector<BlobRef>> missing = missing_of(session, blobs);
  if (!missing.ok()) return missing.status();
  std::vector<std::string> batch;
  size_t batch_bytes = 0;
  for (const BlobRef& blob : *missing) {
    const fs::path& path = sources.at(blob.digest);
    if (blob.size_bytes > kBatchBytes / 4) {
      absl::Status status = upload_large(session, blob, path);
      if (!status.ok()) return status;
      continue;
    }
    absl::StatusOr<File> file = File::open(path);
    if (!file.ok()) return file.status();
    absl::StatusOr<std::string> bytes = file->read(0, blob.size_bytes + 1);
    if (!bytes.ok()) return bytes.status();
    if (sha256(*bytes) != blob.digest) return changed(path);
    if (batch_bytes + bytes->size() > kBatchBytes) {
      absl::Status status = put_small(session, batch);
      if (!status.ok()) return status;
      batch.clear();
      batch_bytes = 0;
    }
    batch_bytes += bytes->size();
    batch.push_back(*std::move(bytes));
  }
  return batch.empty() ? absl::OkStatus() : put_small(session, batch);
}

blob::ByteSource download(std::shared_ptr<Session> session, BlobRef blob) {
  struct State {
    std::shared_ptr<Session> session;
    BlobRef blob;
    uint64_t asked = 0, got = 0;
    std::deque<std::future<absl::StatusOr<std::string>>> window;
  };
  auto state = std::make_shared<State>();
  state->session = std::move(session);
  state->blob = blob;
  auto ask = [](State& s) {
    uint64_t offset = s.asked;
    uint32_t size = std::min<uint64_t>(kChunkBytes, s.blob.size_bytes - offset);
    s.asked += size;
    auto done = std::make_shared<std::promise<absl::StatusOr<std::string>>>();
    s.window.push_back(done->get_future());
    Session* session = s.session.get();
    Digest digest = s.blob.digest;
    session->thread().loop().post([session, digest, offset, size, done] {
      session->thread().loop().detach(
          session
              ->attempt<std::string>(
                  [digest, offset, size](UserSession& user) {
                    return blobs_of(user)
                        .then([=](Blobs::Client client) {
                          auto request = client.readRequest();
                          request.setDigest(as_data(digest));
                          request.setOffset(offset);
                          request.setMaxBytes(size);
                          return request.send();
                        })
                        .then([](capnp::Response<Blobs::ReadResults> response) {
                          auto data = response.getData();
                          return std::string(reinterpret_cast<const char*>(data.begin()),
                                             data.size());
                        });
                  },
                  kRetryForMs, 100)
              .then([done](std::string&& bytes) { done->set_value(std::move(bytes)); },
                    [done](kj::Exception&& e) { done->set_value(rpc::to_status(e)); }));
    });
  };
  return [state, ask]() -> absl::StatusOr<std::string> {
    while (state->window.size() < kWindowChunks && state->asked < state->blob.size_bytes) {
      ask(*state);
    }
    if (state->window.empty()) return std::string();
    absl::StatusOr<std::string> bytes = state->window.front().get();
    state->window.pop_front();
    if (!bytes.ok()) return bytes.status();
    uint64_t expected = std::min<uint64_t>(kChunkBytes, state->blob.size_bytes - state->got);
    if (bytes->size() != expected) {
      return absl::DataLossError("a blob ended before its stated size: " +
                                 to_hex(state->blob.digest));
    }
    state->got += bytes->size();
    return bytes;
  };
}

absl::StatusOr<std::vector<std::string>> download_small(Session& session,
                                                        const std::vector<BlobRef>& blobs) {
  std::vector<std::string> out;
  while (out.size() < blobs.size()) {
    size_t from = out.size();
    auto got = session.call<std::vector<std::string>>([&](UserSession& user) {
      return blobs_of(user)
          .then([&](Blobs::Client client) {
            auto request = client.readManyRequest();
            auto list = request.initDigests(blobs.size() - from);
            for (size_t i = from; i < blobs.size(); ++i) {
              list.set(i - from, as_data(blobs[i].digest));
            }
            return request.send();
          })
          .then([](capnp::Response<Blobs::ReadManyResults> response) {
            std::vector<std::string> bytes;
            for (auto data : response.getBlobs()) {
              bytes.emplace_back(reinterpret_cast<const char*>(data.begin()), data.size());
            }
            return bytes;
          });
    });
    if (!got.ok()) return got.status();
    if (got->empty()) return absl::InternalError("the coordinator returned no blob");
    for (std::string& bytes : *got) out.push_back(std::move(bytes));
  }
  return out;
}

}  // namespace pesc::client
