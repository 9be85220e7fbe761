#include "runtime/worker/keeper_client/decode.h"

#include "runtime/worker/keeper/framing.h"

namespace pesc::worker {
namespace {

using keeper::as_data;
using keeper::as_string;

EndReason to_reason(uint8_t reason) {
  bool known = reason <= static_cast<uint8_t>(kLastEndReason);
  return known ? static_cast<EndReason>(reason) : EndReason::worker_lost;
}

std::string with_survivors(std::string detail, uint32_t survivors) {
  if (survivors == 0) return detail;
  if (!detail.empty()) detail += "; ";
  return detail + std::to_string(survivors) +
         (survivors == 1 ? " process outlived it and was ended"
                         : " processes outlived it and were ended");
}

}  // namespace

AttemptKey to_key(protocol::keeper::Key::Reader key) {
  return {{key.getJob()}, key.getRank(), key.getAttempt()};
}

KeptExit to_kept_exit(protocol::keeper::Exit::Reader exit) {
  KeptExit result;
  result.key = to_key(exit.getKey());
  AttemptOutcome& outcome = result.outcome;
  outcome.reason = to_reason(exit.getReason());
  outcome.exit_code = exit.getExitCode();
  outcome.signal = exit.getSignal();
  outcome.detail = with_survivors(exit.getDetail().cStr(), exit.getSurvivors());
  outcome.started_unix_ms = exit.getStartedUnixMs();
  outcome.duration_ms = exit.getDurationMs();
  outcome.cpu_ms = exit.getCpuMs();
  outcome.max_rss_bytes = exit.getMaxRssBytes();
  outcome.written_bytes = exit.getWrittenBytes();
  result.standard_output = as_string(exit.getStandardOutput());
  result.standard_error = as_string(exit.getStandardError());
  result.output_spilled = exit.getOutputSpilled();
  result.error_spilled = exit.getErrorSpilled();
  return result;
}

KeptAttempt to_kept_attempt(protocol::keeper::Attempt::Reader attempt) {
  KeptAttempt result;
  result.key = to_key(attempt.getKey());
  result.lease = as_string(attempt.getLease());
  result.running = attempt.getRunning();
  result.started_unix_ms = attempt.getStartedUnixMs();
  result.pid = attempt.getPid();
  if (!result.running) result.exit = to_kept_exit(attempt.getExit());
  return result;
}

void encode(const LaunchRequest& request, protocol::keeper::Start::Builder start) {
  auto key = start.initKey();
  key.setJob(request.key.job.value);
  key.setRank(request.key.rank);
  key.setAttempt(request.key.attempt);
  auto argv = start.initArgv(static_cast<unsigned>(request.argv.size()));
  for (unsigned i = 0; i < argv.size(); ++i) argv.set(i, as_data(request.argv[i]));
  auto environment = start.initEnvironment(static_cast<unsigned>(request.environment.size()));
  for (unsigned i = 0; i < environment.size(); ++i) {
    environment.set(i, as_data(request.environment[i]));
  }
  start.setWorkingDirectory(as_data(request.working_directory));
  start.setSearchPath(as_data(request.search_path));
  start.setRunAs(request.run_as);
  start.setUid(request.uid);
  start.setGid(request.gid);
  start.setTimeLimitMs(request.time_limit_ms);
  start.setGraceMs(request.grace_ms);
  start.setOutputLimitBytes(request.output_limit_bytes);
  start.setSpillDirectory(as_data(request.spill_directory));
  auto binds = start.initReadOnlyBinds(static_cast<unsigned>(request.read_only_binds.size()));
  for (unsigned i = 0; i < binds.size(); ++i) {
    binds[i].setSource(as_data(request.read_only_binds[i].first));
    binds[i].setTarget(as_data(request.read_only_binds[i].second));
  }
  start.setLease(as_data(request.lease));
  start.setIdlePriority(request.idle_priority);
  start.setMemoryLimitBytes(request.memory_limit_bytes);
  start.setCpusMilli(request.cpus_milli);
  start.setProcessLimit(request.process_limit);
  start.setMostOfJob(request.most_of_job);
}

}  // namespace pesc::worker
