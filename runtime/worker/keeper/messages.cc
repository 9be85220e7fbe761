#include "runtime/worker/keeper/messages.h"

#include "runtime/worker/keeper/framing.h"

namespace pesc::keeper {

void fill_key(protocol::keeper::Key::Builder builder, const AttemptKey& key) {
  builder.setJob(key.job.value);
  builder.setRank(key.rank);
  builder.setAttempt(key.attempt);
}

AttemptKey to_key(protocol::keeper::Key::Reader key) {
  return {{key.getJob()}, key.getRank(), key.getAttempt()};
}

void fill_exit(protocol::keeper::Exit::Builder builder, const Attempt& attempt) {
  const AttemptEnd& end = attempt.end();
  fill_key(builder.initKey(), attempt.key());
  builder.setReason(static_cast<uint8_t>(end.reason));
  builder.setExitCode(end.exit_code);
  builder.setSignal(end.signal);
  builder.setDetail(end.detail.c_str());
  builder.setStartedUnixMs(attempt.started_unix_ms());
  builder.setDurationMs(end.duration_ms);
  builder.setCpuMs(end.cpu_ms);
  builder.setMaxRssBytes(end.max_rss_bytes);
  builder.setStandardOutput(as_data(attempt.standard_output().memory()));
  builder.setStandardError(as_data(attempt.standard_error().memory()));
  builder.setOutputSpilled(attempt.standard_output().spilled());
  builder.setErrorSpilled(attempt.standard_error().spilled());
  builder.setSurvivors(end.survivors);
  builder.setWrittenBytes(end.written_bytes);
}

void fill_attempt(protocol::keeper::Attempt::Builder builder, const Attempt& attempt) {
  fill_key(builder.initKey(), attempt.key());
  builder.setLease(as_data(attempt.lease()));
  builder.setRunning(!attempt.finished());
  builder.setStartedUnixMs(attempt.started_unix_ms());
  if (!attempt.finished()) builder.setPid(static_cast<uint32_t>(attempt.program_pid()));
  if (attempt.finished()) fill_exit(builder.initExit(), attempt);
}

}  // namespace pesc::keeper
