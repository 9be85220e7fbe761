#include "runtime/coordinator/shell/messages.h"

#include <string.h>

#include <algorithm>

#include "protocol/codec.h"
#include "runtime/coordinator/core/resources.h"

namespace pesc::coordinator {
namespace {

constexpr size_t kMaxNameBytes = 255;
constexpr size_t kMaxTextBytes = 4096;
constexpr size_t kMaxWarnings = 32;

absl::Status too_long(std::string_view what) {
  return absl::InvalidArgumentError("the worker's " + std::string(what) + " is too long");
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? std::to_string(signal)
                         : std::to_string(signal) + " (SIG" + std::string(name) + ")";
}

// What it was given beside cpus.
void encode_claim(protocol::RankInfo::Builder out, const JobSpec& spec, const Claim& claim) {
  out.setMemoryBytes(std::max(claim.memory_bytes, spec.resources.memory_bytes));
  // Where nothing was stated or learned, its worker's memory is the limit.
  const uint64_t limit = memory_limit(spec, claim, UINT64_MAX);
  if (limit != UINT64_MAX) out.setMemoryLimitBytes(limit);
  out.setGpuMemoryBytes(claim.gpu_memory_bytes);
  if (claim.gpus.empty()) return;
  auto gpus = out.initGpus(static_cast<unsigned>(claim.gpus.size()));
  for (unsigned i = 0; i < gpus.size(); ++i) gpus.set(i, claim.gpus[i]);
}

}  // namespace

void encode_status(protocol::JobStatus::Builder out, const JobView& job) {
  out.setId(job.id.value);
  out.setName(protocol::as_data(job.spec->name));
  out.setOwner(job.owner);
  out.setState(static_cast<uint8_t>(job.state));
  out.setRepetitions(job.spec->repetitions);
  out.setWaiting(job.counts.waiting);
  out.setRunning(job.counts.running);
  out.setSucceeded(job.counts.succeeded);
  out.setFailed(job.counts.failed);
  out.setCancelled(job.counts.cancelled);
  out.setSubmittedUnixMs(job.submitted_unix_ms);
  out.setFinishedUnixMs(job.finished_unix_ms);
  out.setRevision(job.revision);
  out.setCommitted(job.committed);
  out.setDetail(protocol::as_data(job.detail));
  encode_tally(out.initTally(), job.tally);
}

void encode_tally(protocol::Tally::Builder out, const JobTally& tally) {
  std::vector<EndReason> told;
  for (size_t i = 0; i < tally.ended.size(); ++i) {
    if (tally.ended[i] > 0) told.push_back(static_cast<EndReason>(i));
  }
  auto ended = out.initEnded(told.size());
  for (unsigned i = 0; i < told.size(); ++i) {
    ended[i].setReason(static_cast<uint8_t>(told[i]));
    ended[i].setAttempts(tally.ended[static_cast<size_t>(told[i])]);
  }
  out.setUsefulMs(tally.useful_ms);
  out.setRedoneMs(tally.redone_ms);
  out.setCheckpoints(tally.checkpoints);
  out.setSecondAttempts(tally.second_attempts);
  out.setSecondWon(tally.second_won);
  out.setGangStarts(tally.gang_starts);
}

std::string_view worker_state(const WorkerView& worker) {
  if (!worker.attached) return "away";
  if (worker.draining) return "draining";
  if (worker.paused) return "paused";
  if (!worker.info.busy.empty()) return "busy";
  return worker.trouble.empty() ? "attached" : "set aside";
}

const AttemptRow* speaker(const RankRow& row, RankState state) {
  const bool decided = state == RankState::succeeded || state == RankState::failed;
  if (decided && row.decided) return &*row.decided;
  return row.latest ? &*row.latest : nullptr;
}

void encode_rank(protocol::RankInfo::Builder out, const JobSpec& spec, const RankRow& row,
                 RankState state, uint32_t attempts, std::string_view worker_name) {
  out.setRank(row.rank);
  out.setState(static_cast<uint8_t>(state));
  out.setAttempts(attempts);
  const AttemptRow* attempt = speaker(row, state);
  if (attempt != nullptr) {
    out.setWorker(protocol::as_data(worker_name));
    protocol::encode(out.initOutcome(), attempt->outcome);
    encode_claim(out, spec, attempt->claim);
  } else if (state == RankState::cancelled) {
    AttemptOutcome outcome;
    outcome.reason = EndReason::cancelled;
    outcome.exit_code = -1;
    protocol::encode(out.initOutcome(), outcome);
  }
}

absl::StatusOr<WorkerInfo> decode_worker_info(protocol::WorkerInfo::Reader in) {
  WorkerInfo info;
  info.id = WorkerId{in.getId()};
  info.name = protocol::as_view(in.getName());
  info.room = protocol::as_view(in.getRoom());
  info.cpus_milli = in.getCpusMilli();
  info.memory_bytes = in.getMemoryBytes();
  info.advertise = in.getAdvertise().cStr();
  info.software = in.getSoftware().cStr();
  info.machine = in.getMachine().cStr();
  if (info.id.value == 0) return absl::InvalidArgumentError("a worker without an id");
  if (info.name.empty()) info.name = to_string(info.id);
  if (info.name.size() > kMaxNameBytes) return too_long("name");
  if (info.room.size() > kMaxNameBytes) return too_long("room");
  if (info.advertise.size() > kMaxNameBytes) return too_long("advertised address");
  if (info.software.size() > kMaxTextBytes) return too_long("software version");
  if (info.machine.size() > kMaxTextBytes) return too_long("machine");
  if (info.cpus_milli == 0 || info.cpus_milli > kMaxCpusMilli) {
    return absl::InvalidArgumentError("a worker offers between 0.001 and 100,000 cpus, not " +
                                      std::to_string(info.cpus_milli) + "/1000");
  }
  for (const auto warning : in.getWarnings()) {
    if (info.warnings.size() >= kMaxWarnings) break;
    info.warnings.emplace_back(warning.cStr(), std::min(warning.size(), kMaxTextBytes));
  }
  info.busy = busy_text(in.getBusy());
  info.disk_bytes = in.getDiskBytes();
  absl::StatusOr<std::vector<Gpu>> gpus = protocol::decode(in.getGpus());
  if (!gpus.ok()) return gpus.status();
  info.gpus = *std::move(gpus);
  absl::StatusOr<NamedResources> named = protocol::decode(in.getNamed());
  if (!named.ok()) return named.status();
  info.named = *std::move(named);
  return info;
}

std::string busy_text(capnp::Data::Reader in) {
  return std::string(protocol::as_view(in).substr(0, kMaxTextBytes));
}

std::string failure_line(const AttemptOutcome& outcome) {
  std::string line;
  switch (outcome.reason) {
    case EndReason::exit_code:
      line = "exit code " + std::to_string(outcome.exit_code);
      break;
    case EndReason::signal:
      line = "killed by signal " + signal_name(outcome.signal);
      break;
    case EndReason::cannot_start:
      line = "the program cannot start";
      break;
    case EndReason::time_limit:
      line = "it ran past the time limit";
      break;
    case EndReason::output_limit:
      line = "it wrote more output than the job's limit";
      break;
    case EndReason::out_of_memory:
      line = "out of memory";
      break;
    case EndReason::inputs_unavailable:
      line = "its inputs could not be had";
      break;
    case EndReason::disk_full:
      line = "the worker's disk is full";
      break;
    case EndReason::worker_lost:
      line = "its worker was lost";
      break;
    case EndReason::vacated:
      line = "its worker gave it back";
      break;
    case EndReason::port_taken:
      line = "its master_port was taken by another program";
      break;
    case EndReason::worker_faulty:
      line = "failed at once on a worker where ranks fail that succeed elsewhere";
      break;
    case EndReason::bad_checkpoint:
      line = "it did not start from its checkpoint";
      break;
    case EndReason::outgrew_estimate:
      line = "it used more memory than its program had before";
      break;
    case EndReason::gpu_out_of_memory:
      line = "its GPU had no memory left for it";
      break;
    case EndReason::gpu_fault:
      line = "its GPU failed";
      break;
    case EndReason::build_failed:
      line = "the build of its program failed";
      break;
    case EndReason::gpu_memory_limit:
      line = "it took more GPU memory than it had asked for";
      break;
    case EndReason::disk_limit:
      line = "it took more disk than it had asked for";
      break;
    default:
      line = std::string(to_string(outcome.reason));
      break;
  }
  // Where the worker says the same in other words, its words will do.
  const bool said =
      outcome.reason == EndReason::time_limit ||
      (outcome.reason == EndReason::signal && outcome.detail.starts_with("killed by"));
  if (said && !outcome.detail.empty()) return outcome.detail;
  if (!outcome.detail.empty()) line += ": " + outcome.detail;
  return line;
}

std::string loggable(std::string_view text) {
  std::string safe(text);
  for (char& c : safe) {
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == 0x7f) c = '?';
  }
  return safe;
}

}  // namespace pesc::coordinator
