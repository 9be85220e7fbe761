#include "protocol/codec.h"

#include <capnp/message.h>
#include <kj/exception.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace pesc::protocol {
namespace {

constexpr size_t kMaxDetailBytes = 64 * 1024;
constexpr size_t kMaxUncollected = 20;
constexpr size_t kMaxPatterns = 10'000;

absl::Status malformed(std::string_view what) {
  return absl::InvalidArgumentError("malformed message: " + std::string(what) +
                                    ": use the same version of PESC on both sides");
}

std::string to_string(capnp::Data::Reader bytes) { return std::string(as_view(bytes)); }

// Runs `decoder`, which reads from a message that may be malformed.
template <class Decoder>
auto guarded(Decoder&& decoder) -> decltype(decoder()) {
  try {
    return decoder();
  } catch (...) {
    return detail::from_current_exception();
  }
}

// Assigns the value of a StatusOr, or keeps the first error.
template <class Target, class Source>
void take(absl::Status& status, Target& target, absl::StatusOr<Source> source) {
  if (!source.ok()) {
    status.Update(source.status());
  } else {
    target = *std::move(source);
  }
}

template <class Enum>
absl::StatusOr<Enum> in_range(uint8_t value, Enum last, std::string_view what) {
  if (value <= static_cast<uint8_t>(last)) return static_cast<Enum>(value);
  return malformed(std::string(what) + " " + std::to_string(value) + " is unknown");
}

// Equal values, equal bytes: one segment in Cap'n Proto's canonical form, without a header.
template <class Message, class Value>
std::string serialize(const Value& value) {
  capnp::MallocMessageBuilder message;
  encode(message.initRoot<Message>(), value);
  const kj::Array<capnp::word> words = capnp::canonicalize(message.getRoot<Message>().asReader());
  const kj::ArrayPtr<const kj::byte> bytes = words.asBytes();
  return {reinterpret_cast<const char*>(bytes.begin()), bytes.size()};
}

template <class Message>
auto parse(std::string_view bytes) -> decltype(decode(typename Message::Reader())) {
  if (bytes.empty() || bytes.size() % sizeof(capnp::word) != 0) {
    return malformed("its length is not a number of words");
  }
  return guarded([bytes]() -> decltype(decode(typename Message::Reader())) {
    // A database's buffers are not aligned to words.
    const size_t count = bytes.size() / sizeof(capnp::word);
    kj::Array<capnp::word> words = kj::heapArray<capnp::word>(count);
    std::memcpy(words.begin(), bytes.data(), bytes.size());
    const kj::ArrayPtr<const capnp::word> segment = words;
    capnp::ReaderOptions limits;
    // What was stored must be readable whatever its size; each part is read a few times at most.
    limits.traversalLimitInWords = 1024 + 4 * count;
    capnp::SegmentArrayMessageReader message(kj::arrayPtr(&segment, 1), limits);
    return decode(message.getRoot<Message>());
  });
}

}  // namespace

namespace detail {

absl::Status from_current_exception() {
  try {
    throw;
  } catch (const kj::Exception& exception) {
    return malformed(exception.getDescription().cStr());
  } catch (const std::exception& exception) {
    return malformed(exception.what());
  } catch (...) {
    return malformed("it cannot be read");
  }
}

absl::Status too_many(size_t count, size_t max_count) {
  return malformed("a list of " + std::to_string(count) + ", at most " + std::to_string(max_count) +
                   " are possible");
}

}  // namespace detail

// ---- parts
// ---------------------------------------------------------------------------------------

absl::StatusOr<EndReason> decode_end_reason(uint8_t value) {
  return in_range(value, kLastEndReason, "end reason");
}

absl::StatusOr<RankState> decode_rank_state(uint8_t value) {
  return in_range(value, RankState::cancelled, "rank state");
}

absl::StatusOr<JobState> decode_job_state(uint8_t value) {
  return in_range(value, JobState::cancelled, "job state");
}

absl::StatusOr<Digest> decode_digest(capnp::Data::Reader bytes) {
  Digest digest;
  if (bytes.size() != digest.bytes.size()) {
    return malformed("a digest of " + std::to_string(bytes.size()) + " bytes instead of 32");
  }
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  if (digest.is_zero()) return malformed("a digest of zeros");
  return digest;
}

