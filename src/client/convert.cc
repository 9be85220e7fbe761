#include "client/convert.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "model/resources.h"

namespace pesc::client {
namespace {

std::string text(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}
std::string text(capnp::Text::Reader data) { return {data.begin(), data.size()}; }

State state_of(uint8_t state) {
  return static_cast<State>(std::min<uint8_t>(state, static_cast<uint8_t>(State::cancelled)));
}

// The longer ones first.
constexpr std::pair<std::string_view, std::string_view> kOfThisMachine[] = {
    {"the worker is being shut down", "the process that runs it is ending"},
    {"the worker is shutting down", "the process that runs it is ending"},
    {"the worker's keeper", "the keeper"},
    {"the worker's", "this machine's"},
    {"this worker's", "this machine's"},
    {"the worker", "this machine"},
    {"this worker", "this machine"},
};

void replace_words(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos;) {
    size_t after = at + from.size();
    bool whole = after == text.size() || !isalnum(static_cast<unsigned char>(text[after]));
    if (whole) text.replace(at, from.size(), to);
    at += whole ? to.size() : from.size();
  }
}

// Whether a reason or a detail may quote what the program wrote.
bool quotes_program(std::string_view reason) {
  return reason.find("exit code") != reason.npos || reason.find("exit_code") != reason.npos ||
         reason.find("signal") != reason.npos;
}

}  // namespace

std::string of_this_machine(std::string text) {
  for (auto [from, to] : kOfThisMachine) replace_words(text, from, to);
  return text;
}

void say_this_machine(pesc::JobStatus& status) {
  if (!quotes_program(status.detail)) status.detail = of_this_machine(std::move(status.detail));
}
void say_this_machine(pesc::RankResult& rank) {
  if (!quotes_program(rank.reason)) rank.detail = of_this_machine(std::move(rank.detail));
}
void say_this_machine(pesc::WhyLine& line) {
  if (!quotes_program(line.reason)) line.reason = of_this_machine(std::move(line.reason));
}

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
  const auto tally = status.getTally();
  for (const auto count : tally.getEnded()) {
    out.tally.ended[std::string(to_string(static_cast<EndReason>(count.getReason())))] +=
        count.getAttempts();
  }
  out.tally.useful_seconds = tally.getUsefulMs() / 1000.0;
  out.tally.redone_seconds = tally.getRedoneMs() / 1000.0;
  out.tally.checkpoints = tally.getCheckpoints();
  out.tally.second_attempts = tally.getSecondAttempts();
  out.tally.second_won = tally.getSecondWon();
  out.tally.gang_starts = tally.getGangStarts();
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
  out.memory_used_bytes = worker.getMemoryUsedBytes();
  out.disk_bytes = worker.getDiskBytes();
  out.disk_used_bytes = worker.getDiskUsedBytes();
  for (auto one : worker.getNamed()) out.named[one.getName().cStr()] = one.getMilli() / 1000.0;
  for (auto one : worker.getNamedUsed()) {
    out.named_used[one.getName().cStr()] = one.getMilli() / 1000.0;
  }
  for (auto status : worker.getGpus()) {
    const auto gpu = status.getGpu();
    out.gpus.push_back(GpuStatus{gpu.getUuid().cStr(), gpu.getName().cStr(), gpu.getDriver().cStr(),
                                 format_compute_capability(gpu.getComputeCapability()),
                                 gpu.getMemoryBytes(), status.getUsedBytes(), gpu.getTakenBytes(),
                                 status.getRanks(), gpu.getReportsMemory(), gpu.getTrouble().cStr(),
                                 gpu.getRanksBytes()});
  }
  out.cpus_measured = worker.getCpusMeasuredMilli() / 1000.0;
  out.memory_measured_bytes = worker.getMemoryMeasuredBytes();
  out.running = worker.getRunning();
  out.finished = worker.getFinished();
  out.last_seen_unix_ms = worker.getLastSeenUnixMs();
  for (auto warning : worker.getWarnings()) out.warnings.push_back(text(warning));
  out.trouble = text(worker.getTrouble());
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
  result.written_bytes = outcome.getWrittenBytes();
  result.peak_gpu_bytes = outcome.getPeakGpuBytes();
  for (auto gpu : rank.getGpus()) result.gpus.push_back(text(gpu));
  result.memory_bytes = rank.getMemoryBytes();
  result.memory_limit_bytes = rank.getMemoryLimitBytes();
  result.gpu_memory_bytes = rank.getGpuMemoryBytes();
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
