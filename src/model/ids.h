// Identifiers: plain values with a total order, usable as keys and printable.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace pesc {

// A job's id: minted by the client before it submits, which makes a resend harmless. Printed as 13
// lower-case Crockford base32 digits; the high 32 bits are the seconds since 2020, so that ids of
// one coordinator sort by time, the low 32 are random.
struct JobId {
  uint64_t value = 0;
  auto operator<=>(const JobId&) const = default;
};
std::string to_string(JobId id);
absl::StatusOr<JobId> parse_job_id(std::string_view text);

// A worker's id: 64 random bits, minted at its first start and kept in its state directory.
struct WorkerId {
  uint64_t value = 0;
  auto operator<=>(const WorkerId&) const = default;
};
std::string to_string(WorkerId id);  // 16 hex digits

// One try at one rank of one job. Attempts are numbered from 1; a revoked number is never accepted
// again.
struct AttemptKey {
  JobId job;
  uint32_t rank = 0;
  uint32_t attempt = 0;
  auto operator<=>(const AttemptKey&) const = default;
};
std::string to_string(const AttemptKey& key);  // "JOB/rank 7/attempt 2"

// The SHA-256 of a blob's bytes.
struct Digest {
  std::array<uint8_t, 32> bytes{};
  auto operator<=>(const Digest&) const = default;
  bool is_zero() const;
};
std::string to_hex(const Digest& digest);
absl::StatusOr<Digest> digest_from_hex(std::string_view hex);
Digest sha256(std::string_view bytes);

// A blob by name and size. size 0 with a zero digest means "none".
struct BlobRef {
  Digest digest;
  uint64_t size_bytes = 0;
  auto operator<=>(const BlobRef&) const = default;
  bool empty() const { return digest.is_zero(); }
};

}  // namespace pesc