void encode(capnp::List<capnp::Data>::Builder out, const std::vector<std::string>& values) {
  for (unsigned i = 0; i < out.size() && i < values.size(); ++i) out.set(i, as_data(values[i]));
}

void encode(capnp::List<capnp::Data>::Builder out, const std::vector<Digest>& values) {
  for (unsigned i = 0; i < out.size() && i < values.size(); ++i) out.set(i, as_data(values[i]));
}

absl::StatusOr<std::vector<std::string>> decode_strings(capnp::List<capnp::Data>::Reader in,
                                                        size_t max_count) {
  if (in.size() > max_count) return detail::too_many(in.size(), max_count);
  return guarded([in]() -> absl::StatusOr<std::vector<std::string>> {
    std::vector<std::string> values;
    values.reserve(in.size());
    for (capnp::Data::Reader value : in) values.push_back(to_string(value));
    return values;
  });
}

absl::StatusOr<std::vector<Digest>> decode_digests(capnp::List<capnp::Data>::Reader in,
                                                   size_t max_count) {
  if (in.size() > max_count) return detail::too_many(in.size(), max_count);
  return guarded([in]() -> absl::StatusOr<std::vector<Digest>> {
    std::vector<Digest> values;
    values.reserve(in.size());
    for (capnp::Data::Reader bytes : in) {
      absl::StatusOr<Digest> digest = decode_digest(bytes);
      if (!digest.ok()) return digest.status();
      values.push_back(*digest);
    }
    return values;
  });
}

// ---- values
// --------------------------------------------------------------------------------------

void encode(BlobRef::Builder out, const ::pesc::BlobRef& value) {
  out.setSizeBytes(value.size_bytes);
  if (!value.digest.is_zero()) out.setDigest(as_data(value.digest));
}

absl::StatusOr<::pesc::BlobRef> decode(BlobRef::Reader in) {
  return guarded([in]() -> absl::StatusOr<::pesc::BlobRef> {
    ::pesc::BlobRef value;
    value.size_bytes = in.getSizeBytes();
    const capnp::Data::Reader digest = in.getDigest();
    if (digest.size() == 0) {
      if (value.size_bytes != 0) return malformed("a blob with a size and no digest");
      return value;
    }
    absl::Status status;
    take(status, value.digest, decode_digest(digest));
    if (!status.ok()) return status;
    return value;
  });
}

void encode(AttemptKey::Builder out, const ::pesc::AttemptKey& value) {
  out.setJob(value.job.value);
  out.setRank(value.rank);
  out.setAttempt(value.attempt);
}

absl::StatusOr<::pesc::AttemptKey> decode(AttemptKey::Reader in) {
  return guarded([in]() -> absl::StatusOr<::pesc::AttemptKey> {
    const ::pesc::AttemptKey key{JobId{in.getJob()}, in.getRank(), in.getAttempt()};
    if (key.rank >= kMaxRepetitions) return malformed("a rank beyond every job");
    if (key.attempt == 0) return malformed("attempt 0: they are numbered from 1");
    return key;
  });
}

void encode(FileRef::Builder out, const ::pesc::FileRef& value) {
  out.setPath(as_data(value.path));
  out.setKind(static_cast<uint8_t>(value.kind));
  out.setMode(value.mode);
  if (value.blob != ::pesc::BlobRef{}) encode(out.initBlob(), value.blob);
}

absl::StatusOr<::pesc::FileRef> decode(FileRef::Reader in) {
  return guarded([in]() -> absl::StatusOr<::pesc::FileRef> {
    ::pesc::FileRef value;
    value.path = to_string(in.getPath());
    value.mode = in.getMode();
    absl::Status status;
    take(status, value.kind, in_range(in.getKind(), FileKind::directory, "kind of file"));
    take(status, value.blob, decode(in.getBlob()));
    if (!status.ok()) return status;
    return value;
  });
}

