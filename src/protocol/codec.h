// Between the messages of pesc.capnp and the values of src/model. Encoding cannot fail; decoding
// trusts nobody: whatever bytes a peer sends, the result is a value whose enums are in range, whose
// digests have their size and whose lists are within bounds, or InvalidArgument. (Whether a job
// makes sense is validate()'s business.) Thread-safe, no state.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint.h"
#include "model/job_spec.h"
#include "model/outcome.h"
#include "pesc.capnp.h"

namespace pesc::protocol {

// An attempt that its worker is to end, and why.
struct Stop {
  ::pesc::AttemptKey key;
  EndReason reason = EndReason::revoked;
  bool operator==(const Stop&) const = default;
};

void encode(BlobRef::Builder out, const ::pesc::BlobRef& value);
void encode(AttemptKey::Builder out, const ::pesc::AttemptKey& value);
void encode(FileRef::Builder out, const ::pesc::FileRef& value);
void encode(capnp::List<NamedResource>::Builder out, const NamedResources& value);
absl::StatusOr<NamedResources> decode(capnp::List<NamedResource>::Reader in);
inline constexpr size_t kMaxGpus = 1024;  // of a worker
void encode(Gpu::Builder out, const ::pesc::Gpu& value);
absl::StatusOr<::pesc::Gpu> decode(Gpu::Reader in);
absl::StatusOr<std::vector<::pesc::Gpu>> decode(capnp::List<Gpu>::Reader in);
void encode(JobSpec::Builder out, const ::pesc::JobSpec& value);
void encode(Outcome::Builder out, const ::pesc::AttemptOutcome& value);
void encode(StopRequest::Builder out, const Stop& value);
void encode(Checkpoint::Builder out, const CheckpointRef& value);
void encode(CheckpointFile::Builder out, const ::pesc::CheckpointFile& value);
void encode(CheckpointManifest::Builder out, const ::pesc::CheckpointManifest& value);

absl::StatusOr<::pesc::BlobRef> decode(BlobRef::Reader in);
absl::StatusOr<::pesc::AttemptKey> decode(AttemptKey::Reader in);
absl::StatusOr<::pesc::FileRef> decode(FileRef::Reader in);
absl::StatusOr<::pesc::JobSpec> decode(JobSpec::Reader in);
absl::StatusOr<::pesc::AttemptOutcome> decode(Outcome::Reader in);
absl::StatusOr<Stop> decode(StopRequest::Reader in);
absl::StatusOr<CheckpointRef> decode(Checkpoint::Reader in);
absl::StatusOr<::pesc::CheckpointFile> decode(CheckpointFile::Reader in);
// Its paths are safe: relative, normalised, sorted, none below a symlink or a file; targets of
// symlinks may be anything.
absl::StatusOr<::pesc::CheckpointManifest> decode(CheckpointManifest::Reader in);

// Bytes are no text: names, arguments and values need not be UTF-8.
inline capnp::Data::Reader as_data(std::string_view bytes) {
  return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}
inline std::string_view as_view(capnp::Data::Reader bytes) {
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}
inline capnp::Data::Reader as_data(const Digest& digest) {
  return {digest.bytes.data(), digest.bytes.size()};
}
absl::StatusOr<Digest> decode_digest(capnp::Data::Reader bytes);  // 32 bytes, not all zero
absl::StatusOr<EndReason> decode_end_reason(uint8_t value);
absl::StatusOr<RankState> decode_rank_state(uint8_t value);
absl::StatusOr<JobState> decode_job_state(uint8_t value);

// Lists of bytes: arguments, digests.
void encode(capnp::List<capnp::Data>::Builder out, const std::vector<std::string>& values);
void encode(capnp::List<capnp::Data>::Builder out, const std::vector<Digest>& values);
absl::StatusOr<std::vector<std::string>> decode_strings(capnp::List<capnp::Data>::Reader in,
                                                        size_t max_count);
absl::StatusOr<std::vector<Digest>> decode_digests(capnp::List<capnp::Data>::Reader in,
                                                   size_t max_count);

inline constexpr size_t kMaxListCount = 1u << 20;

namespace detail {
// KJ reports malformed messages by throwing; nothing of that leaves the codec.
absl::Status from_current_exception();
absl::Status too_many(size_t count, size_t max_count);
}  // namespace detail

// Lists of the structs above: encode_list(request.initHolding(keys.size()), keys).
template <class Builder, class Value>
requires requires(Builder out, const Value& value) { encode(out[0], value); }
void encode_list(Builder out, const std::vector<Value>& values) {
  for (unsigned i = 0; i < out.size() && i < values.size(); ++i) encode(out[i], values[i]);
}

template <class Reader>
auto decode_list(Reader in, size_t max_count = kMaxListCount)
    -> absl::StatusOr<std::vector<typename decltype(decode(in[0]))::value_type>> {
  std::vector<typename decltype(decode(in[0]))::value_type> values;
  if (in.size() > max_count) return detail::too_many(in.size(), max_count);
  try {
    values.reserve(in.size());
    for (auto element : in) {
      auto value = decode(element);
      if (!value.ok()) return value.status();
      values.push_back(*std::move(value));
    }
  } catch (...) {
    return detail::from_current_exception();
  }
  return values;
}

// Canonical bytes: equal values have equal bytes, on every machine. For the journal.
std::string serialize_spec(const ::pesc::JobSpec& spec);
absl::StatusOr<::pesc::JobSpec> parse_spec(std::string_view bytes);
std::string serialize_outcome(const ::pesc::AttemptOutcome& outcome);
absl::StatusOr<::pesc::AttemptOutcome> parse_outcome(std::string_view bytes);
std::string serialize_manifest(const ::pesc::CheckpointManifest& manifest);
absl::StatusOr<::pesc::CheckpointManifest> parse_manifest(std::string_view bytes);

// What each side sends first: "PESC", then its version, big-endian.
inline constexpr size_t kPreambleBytes = 8;
using Preamble = std::array<uint8_t, kPreambleBytes>;
Preamble make_preamble(uint32_t version = PROTOCOL_VERSION);
// The peer's version; InvalidArgument when it does not speak PESC at all.
absl::StatusOr<uint32_t> parse_preamble(std::span<const uint8_t, kPreambleBytes> bytes);
// OK when the peer speaks our version; FailedPrecondition, with both versions, when it does not.
absl::Status check_preamble(std::span<const uint8_t, kPreambleBytes> bytes);

}  // namespace pesc::protocol
