// Blobs to and from a coordinator, with bounded memory: a window of chunks in flight.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "blob/pack.h"
#include "client/session.h"
#include "model/ids.h"

namespace pesc::client {

inline constexpr uint32_t kChunkBytes = 512 * 1024;
inline constexpr uint32_t kWindowChunks = 8;
inline constexpr uint32_t kBatchBytes = 1024 * 1024;  // of Blobs.put and readMany

// Uploads those that the coordinator lacks. Aborted: a file is no longer what was hashed.
absl::Status upload(Session& session, const std::vector<BlobRef>& blobs,
                    const std::map<Digest, std::filesystem::path>& sources);

// A source of a blob's bytes, in order, reading ahead. Must not outlive the session.
blob::ByteSource download(std::shared_ptr<Session> session, BlobRef blob);

// Several small blobs (each at most kBatchBytes), in the order given.
absl::StatusOr<std::vector<std::string>> download_small(Session& session,
                                                        const std::vector<BlobRef>& blobs);

}  // namespace pesc::client
