#include "protocol/codec.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>

namespace pesc::protocol {
namespace {

using ::testing::HasSubstr;

::pesc::JobSpec full_spec() {
  ::pesc::JobSpec spec;
  spec.name = "sweep \xff";
  spec.program = "./sim";
  spec.arguments = {"--a", "", "with\nbreak", std::string("nul\0byte", 8)};
  spec.repetitions = 100'000'000;
  spec.parameters = {"0.05", ""};
  spec.files = {{"sim", FileKind::file, {sha256("sim"), 3}, 0755},
                {"data/x\xfe", FileKind::shared_file, {sha256(""), 0}, 0400},
                {"t.tar", FileKind::archive, {sha256("t"), UINT64_MAX}, 0644},
                {"empty", FileKind::directory, {}, 0700}};
  spec.collect = {"**/*.csv"};
  spec.inject = Inject::none;
  spec.environment = {{"A", "1"}, {"B", ""}};
  spec.resources = {1500,       1ull << 40, 1ull << 41, 2000,
                    1ull << 33, true,       806,        {{"licence", 500}, {"microscope", 1000}}};
  spec.priority = -7;
  spec.retries = 3;
  spec.time_limit_ms = UINT64_MAX;
  spec.grace_ms = 0;
  spec.output_limit_bytes = 7;
  spec.room = "lab";
  spec.seed = UINT64_MAX;
  spec.parallel = true;
  spec.same_worker = true;
  spec.max_failures = kNoMaxFailures;
  spec.job_time_limit_ms = UINT64_MAX;
  spec.checkpoint_every_ms = 60'000;
  spec.second_attempts = false;
  spec.build = "make -C \xff";
  spec.build_time_limit_ms = UINT64_MAX;
  return spec;
}

::pesc::AttemptOutcome full_outcome() {
  ::pesc::AttemptOutcome outcome;
  outcome.reason = EndReason::revoked;
  outcome.exit_code = -1;
  outcome.signal = 9;
  outcome.refused_arguments = true;
  outcome.detail = "unrecognized option \xff";
  outcome.started_unix_ms = -5;
  outcome.duration_ms = 1;
  outcome.saved_ms = UINT64_MAX;
  outcome.cpu_ms = 2;
  outcome.max_rss_bytes = UINT64_MAX;
  outcome.written_bytes = UINT64_MAX - 1;
  outcome.peak_gpu_bytes = UINT64_MAX - 2;
  outcome.output = {sha256("out"), 1234};
  outcome.uncollected = {"a", "b\n"};
  return outcome;
}

::pesc::CheckpointManifest full_manifest() {
  const ::pesc::BlobRef whole = {sha256("whole"), kCheckpointChunkBytes};
  ::pesc::CheckpointManifest manifest;
  manifest.files = {
      {"a", CheckpointFileKind::directory, 0750, -1, "", {}},
      {"a/empty", CheckpointFileKind::file, 0600, 0, "", {}},
      {"a/\xff", CheckpointFileKind::file, 0755, INT64_MAX, "", {whole, whole, {sha256("x"), 1}}},
      {"latest", CheckpointFileKind::symlink, 0777, 5, "../out/of/here", {}}};
  return manifest;
}

// Through real bytes, as a peer would send them.
template <class Message, class Value>
auto round_trip(const Value& value) {
  capnp::MallocMessageBuilder builder;
  encode(builder.initRoot<Message>(), value);
  const auto words = capnp::messageToFlatArray(builder);
  capnp::FlatArrayMessageReader reader(words);
  return decode(reader.getRoot<Message>());
}

TEST(Codec, RoundTripsEveryField) {
  EXPECT_EQ(round_trip<JobSpec>(full_spec()).value(), full_spec());
  EXPECT_EQ(round_trip<JobSpec>(::pesc::JobSpec()).value(), ::pesc::JobSpec());
  EXPECT_EQ(round_trip<Outcome>(full_outcome()).value(), full_outcome());
  EXPECT_EQ(round_trip<Outcome>(::pesc::AttemptOutcome()).value(), ::pesc::AttemptOutcome());
  const ::pesc::JobSpec spec = full_spec();
  for (const ::pesc::FileRef& file : spec.files) {
    EXPECT_EQ(round_trip<FileRef>(file).value(), file);
  }
  const ::pesc::AttemptKey key{JobId{UINT64_MAX}, 99'999'999, UINT32_MAX};
  EXPECT_EQ(round_trip<AttemptKey>(key).value(), key);
  const Stop stop{key, EndReason::cancelled};
  EXPECT_EQ(round_trip<StopRequest>(stop).value(), stop);
  EXPECT_EQ(round_trip<BlobRef>(::pesc::BlobRef()).value(), ::pesc::BlobRef());
  for (const CheckpointRef& ref : {CheckpointRef{}, CheckpointRef{7, {sha256("m"), 99}}}) {
    EXPECT_EQ(round_trip<Checkpoint>(ref).value(), ref);
  }
  EXPECT_EQ(round_trip<CheckpointManifest>(full_manifest()).value(), full_manifest());
}

TEST(Codec, Gpus) {
  ::pesc::Gpu gpu;
  gpu.uuid = "GPU-1";
  gpu.ranks_bytes = 7;
  EXPECT_EQ(round_trip<Gpu>(gpu).value(), gpu);
  gpu = {"GPU-2", "A name", "535.1", 806, 1ull << 34, 1ull << 30, true, "hot"};
  EXPECT_EQ(round_trip<Gpu>(gpu).value(), gpu);
  EXPECT_FALSE(round_trip<Gpu>(::pesc::Gpu()).ok()) << "nobody could be given it";
}

TEST(Codec, NamedResourcesAreSortedNames) {
  for (const NamedResources& bad :
       {NamedResources{{"b", 1}, {"a", 1}}, NamedResources{{"a", 1}, {"a", 1}},
        NamedResources{{"a b", 1}}, NamedResources{{"", 1}},
        NamedResources{{"a", kMaxNamedMilli + 1}}}) {
    ::pesc::JobSpec spec = full_spec();
    spec.resources.named = bad;
    EXPECT_FALSE(round_trip<JobSpec>(spec).ok());
  }
}

// Names and numbers of the reasons are in journals and in other people's scripts.
TEST(Codec, EveryReasonHasItsNumber) {
  const char* names[] = {
      "succeeded",        "exit_code",         "signal",        "cannot_start",
      "time_limit",       "output_limit",      "out_of_memory", "inputs_unavailable",
      "disk_full",        "vacated",           "worker_lost",   "cancelled",
      "revoked",          "port_taken",        "worker_faulty", "bad_checkpoint",
      "outgrew_estimate", "gpu_out_of_memory", "gpu_fault",     "build_failed",
      "gpu_memory_limit", "disk_limit"};
  ASSERT_EQ(std::size(names), static_cast<size_t>(kLastEndReason) + 1);
  for (uint8_t i = 0; i < std::size(names); ++i) {
    EXPECT_EQ(to_string(decode_end_reason(i).value()), names[i]);
  }
}

TEST(Codec, ACheckpointHasANumberAndAManifestOrNeither) {
  EXPECT_FALSE(round_trip<Checkpoint>(CheckpointRef{1, {}}).ok());
  EXPECT_FALSE(round_trip<Checkpoint>(CheckpointRef{0, {sha256("m"), 1}}).ok());
}

// Whoever restores a checkpoint writes where the manifest says.
TEST(Codec, AManifestStaysWithinItsDirectory) {
  const auto refused = [](const std::function<void(::pesc::CheckpointManifest&)>& spoil) {
    ::pesc::CheckpointManifest manifest = full_manifest();
    spoil(manifest);
    return !round_trip<CheckpointManifest>(manifest).ok();
  };
  for (const char* path : {"", "/etc/passwd", "..", "a/../../x", "a/./../b", "z/nothing/above"}) {
    EXPECT_TRUE(refused([&](auto& m) { m.files[3].path = path; })) << path;
  }
  EXPECT_TRUE(refused([](auto& m) { m.files[1].path = std::string("a/\0b", 4); })) << "a NUL";
  EXPECT_TRUE(refused([](auto& m) { m.files[3].target = std::string("x\0y", 3); })) << "a NUL";
  EXPECT_TRUE(refused([](auto& m) { std::swap(m.files[0], m.files[1]); })) << "not sorted";
  EXPECT_TRUE(refused([](auto& m) { m.files[3] = m.files[0]; })) << "twice";
  EXPECT_TRUE(refused([](auto& m) {
    m.files[0] = {"a", CheckpointFileKind::symlink, 0777, 0, "/etc", {}};
  })) << "below a symlink";
  EXPECT_TRUE(refused([](auto& m) { m.files[0].kind = CheckpointFileKind::file; }))
      << "below a file";
  EXPECT_TRUE(refused([](auto& m) { m.files[2].chunks[0].size_bytes -= 1; })) << "a short chunk";
  EXPECT_TRUE(refused([](auto& m) { m.files[2].chunks[2] = {}; })) << "an empty chunk";
  EXPECT_TRUE(refused([](auto& m) { m.files[2].chunks[2].size_bytes = kCheckpointChunkBytes + 1; }))
      << "a long chunk";
  EXPECT_TRUE(refused([](auto& m) { m.files[0].chunks = m.files[2].chunks; }))
      << "a directory with bytes";
  EXPECT_TRUE(refused([](auto& m) { m.files[3].target.clear(); })) << "a symlink to nowhere";
  EXPECT_FALSE(refused([](auto&) {}));
}

TEST(Codec, Lists) {
  const std::vector<::pesc::AttemptKey> keys = {{JobId{1}, 0, 1}, {JobId{2}, 7, 3}};
  capnp::MallocMessageBuilder builder;
  auto params = builder.initRoot<WorkerSession::AttachParams>();
  encode_list(params.initHolding(2), keys);
  EXPECT_EQ(decode_list(params.asReader().getHolding()).value(), keys);
  EXPECT_FALSE(decode_list(params.asReader().getHolding(), 1).ok());

  const std::vector<Digest> digests = {sha256("a"), sha256("b")};
  auto missing = builder.initRoot<Blobs::MissingParams>();
  encode(missing.initDigests(2), digests);
  EXPECT_EQ(decode_digests(missing.asReader().getDigests(), 2).value(), digests);
  EXPECT_FALSE(decode_digests(missing.asReader().getDigests(), 1).ok());
  missing.getDigests().set(1, as_data(std::string_view("short")));
  EXPECT_FALSE(decode_digests(missing.asReader().getDigests(), 2).ok());
}

TEST(Codec, RefusesValuesOutOfRange) {
  capnp::MallocMessageBuilder builder;
  auto outcome = builder.initRoot<Outcome>();
  encode(outcome, full_outcome());
  outcome.setReason(static_cast<uint8_t>(kLastEndReason) + 1);
  EXPECT_EQ(decode(outcome.asReader()).status().code(), absl::StatusCode::kInvalidArgument);
  outcome.setReason(0);
  outcome.initUncollected(21);
  EXPECT_FALSE(decode(outcome.asReader()).ok());

  auto spec = builder.initRoot<JobSpec>();
  encode(spec, full_spec());
  spec.setInject(3);
  EXPECT_THAT(std::string(decode(spec.asReader()).status().message()), HasSubstr("inject"));
  spec.setInject(0);
  spec.getFiles()[0].setKind(4);
  EXPECT_FALSE(decode(spec.asReader()).ok());
  spec.getFiles()[0].setKind(0);
  EXPECT_TRUE(decode(spec.asReader()).ok());
  spec.initArguments(kMaxArguments + 1);
  EXPECT_FALSE(decode(spec.asReader()).ok());

  auto key = builder.initRoot<AttemptKey>();
  EXPECT_FALSE(decode(key.asReader()).ok());  // attempt 0
  key.setAttempt(1);
  EXPECT_TRUE(decode(key.asReader()).ok());
  key.setRank(kMaxRepetitions);
  EXPECT_FALSE(decode(key.asReader()).ok());

  auto stop = builder.initRoot<StopRequest>();
  encode(stop, Stop{{JobId{1}, 1, 1}, EndReason::revoked});
  stop.setReason(255);
  EXPECT_FALSE(decode(stop.asReader()).ok());
}

TEST(Codec, RefusesDigestsOfTheWrongSize) {
  capnp::MallocMessageBuilder builder;
  auto blob = builder.initRoot<BlobRef>();
  blob.setSizeBytes(1);
  EXPECT_FALSE(decode(blob.asReader()).ok());  // a size without a digest
  for (unsigned size : {1u, 31u, 33u, 64u}) {
    blob.setDigest(as_data(std::string(size, 'x')));
    EXPECT_FALSE(decode(blob.asReader()).ok()) << size;
  }
  blob.setDigest(as_data(std::string(32, '\0')));
  EXPECT_FALSE(decode(blob.asReader()).ok());
  blob.setDigest(as_data(std::string(32, 'x')));
  EXPECT_TRUE(decode(blob.asReader()).ok());
}

TEST(Codec, AnOutcomeIsCutToWhatThePeerTakes) {
  ::pesc::AttemptOutcome outcome = full_outcome();
  outcome.detail.assign(1 << 20, 'x');
  outcome.uncollected.assign(50, "name");
  const auto result = round_trip<Outcome>(outcome);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->detail.size(), size_t{64 * 1024});
  EXPECT_EQ(result->uncollected.size(), 20u);
}

TEST(Bytes, AreCanonicalAndRoundTrip) {
  const std::string bytes = serialize_spec(full_spec());
  EXPECT_EQ(parse_spec(bytes).value(), full_spec());
  EXPECT_EQ(serialize_spec(parse_spec(bytes).value()), bytes);
  ::pesc::JobSpec other = full_spec();
  other.seed = 1;
  EXPECT_NE(serialize_spec(other), bytes);
  EXPECT_EQ(parse_spec(serialize_spec({})).value(), ::pesc::JobSpec());
  EXPECT_EQ(parse_outcome(serialize_outcome(full_outcome())).value(), full_outcome());
  EXPECT_EQ(parse_outcome(serialize_outcome({})).value(), ::pesc::AttemptOutcome());
}

TEST(Bytes, EqualDirectoriesHaveEqualManifests) {
  const std::string bytes = serialize_manifest(full_manifest());
  EXPECT_EQ(parse_manifest(bytes).value(), full_manifest());
  EXPECT_EQ(serialize_manifest(parse_manifest(bytes).value()), bytes);
  EXPECT_EQ(parse_manifest(serialize_manifest({})).value(), ::pesc::CheckpointManifest());
  ::pesc::CheckpointManifest other = full_manifest();
  other.files[1].modified_unix_ms = 1;
  EXPECT_NE(serialize_manifest(other), bytes);
}

TEST(Bytes, NeedNoAlignment) {
  const std::string shifted = "x" + serialize_spec(full_spec());
  EXPECT_EQ(parse_spec(std::string_view(shifted).substr(1)).value(), full_spec());
}

TEST(Bytes, OfALargeJob) {
  ::pesc::JobSpec spec = full_spec();
  for (int i = 0; i < 50'000; ++i) {
    spec.files.push_back({"data/" + std::to_string(i), FileKind::file, {sha256("x"), 1}, 0644});
  }
  EXPECT_EQ(parse_spec(serialize_spec(spec)).value(), spec);
}

TEST(Bytes, DamagedOnesNeverThrowOrCrash) {
  EXPECT_FALSE(parse_spec("").ok());
  EXPECT_FALSE(parse_spec("1234567").ok());
  std::mt19937_64 random(20'240'501);
  const std::string whole = serialize_spec(full_spec());
  const std::string outcome = serialize_outcome(full_outcome());
  const std::string manifest = serialize_manifest(full_manifest());
  for (int round = 0; round < 30'000; ++round) {
    std::string bytes = round % 3 == 0 ? whole : round % 3 == 1 ? outcome : manifest;
    const size_t flips = 1 + random() % 4;
    for (size_t i = 0; i < flips; ++i) {
      bytes[random() % bytes.size()] ^= static_cast<char>(1u << (random() % 8));
    }
    if (round % 5 == 0) bytes.resize(random() % (bytes.size() / 8) * 8);
    const absl::Status status = round % 3 == 0   ? parse_spec(bytes).status()
                                : round % 3 == 1 ? parse_outcome(bytes).status()
                                                 : parse_manifest(bytes).status();
    if (!status.ok()) {
      ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    }
  }
}

// A JobSpec whose list of files has `count` structs without size: it takes one word.
std::string spec_with_empty_files(uint64_t count) {
  uint64_t words[10] = {};
  words[0] = uint64_t{8} << 48;                 // a struct of 8 pointers, right behind
  words[5] = uint64_t{7} << 32 | 3u << 2 | 1u;  // files: a list of structs, 3 words further
  words[9] = count << 2;                        // their number; no data, no pointers
  std::string bytes(sizeof words, '\0');
  std::memcpy(bytes.data(), words, sizeof words);
  return bytes;
}

TEST(Bytes, AListOfNothingIsNoBomb) {
  EXPECT_EQ(parse_spec(spec_with_empty_files(3)).value().files.size(), 3u);
  EXPECT_FALSE(parse_spec(spec_with_empty_files(kMaxFiles)).ok());
  EXPECT_FALSE(parse_spec(spec_with_empty_files((1u << 29) - 1)).ok());
}

TEST(Preamble, OfOurVersionIsAccepted) {
  const Preamble preamble = make_preamble();
  EXPECT_EQ(std::string(preamble.begin(), preamble.end()), std::string("PESC\0\0\0\3", 8));
  EXPECT_EQ(check_preamble(preamble), absl::OkStatus());
  EXPECT_EQ(parse_preamble(make_preamble(0x01020304)).value(), 0x01020304u);
}

TEST(Preamble, OfOthersIsRefusedWithTheReason) {
  const absl::Status version = check_preamble(make_preamble(7));
  EXPECT_EQ(version.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(version.message()), HasSubstr("version 7"));
  const Preamble http = {'H', 'T', 'T', 'P', '/', '1', '.', '1'};
  EXPECT_EQ(check_preamble(http).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pesc::protocol