void encode(JobSpec::Builder out, const ::pesc::JobSpec& value) {
  out.setName(as_data(value.name));
  out.setProgram(as_data(value.program));
  encode(out.initArguments(value.arguments.size()), value.arguments);
  out.setRepetitions(value.repetitions);
  encode(out.initParameters(value.parameters.size()), value.parameters);
  encode_list(out.initFiles(value.files.size()), value.files);
  encode(out.initCollect(value.collect.size()), value.collect);
  out.setInject(static_cast<uint8_t>(value.inject));
  auto environment = out.initEnvironment(value.environment.size());
  for (unsigned i = 0; i < environment.size(); ++i) {
    environment[i].setName(as_data(value.environment[i].first));
    environment[i].setValue(as_data(value.environment[i].second));
  }
  out.setCpusMilli(value.resources.cpus_milli);
  out.setMemoryBytes(value.resources.memory_bytes);
  out.setRetries(value.retries);
  out.setTimeLimitMs(value.time_limit_ms);
  out.setGraceMs(value.grace_ms);
  out.setOutputLimitBytes(value.output_limit_bytes);
  out.setRoom(as_data(value.room));
  out.setSeed(value.seed);
  out.setParallel(value.parallel);
  out.setSameWorker(value.same_worker);
  out.setMaxFailures(value.max_failures);
  out.setJobTimeLimitMs(value.job_time_limit_ms);
  out.setCheckpointEveryMs(value.checkpoint_every_ms);
  out.setSecondAttempts(value.second_attempts);
  out.setPriority(value.priority);
  out.setDiskBytes(value.resources.disk_bytes);
  out.setGpusMilli(value.resources.gpus_milli);
  out.setGpuMemoryBytes(value.resources.gpu_memory_bytes);
  out.setGpuExclusive(value.resources.gpu_exclusive);
  out.setMinComputeCapability(value.resources.min_compute_capability);
  if (!value.resources.named.empty()) {
    encode(out.initNamed(value.resources.named.size()), value.resources.named);
  }
  if (!value.build.empty()) out.setBuild(as_data(value.build));
  out.setBuildTimeLimitMs(value.build_time_limit_ms);
}

void encode(capnp::List<NamedResource>::Builder out, const NamedResources& value) {
  for (unsigned i = 0; i < out.size(); ++i) {
    out[i].setName(value[i].first);
    out[i].setMilli(value[i].second);
  }
}

absl::StatusOr<NamedResources> decode(capnp::List<NamedResource>::Reader in) {
  return guarded([in]() -> absl::StatusOr<NamedResources> {
    if (in.size() > kMaxNamedResources) return detail::too_many(in.size(), kMaxNamedResources);
    NamedResources value;
    for (const auto one : in) {
      const std::string name = one.getName().cStr();
      if (!is_resource_name(name) || (!value.empty() && value.back().first >= name) ||
          one.getMilli() > kMaxNamedMilli) {
        return malformed("named resources that are not sorted names with amounts");
      }
      value.emplace_back(name, one.getMilli());
    }
    return value;
  });
}

void encode(Gpu::Builder out, const ::pesc::Gpu& value) {
  out.setUuid(value.uuid);
  out.setName(value.name);
  out.setDriver(value.driver);
  out.setComputeCapability(value.compute_capability);
  out.setMemoryBytes(value.memory_bytes);
  out.setTakenBytes(value.taken_bytes);
  out.setReportsMemory(value.reports_memory);
  out.setTrouble(value.trouble);
  out.setRanksBytes(value.ranks_bytes);
}

absl::StatusOr<::pesc::Gpu> decode(Gpu::Reader in) {
  return guarded([in]() -> absl::StatusOr<::pesc::Gpu> {
    ::pesc::Gpu value;
    value.uuid = in.getUuid().cStr();
    value.name = in.getName().cStr();
    value.driver = in.getDriver().cStr();
    value.compute_capability = in.getComputeCapability();
    value.memory_bytes = in.getMemoryBytes();
    value.taken_bytes = in.getTakenBytes();
    value.reports_memory = in.getReportsMemory();
    value.trouble = in.getTrouble().cStr();
    value.ranks_bytes = in.getRanksBytes();
    if (value.uuid.empty()) return malformed("a GPU without a UUID");
    return value;
  });
}

