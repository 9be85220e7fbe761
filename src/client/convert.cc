#include "client/convert.h"

#include <algorithm>

namespace pesc::client {
namespace {

std::string text(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}
std::string text(capnp::Text::Reader data) { return {data.begin(), data.size()}; }

State state_of(uint8_t state) {
  return static_cast<State>(std::min<uint8_t>(state, static_cast<uint8_t>(State::cancelled)));
}

}  // namespace

pesc::JobStatus to_public(protocol::JobStatus::Reader status) {
  pesc::JobStatus out;
  out.id = to_string(JobId{status.getId()});
  out.name = text(status.getName());
  out.owner = text(status.getOwner());
  out.state = state_of(status.getState());
  out.repetitions = status.getRepetitions();
  out.waiting = status.getWaiting();
  out.running = status.getRunning();
  out.succeeded = status.getSucceeded();
  out.failed = status.getFailed();
  out.cancelled = status.getCancelled();
  out.submitted_unix_ms = status.getSubmittedUnixMs();
  out.finished_unix_ms = status.getFinishedUnixMs();
  out.detail = text(status.getDetail());
  return out;
}

pesc::RankProgress to_public(protocol::RankProgress::Reader progress) {
  return {progress.getRank(), progress.getFraction(), text(progress.getText()),
          text(progress.getWorker())};
}

pesc::WorkerStatus to_public(protocol::WorkerStatus::Reader worker) {
  pesc::WorkerStatus out;
  out.id = to_string(WorkerId{worker.getId()});
  out.name = text(worker.getName());
  out.room = text(worker.getRoom());
  out.address = text(worker.getAddress());
  out.state = text(worker.getState());
  out.software = text(worker.getSoftware());
  out.cpus = worker.getCpusMilli() / 1000.0;
  out.cpus_used = worker.getCpusUsedMilli() / 1000.0;
  out.memory_bytes = worker.getMemoryBytes();
  out.running = worker.getRunning();
  out.finished = worker.getFinished();
  out.last_seen_unix_ms = worker.getLastSeenUnixMs();
  for (auto warning : worker.getWarnings()) out.warnings.push_back(text(warning));
  return out;
}

pesc::WhyLine to_public(protocol::WhyLine::Reader line) {
  return {text(line.getRanks()), line.getCount(), state_of(line.getState()),
          text(line.getReason())};
}

FinalRank to_public(protocol::RankInfo::Reader rank) {
  FinalRank out;
  RankResult& result = out.result;
  result.rank = rank.getRank();
  result.state = state_of(rank.getState());
  result.attempts = rank.getAttempts();
  result.worker = text(rank.getWorker());
  auto outcome = rank.getOutcome();
  result.started_unix_ms = outcome.getStartedUnixMs();
  result.seconds = outcome.getDurationMs() / 1000.0;
  result.cpu_seconds = outcome.getCpuMs() / 1000.0;
  result.exit_code = outcome.getExitCode();
  result.signal = outcome.getSignal();
  bool over = result.state != State::waiting && result.state != State::running;
  if (over) result.reason = to_string(static_cast<EndReason>(outcome.getReason()));
  result.detail = text(outcome.getDetail());
  result.max_rss_bytes = outcome.getMaxRssBytes();
  for (auto name : outcome.getUncollected()) result.uncollected.push_back(text(name));
  auto digest = outcome.getOutput().getDigest();
  if (digest.size() == out.output.digest.bytes.size()) {
    std::copy(digest.begin(), digest.end(), out.output.digest.bytes.begin());
    out.output.size_bytes = outcome.getOutput().getSizeBytes();
    result.output_bytes = out.output.size_bytes;
  }
  return out;
}

}  // namespace pesc::client
