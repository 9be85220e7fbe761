#include "client/transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <future>
#include <optional>
#include <utility>

#include "protocol/codec.h"

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
  int fd() const { return fd_; }
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

// A large file on its way: a window of chunks, in order.
struct Sending {
  fs::path path;
  uint64_t size_bytes = 0;
  std::optional<BlobRef> name;                 // nothing: the coordinator gives it
  std::optional<blob::ChangeCheck> unchanged;  // where it has no name that would tell
  File file;
  bool vanished = false;  // it is not what it was

  // Whether the last byte read was the last one of what was to be sent.
  bool is_whole() {
    if (!file.ends_at(size_bytes)) return false;
    return !unchanged || unchanged->end(file.fd(), size_bytes, path).ok();
  }
};

using Sent = std::optional<BlobRef>;  // nothing: it must have a name before it is sent

// One attempt. `upload`: for this file.
kj::Promise<Sent> send_chunks(std::shared_ptr<Sending> sending, Upload::Client upload) {
  struct State {
    explicit State(Upload::Client upload) : upload(kj::mv(upload)) {}
    Upload::Client upload;
    uint64_t next = 0;
  };
  auto state = std::make_shared<State>(kj::mv(upload));
  auto lanes = kj::heapArrayBuilder<kj::Promise<void>>(kUploadChunks);
  for (uint32_t i = 0; i < kUploadChunks; ++i) {
    // Each lane sends its next chunk when its last one was answered: a window, in order.
    auto lane = std::make_shared<std::function<kj::Promise<void>()>>();
    std::weak_ptr<std::function<kj::Promise<void>()>> weak = lane;
    *lane = [sending, state, weak]() -> kj::Promise<void> {
      if (state->next >= sending->size_bytes || sending->vanished) return kj::READY_NOW;
      uint64_t offset = state->next;
      size_t size = std::min<uint64_t>(kUploadChunkBytes, sending->size_bytes - offset);
      auto request = state->upload.writeRequest(capnp::MessageSize{size / 8 + 32, 1});
      request.setOffset(offset);
      // Straight into the message: no byte is copied in between.
      capnp::Data::Builder data = request.initData(size);
      absl::StatusOr<size_t> have =
          sending->file.read(offset, reinterpret_cast<char*>(data.begin()), size);
      bool last = offset + size == sending->size_bytes;
      if (!have.ok() || *have != size || (last && !sending->is_whole())) {
        sending->vanished = true;
        return kj::READY_NOW;
      }
      state->next += size;
      auto self = weak.lock();
      return request.send().ignoreResult().then([self] { return (*self)(); });
    };
    lanes.add((*lane)().attach(kj::heap(lane)));
  }
  return kj::joinPromises(lanes.finish()).then([sending, state]() -> kj::Promise<Sent> {
    if (sending->vanished) return Sent();
    return state->upload.finishRequest().send().then(
        [sending](capnp::Response<Upload::FinishResults> response) -> Sent {
          // An older coordinator says nothing of the name that it was told.
          if (sending->name) return sending->name;
          absl::StatusOr<BlobRef> blob = protocol::decode(response.getBlob());
          rpc::throw_if_error(blob.status());
          if (blob->empty() || blob->size_bytes != sending->size_bytes) {
            rpc::throw_if_error(absl::InternalError("the coordinator has named another blob"));
          }
          return *blob;
        });
  });
}

absl::StatusOr<Sent> send_large(Session& session, std::shared_ptr<Sending> sending) {
  // One promise for the whole upload, so that a broken connection starts it again from the front.
  absl::StatusOr<Sent> sent = session.call<Sent>([sending](UserSession& user) {
    return blobs_of(user).then([sending](Blobs::Client blobs) -> kj::Promise<Sent> {
      if (sending->name) {
        auto request = blobs.uploadRequest();
        protocol::encode(request.initBlob(), *sending->name);
        return request.send().then([sending](capnp::Response<Blobs::UploadResults> response) {
          return send_chunks(sending, response.getUpload());
        });
      }
      auto request = blobs.beginRequest();
      request.setSizeBytes(sending->size_bytes);
      return request.send().then(
          [sending](capnp::Response<Blobs::BeginResults> response) -> kj::Promise<Sent> {
            if (!response.hasUpload()) return Sent();
            return send_chunks(sending, response.getUpload());
          },
          [](kj::Exception&& e) -> kj::Promise<Sent> {
            if (e.getType() == kj::Exception::Type::UNIMPLEMENTED) return Sent();
            return kj::mv(e);
          });
    });
  });
  if (sending->vanished || sent.status().code() == absl::StatusCode::kDataLoss) {
    return changed_file(sending->path);
  }
  return sent;
}

absl::StatusOr<std::shared_ptr<Sending>> open_sending(const fs::path& path, uint64_t size_bytes) {
  absl::StatusOr<File> opened = File::open(path);
  if (!opened.ok()) return opened.status();
  return std::make_shared<Sending>(
      Sending{path, size_bytes, std::nullopt, std::nullopt, *std::move(opened)});
}

absl::Status upload_large(Session& session, const BlobRef& blob, const fs::path& path) {
  absl::StatusOr<std::shared_ptr<Sending>> sending = open_sending(path, blob.size_bytes);
  if (!sending.ok()) return sending.status();
  (*sending)->name = blob;
  return send_large(session, *sending).status();
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

absl::Status changed_file(const fs::path& path) {
  return absl::AbortedError("'" + path.string() +
                            "' changed while it was being submitted; nothing was stored, submit "
                            "again when it is complete");
}

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
    if (sha256(*bytes) != blob.digest) return changed_file(path);
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

absl::StatusOr<std::optional<BlobRef>> upload_unnamed(Session& session, const fs::path& path,
                                                      const blob::ChangeCheck& unchanged) {
  absl::StatusOr<std::shared_ptr<Sending>> sending = open_sending(path, unchanged.size_bytes());
  if (!sending.ok()) return sending.status();
  (*sending)->unchanged = unchanged;
  return send_large(session, *sending);
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