absl::StatusOr<std::vector<::pesc::Gpu>> decode(capnp::List<Gpu>::Reader in) {
  return guarded([in]() -> absl::StatusOr<std::vector<::pesc::Gpu>> {
    if (in.size() > kMaxGpus) return detail::too_many(in.size(), kMaxGpus);
    std::vector<::pesc::Gpu> value;
    for (const auto one : in) {
      absl::StatusOr<::pesc::Gpu> gpu = decode(one);
      if (!gpu.ok()) return gpu.status();
      value.push_back(std::move(*gpu));
    }
    return value;
  });
}

namespace {

absl::Status decode_environment(JobSpec::Reader in, ::pesc::JobSpec& value) {
  const auto variables = in.getEnvironment();
  if (variables.size() > kMaxArguments) {
    return detail::too_many(variables.size(), kMaxArguments);
  }
  value.environment.reserve(variables.size());
  for (const auto variable : variables) {
    value.environment.emplace_back(to_string(variable.getName()), to_string(variable.getValue()));
  }
  return absl::OkStatus();
}

absl::StatusOr<::pesc::JobSpec> decode_spec(JobSpec::Reader in) {
  ::pesc::JobSpec value;
  absl::Status status;
  value.name = to_string(in.getName());
  value.program = to_string(in.getProgram());
  take(status, value.arguments, decode_strings(in.getArguments(), kMaxArguments));
  value.repetitions = in.getRepetitions();
  take(status, value.parameters, decode_strings(in.getParameters(), kMaxArguments));
  take(status, value.files, decode_list(in.getFiles(), kMaxFiles));
  take(status, value.collect, decode_strings(in.getCollect(), kMaxPatterns));
  take(status, value.inject, in_range(in.getInject(), Inject::none, "inject"));
  status.Update(decode_environment(in, value));
  value.resources.cpus_milli = in.getCpusMilli();
  value.resources.memory_bytes = in.getMemoryBytes();
  value.resources.disk_bytes = in.getDiskBytes();
  value.resources.gpus_milli = in.getGpusMilli();
  value.resources.gpu_memory_bytes = in.getGpuMemoryBytes();
  value.resources.gpu_exclusive = in.getGpuExclusive();
  value.resources.min_compute_capability = in.getMinComputeCapability();
  take(status, value.resources.named, decode(in.getNamed()));
  value.priority = in.getPriority();
  value.retries = in.getRetries();
  value.time_limit_ms = in.getTimeLimitMs();
  value.grace_ms = in.getGraceMs();
  value.output_limit_bytes = in.getOutputLimitBytes();
  value.room = to_string(in.getRoom());
  value.seed = in.getSeed();
  value.parallel = in.getParallel();
  value.same_worker = in.getSameWorker();
  value.max_failures = in.getMaxFailures();
  value.job_time_limit_ms = in.getJobTimeLimitMs();
  value.checkpoint_every_ms = in.getCheckpointEveryMs();
  value.second_attempts = in.getSecondAttempts();
  value.build = to_string(in.getBuild());
  value.build_time_limit_ms = in.getBuildTimeLimitMs();
  if (!status.ok()) return status;
  return value;
}

absl::StatusOr<::pesc::AttemptOutcome> decode_outcome(Outcome::Reader in) {
  ::pesc::AttemptOutcome value;
  absl::Status status;
  take(status, value.reason, decode_end_reason(in.getReason()));
  value.exit_code = in.getExitCode();
  value.signal = in.getSignal();
  value.refused_arguments = in.getRefusedArguments();
  value.detail = to_string(in.getDetail());
  if (value.detail.size() > kMaxDetailBytes) return malformed("a detail of more than 64 KiB");
  value.started_unix_ms = in.getStartedUnixMs();
  value.duration_ms = in.getDurationMs();
  value.saved_ms = in.getSavedMs();
  value.cpu_ms = in.getCpuMs();
  value.max_rss_bytes = in.getMaxRssBytes();
  value.written_bytes = in.getWrittenBytes();
  value.peak_gpu_bytes = in.getPeakGpuBytes();
  take(status, value.output, decode(in.getOutput()));
  take(status, value.uncollected, decode_strings(in.getUncollected(), kMaxUncollected));
  if (!status.ok()) return status;
  return value;
}

}  // namespace

