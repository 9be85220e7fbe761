#include <capnp/message.h>
#include <capnp/serialize.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "bench/instructions/work.h"
#include "protocol/codec.h"

namespace pesc::bench {
namespace {

constexpr uint32_t kInOneMessage = 8;

template <typename T>
T value(absl::StatusOr<T> decoded) {
  if (decoded.ok()) return *std::move(decoded);
  std::fprintf(stderr, "%s\n", std::string(decoded.status().message()).c_str());
  std::exit(1);
}

JobSpec make_spec() {
  JobSpec spec;
  spec.name = "simulation";
  spec.program = "./simulation";
  spec.arguments = {"--steps", "1000000", "--model", "heston", "{rank}"};
  spec.repetitions = 1000;
  spec.environment = {{"OMP_NUM_THREADS", "1"}};
  FileRef file;
  file.path = "simulation";
  file.mode = 0755;
  file.blob.digest.bytes[3] = 1;
  file.blob.size_bytes = 100'000;
  spec.files = {file};
  return spec;
}

// Eight leases, as they come to a worker: the first with the job's specification.
uint64_t leases(uint32_t first, const JobSpec& spec) {
  capnp::MallocMessageBuilder message;
  auto update = message.initRoot<protocol::WorkerSink::UpdateParams>();
  auto list = update.initLeases(kInOneMessage);
  for (uint32_t i = 0; i < kInOneMessage; ++i) {
    protocol::encode(list[i].initKey(), AttemptKey{JobId{77}, first + i, 1});
  }
  if (first % 1000 == 0) protocol::encode(list[0].initSpec(), spec);
  const auto words = capnp::messageToFlatArray(message);
  capnp::FlatArrayMessageReader reader(words);
  uint64_t sum = 0;
  for (auto lease : reader.getRoot<protocol::WorkerSink::UpdateParams>().getLeases()) {
    sum += value(protocol::decode(lease.getKey())).rank;
    if (lease.hasSpec()) sum += value(protocol::decode(lease.getSpec())).repetitions;
  }
  return sum;
}

// Their ends, as they come to the coordinator; and each outcome to the journal and from it.
uint64_t ends(uint32_t first) {
  capnp::MallocMessageBuilder message;
  auto report = message.initRoot<protocol::WorkerSession::ReportParams>();
  auto list = report.initFinished(kInOneMessage);
  const std::string output(100, 'x');
  for (uint32_t i = 0; i < kInOneMessage; ++i) {
    protocol::encode(list[i].initKey(), AttemptKey{JobId{77}, first + i, 1});
    AttemptOutcome outcome;
    outcome.duration_ms = 5 + i;
    outcome.output.digest.bytes[0] = 1;
    outcome.output.size_bytes = output.size();
    protocol::encode(list[i].initOutcome(), outcome);
    list[i].setInlineOutput(protocol::as_data(output));
  }
  const auto words = capnp::messageToFlatArray(message);
  capnp::FlatArrayMessageReader reader(words);
  uint64_t sum = 0;
  for (auto end : reader.getRoot<protocol::WorkerSession::ReportParams>().getFinished()) {
    sum += value(protocol::decode(end.getKey())).rank;
    const AttemptOutcome outcome = value(protocol::decode(end.getOutcome()));
    sum += value(protocol::parse_outcome(protocol::serialize_outcome(outcome))).duration_ms;
    sum += protocol::as_view(end.getInlineOutput()).size();
  }
  return sum;
}

}  // namespace

uint64_t codec_work(uint32_t ranks) {
  const JobSpec spec = make_spec();
  uint64_t sum = 0;
  for (uint32_t rank = 0; rank < ranks; rank += kInOneMessage)
    sum += leases(rank, spec) + ends(rank);
  sum += value(protocol::parse_spec(protocol::serialize_spec(spec))).repetitions;
  return sum;
}

}  // namespace pesc::bench
