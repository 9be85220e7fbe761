// Blobs to and from a coordinator, with bounded memory: a window of chunks in flight.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "blob/hash.h"
#include "blob/pack.h"
#include "client/session.h"
#include "model/ids.h"

namespace pesc::client {

inline constexpr uint32_t kChunkBytes = 512 * 1024;
inline constexpr uint32_t kWindowChunks = 8;
// Of an upload: the coordinator's threads are woken for each chunk.
inline constexpr uint32_t kUploadChunkBytes = 1024 * 1024;
inline constexpr uint32_t kUploadChunks = 6;
inline constexpr uint32_t kBatchBytes = 1024 * 1024;  // of Blobs.put and readMany

absl::Status changed_file(const std::filesystem::path& path);

// Uploads those that the coordinator lacks. Aborted: a file is no longer what was hashed.
absl::Status upload(Session& session, const std::vector<BlobRef>& blobs,
                    const std::map<Digest, std::filesystem::path>& sources);

// Sends a large file that nobody has hashed, and returns the name that the coordinator gives it.
// Nothing: it must be hashed, since the coordinator has a blob of that size, or is an older one
// that only takes named ones. Aborted: the file is not what `unchanged` saw.
absl::StatusOr<std::optional<BlobRef>> upload_unnamed(Session& session,
                                                      const std::filesystem::path& path,
                                                      const blob::ChangeCheck& unchanged);

// A source of a blob's bytes, in order, reading ahead. Must not outlive the session.
blob::ByteSource download(std::shared_ptr<Session> session, BlobRef blob);

// Several small blobs (each at most kBatchBytes), in the order given.
absl::StatusOr<std::vector<std::string>> download_small(Session& session,
                                                        const std::vector<BlobRef>& blobs);

}  // namespace pesc::client