absl::StatusOr<::pesc::JobSpec> decode(JobSpec::Reader in) {
  return guarded([in] { return decode_spec(in); });
}

void encode(Outcome::Builder out, const ::pesc::AttemptOutcome& value) {
  out.setReason(static_cast<uint8_t>(value.reason));
  out.setExitCode(value.exit_code);
  out.setSignal(value.signal);
  out.setRefusedArguments(value.refused_arguments);
  // What the other side would refuse is not worth a lost result.
  out.setDetail(as_data(std::string_view(value.detail).substr(0, kMaxDetailBytes)));
  out.setStartedUnixMs(value.started_unix_ms);
  out.setDurationMs(value.duration_ms);
  out.setSavedMs(value.saved_ms);
  out.setCpuMs(value.cpu_ms);
  out.setMaxRssBytes(value.max_rss_bytes);
  out.setWrittenBytes(value.written_bytes);
  out.setPeakGpuBytes(value.peak_gpu_bytes);
  if (value.output != ::pesc::BlobRef{}) encode(out.initOutput(), value.output);
  if (value.uncollected.empty()) return;
  encode(out.initUncollected(std::min(value.uncollected.size(), kMaxUncollected)),
         value.uncollected);
}

absl::StatusOr<::pesc::AttemptOutcome> decode(Outcome::Reader in) {
  return guarded([in] { return decode_outcome(in); });
}

void encode(StopRequest::Builder out, const Stop& value) {
  encode(out.initKey(), value.key);
  out.setReason(static_cast<uint8_t>(value.reason));
}

absl::StatusOr<Stop> decode(StopRequest::Reader in) {
  return guarded([in]() -> absl::StatusOr<Stop> {
    Stop value;
    absl::Status status;
    take(status, value.key, decode(in.getKey()));
    take(status, value.reason, decode_end_reason(in.getReason()));
    if (!status.ok()) return status;
    return value;
  });
}

void encode(Checkpoint::Builder out, const CheckpointRef& value) {
  out.setNumber(value.number);
  if (!value.manifest.empty()) encode(out.initManifest(), value.manifest);
}

absl::StatusOr<CheckpointRef> decode(Checkpoint::Reader in) {
  return guarded([in]() -> absl::StatusOr<CheckpointRef> {
    CheckpointRef value;
    value.number = in.getNumber();
    absl::Status status;
    take(status, value.manifest, decode(in.getManifest()));
    if (!status.ok()) return status;
    if ((value.number == 0) != value.manifest.empty()) {
      return malformed("a checkpoint without a number or without a manifest");
    }
    return value;
  });
}

void encode(CheckpointFile::Builder out, const ::pesc::CheckpointFile& value) {
  out.setPath(as_data(value.path));
  out.setKind(static_cast<uint8_t>(value.kind));
  out.setMode(value.mode);
  out.setModifiedUnixMs(value.modified_unix_ms);
  if (!value.target.empty()) out.setTarget(as_data(value.target));
  if (!value.chunks.empty()) encode_list(out.initChunks(value.chunks.size()), value.chunks);
}

absl::StatusOr<::pesc::CheckpointFile> decode(CheckpointFile::Reader in) {
  return guarded([in]() -> absl::StatusOr<::pesc::CheckpointFile> {
    ::pesc::CheckpointFile value;
    absl::Status status;
    take(status, value.path, normalise_relative_path(as_view(in.getPath())));
    take(status, value.kind,
         in_range(in.getKind(), CheckpointFileKind::symlink, "kind of checkpoint file"));
    value.mode = in.getMode() & 0777;
    value.modified_unix_ms = in.getModifiedUnixMs();
    value.target = to_string(in.getTarget());
    take(status, value.chunks, decode_list(in.getChunks(), kMaxCheckpointChunks));
    if (!status.ok()) return status;
    if (value.target.find('\0') != std::string::npos) return malformed("a target with a NUL");
    if (value.target.empty() == (value.kind == CheckpointFileKind::symlink)) {
      return malformed("a symlink without a target, or a target of something else");
    }
    if (!value.chunks.empty() && value.kind != CheckpointFileKind::file) {
      return malformed("something with bytes that is no file");
    }
    return value;
  });
}

