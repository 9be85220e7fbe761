#include "tests/sim/trace_text.h"

#include <fmt/format.h>

#include <vector>

namespace pesc::sim {
namespace {

namespace co = coordinator;
namespace wo = worker;

std::string name(const AttemptKey& key) {
  return fmt::format("{}/{}/{}", key.job.value & 0xFFFF'FFFF, key.rank, key.attempt);
}
std::string name(JobId id) { return fmt::format("job {}", id.value & 0xFFFF'FFFF); }

const AttemptKey& key_of(const AttemptKey& key) { return key; }
template <class T>
const AttemptKey& key_of(const T& value) {
  return value.key;
}

template <class T>
std::string list(const std::vector<T>& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) {
    if (i == 8) return text + fmt::format(" … {}]", values.size());
    text += (i == 0 ? "" : " ") + name(key_of(values[i]));
  }
  return text + "]";
}

std::string list(const std::vector<co::StopRequest>& stops) {
  std::string text = "[";
  for (const co::StopRequest& stop : stops) {
    text +=
        fmt::format("{}{} {}", text.size() > 1 ? ", " : "", name(stop.key), to_string(stop.reason));
  }
  return text + "]";
}

std::string text(const co::JobSubmitted& e) {
  return fmt::format("submit {} of {} ranks", name(e.id), e.spec->repetitions);
}
std::string text(const co::JobCancelled& e) { return "cancel " + name(e.id); }
std::string text(const co::JobRetried& e) { return "retry " + name(e.id); }
std::string text(const co::JobRemoved& e) { return "remove " + name(e.id); }
std::string text(const co::WorkerAttached& e) {
  return fmt::format("{} attaches as session {} holding {}", e.info.name, e.session,
                     list(e.holding));
}
std::string text(const co::WorkerDetached& e) {
  return fmt::format("session {} detaches", e.session);
}
std::string text(const co::WorkerReported& e) {
  return fmt::format("session {} reports after update {}, holding {}, finished {}", e.session,
                     e.last_update, list(e.holding), list(e.finished));
}
std::string text(const co::CheckpointOffered& e) {
  return fmt::format("session {} offers a checkpoint of {}", e.session, name(e.key));
}
std::string text(const co::WorkerPaused& e) {
  return fmt::format("{} is {}", e.worker, e.pause ? "paused" : "resumed");
}
std::string text(const co::WorkerDrained& e) {
  return fmt::format("{} is {}", e.worker, e.drain ? "drained" : "taken back");
}
std::string text(const co::TimerFired&) { return "timer"; }

std::string text(const co::JobAdded& r) { return name(r.id) + " added"; }
std::string text(const co::AttemptLeased& r) {
  return fmt::format("{} leased to {}{}{}", name(r.key), to_string(r.worker),
                     r.checkpoint == 0 ? "" : fmt::format(", from checkpoint {}", r.checkpoint),
                     r.second ? ", beside a slow one" : "");
}
std::string text(const co::AttemptEnded& r) {
  return fmt::format("{} ended by {}{}", name(r.key), to_string(r.outcome.reason),
                     r.final ? fmt::format(", its rank {}", to_string(r.state)) : "");
}
std::string text(const co::RanksCancelled& r) {
  return fmt::format("ranks {}-{} of {} cancelled", r.first, r.last, name(r.job));
}
std::string text(const co::JobStopped& r) { return name(r.job) + " stopped " + r.detail; }
std::string text(const co::JobFinished& r) {
  return fmt::format("{} finished: {}", name(r.job), to_string(r.state));
}
std::string text(const co::RanksReopened& r) {
  return fmt::format("{} reopened, {} ranks", name(r.job), r.ranks.size());
}
std::string text(const co::JobErased& r) { return name(r.job) + " erased"; }
std::string text(const co::WorkerSeen& r) { return r.name + " seen"; }
std::string text(const co::CheckpointKept& r) {
  return fmt::format("{} keeps checkpoint {}", name(r.key), r.checkpoint.number);
}
std::string text(const co::CheckpointsDropped& r) {
  return fmt::format("rank {} of {} drops its checkpoints from {} to {}", r.rank, name(r.job),
                     r.first, r.through);
}
std::string text(const co::GangStarted& r) {
  return fmt::format("{} starts generation {} at {}:{}", name(r.job), r.generation, r.master_addr,
                     r.master_port);
}
std::string text(const co::WorkerDraining& r) {
  return fmt::format("{} {}{}", to_string(r.worker), r.draining ? "drains" : "drains no more",
                     r.paused ? ", paused" : "");
}

std::string text(const co::ProgramLearned& r) {
  return fmt::format("a program takes {} bytes, {} of a GPU", r.memory_bytes, r.gpu_memory_bytes);
}

std::string text(const co::Answer& a) { return "answer " + a.status.ToString(); }
std::string text(const co::AnswerAttach& a) {
  return fmt::format("attached {}, stop {}{}", a.status.ToString(), list(a.stop),
                     a.paused ? ", paused" : "");
}
std::string text(const co::AnswerReport& a) {
  return fmt::format("report {}, acknowledged {}, stop {}", a.status.ToString(),
                     list(a.acknowledged), list(a.stop));
}
std::string text(const co::AnswerCheckpoint& a) {
  return fmt::format("checkpoint {} {}", a.number, a.status.ToString());
}
std::string text(const co::AnswerDrain& a) {
  return fmt::format("drain {} of {} attempts", a.status.ToString(), a.attempts);
}
std::string text(const co::SendUpdate& a) {
  const char* pause = !a.paused ? "" : *a.paused ? ", pause" : ", resume";
  return fmt::format("update {} to session {}: leases {}, stop {}, start {}{}", a.number, a.session,
                     list(a.leases), list(a.stop), list(a.start), pause);
}
std::string text(const co::CloseSession& a) {
  return fmt::format("close session {}: {}", a.session, a.reason);
}
std::string text(const co::JobChanged& a) { return name(a.job) + " changed"; }

std::string text(const wo::Connected&) { return "connected"; }
std::string text(const wo::Disconnected&) { return "disconnected"; }
std::string text(const wo::UpdateReceived& e) {
  return fmt::format("update {}: leases {}, stop {}", e.number, list(e.leases), list(e.stop));
}
std::string text(const wo::Prepared& e) { return name(e.key) + " prepared"; }
std::string text(const wo::PrepareFailed& e) {
  return fmt::format("{} not prepared: {}", name(e.key), to_string(e.reason));
}
std::string text(const wo::BuildAwaited& e) { return name(e.key) + " waits for a build"; }
std::string text(const wo::BuildDone& e) { return name(e.key) + " has its build"; }
std::string text(const wo::Started& e) { return name(e.key) + " started"; }
std::string text(const wo::Exited& e) {
  return fmt::format("{} exited: {}", name(e.key), to_string(e.outcome.reason));
}
std::string text(const wo::Packed& e) { return name(e.key) + " packed"; }
std::string text(const wo::PackFailed& e) { return name(e.key) + " not packed"; }
std::string text(const wo::WasAbsent& e) { return "it slept for " + std::to_string(e.ms) + " ms"; }
std::string text(const wo::CheckpointMarked& e) { return name(e.key) + " has a checkpoint"; }
std::string text(const wo::CheckpointSaved& e) {
  return fmt::format("checkpoint of {} {} {}", name(e.key), e.saved ? "saved" : "not saved",
                     e.detail);
}
std::string text(const wo::PortChosen& e) {
  return fmt::format("{} has port {}", name(e.key), e.port);
}
std::string text(const wo::Progressed& e) { return name(e.key) + " progressed"; }
std::string text(const wo::Acknowledged& e) { return "acknowledged " + list(e.keys); }
std::string text(const wo::ReportFailed& e) { return "report failed " + list(e.keys); }
std::string text(const wo::Adopted& e) {
  return fmt::format("{} adopted, {}", name(e.key), e.running ? "running" : "ended");
}
std::string text(const wo::KeeperLost&) { return "keeper lost"; }
std::string text(const wo::KeeperFound&) { return "keeper found"; }
std::string text(const wo::BusyChanged& e) { return "busy: " + e.busy; }
std::string text(const wo::ReportWanted&) { return "report wanted"; }
std::string text(const wo::DrainRequested&) { return "drain"; }
std::string text(const wo::TimerFired&) { return "timer"; }

std::string text(const wo::Prepare& a) { return "prepare " + name(a.key); }
std::string text(const wo::CancelPrepare& a) { return "cancel the preparation of " + name(a.key); }
std::string text(const wo::Start& a) {
  return "start " + name(a.key) + (a.most_of_job != 0 ? ", as the next of its job" : "");
}
std::string text(const wo::ChoosePort& a) { return "choose a port for " + name(a.key); }
std::string text(const wo::SaveCheckpoint& a) { return "save the checkpoint of " + name(a.key); }
std::string text(const wo::Stop& a) {
  return fmt::format("stop {}{}: {}", name(a.key), a.unless_begun ? " unless it has begun" : "",
                     to_string(a.reason));
}
std::string text(const wo::Pack& a) { return "pack " + name(a.key); }
std::string text(const wo::SendReport& a) {
  return fmt::format("report after update {}, holding {}, finished {}", a.last_update,
                     list(a.holding), list(a.finished));
}
std::string text(const wo::Forget& a) { return "forget " + name(a.key); }
std::string text(const wo::Drained&) { return "drained"; }

template <class Variant>
std::string visit_text(const Variant& variant) {
  return std::visit([](const auto& one) { return text(one); }, variant);
}

}  // namespace

std::string text_of(const co::Event& event) { return visit_text(event); }
std::string text_of(const co::Record& record) { return visit_text(record); }
std::string text_of(const co::Action& action) { return visit_text(action); }
std::string text_of(const wo::Event& event) { return visit_text(event); }
std::string text_of(const wo::Action& action) { return visit_text(action); }

}  // namespace pesc::sim