void encode(CheckpointManifest::Builder out, const ::pesc::CheckpointManifest& value) {
  encode_list(out.initFiles(value.files.size()), value.files);
}

namespace {

// Whoever restores it writes below its checkpoint_dir and nowhere else.
absl::Status check_manifest(const ::pesc::CheckpointManifest& manifest) {
  std::set<std::string_view> directories;
  std::string_view before;
  for (const ::pesc::CheckpointFile& file : manifest.files) {
    if (!before.empty() && file.path <= before) return malformed("a manifest that is not sorted");
    before = file.path;
    const size_t slash = file.path.rfind('/');
    if (slash != std::string::npos &&
        !directories.contains(std::string_view(file.path).substr(0, slash))) {
      return malformed("a checkpoint's file outside its directories");
    }
    if (file.kind == CheckpointFileKind::directory) directories.insert(file.path);
    for (size_t i = 0; i < file.chunks.size(); ++i) {
      const uint64_t size = file.chunks[i].size_bytes;
      const bool last = i + 1 == file.chunks.size();
      if (size == 0 || size > kCheckpointChunkBytes || (!last && size < kCheckpointChunkBytes)) {
        return malformed("a checkpoint's chunk of a wrong size");
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<::pesc::CheckpointManifest> decode(CheckpointManifest::Reader in) {
  return guarded([in]() -> absl::StatusOr<::pesc::CheckpointManifest> {
    ::pesc::CheckpointManifest value;
    absl::Status status;
    take(status, value.files, decode_list(in.getFiles(), kMaxCheckpointFiles));
    status.Update(check_manifest(value));
    if (!status.ok()) return status;
    return value;
  });
}

// ---- bytes
// ---------------------------------------------------------------------------------------

std::string serialize_spec(const ::pesc::JobSpec& spec) { return serialize<JobSpec>(spec); }
absl::StatusOr<::pesc::JobSpec> parse_spec(std::string_view bytes) { return parse<JobSpec>(bytes); }

std::string serialize_outcome(const ::pesc::AttemptOutcome& outcome) {
  return serialize<Outcome>(outcome);
}
absl::StatusOr<::pesc::AttemptOutcome> parse_outcome(std::string_view bytes) {
  return parse<Outcome>(bytes);
}

std::string serialize_manifest(const ::pesc::CheckpointManifest& manifest) {
  return serialize<CheckpointManifest>(manifest);
}
absl::StatusOr<::pesc::CheckpointManifest> parse_manifest(std::string_view bytes) {
  return parse<CheckpointManifest>(bytes);
}

Preamble make_preamble(uint32_t version) {
  return {'P',
          'E',
          'S',
          'C',
          static_cast<uint8_t>(version >> 24),
          static_cast<uint8_t>(version >> 16),
          static_cast<uint8_t>(version >> 8),
          static_cast<uint8_t>(version)};
}

absl::StatusOr<uint32_t> parse_preamble(std::span<const uint8_t, kPreambleBytes> bytes) {
  if (std::memcmp(bytes.data(), "PESC", 4) != 0) {
    return absl::InvalidArgumentError(
        "the peer does not speak PESC: check the address and the port");
  }
  return uint32_t{bytes[4]} << 24 | uint32_t{bytes[5]} << 16 | uint32_t{bytes[6]} << 8 | bytes[7];
}

absl::Status check_preamble(std::span<const uint8_t, kPreambleBytes> bytes) {
  const absl::StatusOr<uint32_t> version = parse_preamble(bytes);
  if (!version.ok()) return version.status();
  if (*version == PROTOCOL_VERSION) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the peer speaks version " + std::to_string(*version) + " of PESC's protocol, this side " +
      std::to_string(PROTOCOL_VERSION) + ": install the same version of PESC on both sides");
}

}  // namespace pesc::protocol
