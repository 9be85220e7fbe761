// What is kept of a rank's checkpoint_dir, and from which of them its next attempt begins.
#include <algorithm>
#include <utility>

#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {
namespace {

// A checkpoint is passed over after this many attempts that began from it have died at once, or
// after one on each of two workers: one bad worker must not burn a good checkpoint, and a lab with
// one worker must not try a bad one for ever.
constexpr uint32_t kDeathsOnOneWorker = 3;

size_t keeps(const CoreConfig& config) { return std::max<size_t>(config.keep_checkpoints, 1); }

// Of a rank, and of all ranks of a gang: ends by bad checkpoints in a row, none of them a good one.
// From then on the program is to blame, which saves what it cannot read. So many that all that are
// kept can be tried before.
uint32_t most_bad_ends(const CoreConfig& config) {
  return std::max(10u, kDeathsOnOneWorker * config.keep_checkpoints + 1);
}

bool passes_over(const KeptCheckpoint& checkpoint, WorkerId worker) {
  return (checkpoint.deaths > 0 && checkpoint.died_on != worker) ||
         checkpoint.deaths + 1 >= kDeathsOnOneWorker;
}

template <typename Checkpoints>
auto find_checkpoint(Checkpoints& checkpoints, uint32_t number) {
  return std::find_if(checkpoints.begin(), checkpoints.end(),
                      [number](const KeptCheckpoint& c) { return c.ref.number == number; });
}

// An attempt of a gang that was revoked with the others saves what it has before it goes.
bool may_save(const Job& job, const ActiveRank& rank, WorkerId worker, uint32_t attempt) {
  const auto same = [&](const auto& a) { return a.attempt == attempt && a.worker == worker; };
  if (std::any_of(rank.open.begin(), rank.open.end(), same)) return true;
  if (std::any_of(rank.lost.begin(), rank.lost.end(), same)) return true;
  return job.spec->parallel && rank.last_attempt == attempt && rank.last_worker == worker &&
         (rank.checkpoints.empty() || rank.checkpoints.back().attempt <= attempt);
}

// Not by its number: an attempt that was given up for lost and runs on may save what is older than
// what its rank has by now.
bool is_worse(const KeptCheckpoint& a, const KeptCheckpoint& b) {
  if (a.passed_over != b.passed_over) return a.passed_over;
  return std::pair(a.total_ms, a.ref.number) < std::pair(b.total_ms, b.ref.number);
}

// What the checkpoint stands for that the attempt began from.
uint64_t base_of(const ActiveRank& rank, uint32_t attempt) {
  for (const OpenAttempt& open : rank.open) {
    if (open.attempt == attempt) return open.base_ms;
  }
  for (const LostAttempt& lost : rank.lost) {
    if (lost.attempt == attempt) return lost.base_ms;
  }
  return rank.last_attempt == attempt ? rank.last_base_ms : 0;
}

// Nothing has changed since: it is the newest of its attempt, or the best of all.
const KeptCheckpoint* find_same(const ActiveRank& rank, uint32_t attempt, const BlobRef& manifest) {
  const KeptCheckpoint* best = best_checkpoint(rank);
  if (best != nullptr && best->ref.manifest == manifest) return best;
  const auto own = std::find_if(rank.checkpoints.rbegin(), rank.checkpoints.rend(),
                                [&](const KeptCheckpoint& c) { return c.attempt == attempt; });
  if (own == rank.checkpoints.rend() || own->passed_over) return nullptr;
  return own->ref.manifest == manifest ? &*own : nullptr;
}

}  // namespace

const KeptCheckpoint* best_checkpoint(const ActiveRank& rank) {
  const auto best = std::max_element(rank.checkpoints.begin(), rank.checkpoints.end(), is_worse);
  return best == rank.checkpoints.end() || best->passed_over ? nullptr : &*best;
}

uint64_t saved_ms(const ActiveRank& rank, uint32_t attempt) {
  const auto it = rank.saved.find(attempt);
  return it == rank.saved.end() ? 0 : it->second;
}

void Core::State::on(const CheckpointOffered& event) {
  unix_ms = std::max(unix_ms, event.unix_ms);
  AnswerCheckpoint answer{event.request, absl::OkStatus(), 0};
  const auto session = sessions.find(event.session);
  if (session == sessions.end()) {
    answer.status = absl::FailedPreconditionError(
        "this session was replaced by a newer one, or has never attached: attach again, then "
        "offer the checkpoint");
  } else {
    answer.status = keep_checkpoint(session->second, event, answer.number);
  }
  out.actions.push_back(std::move(answer));
}

// One that nobody wants (its rank is final, its attempt was revoked, as many better ones are kept
// as are kept at all) is answered with number 0: its worker may forget it. The same one offered
// again gets the number it has.
absl::Status Core::State::keep_checkpoint(WorkerId worker, const CheckpointOffered& event,
                                          uint32_t& number) {
  const AttemptKey& key = event.key;
  if (event.manifest.empty()) {
    return absl::InvalidArgumentError("a checkpoint of " + to_string(key) + " has no manifest");
  }
  if (event.chunks != nullptr && event.chunks->size() > kMaxCheckpointChunks) {
    return absl::InvalidArgumentError("a checkpoint of " + to_string(key) + " has more than " +
                                      std::to_string(kMaxCheckpointChunks) +
                                      " chunks; save less in checkpoint_dir");
  }
  Job* job = find_job(key.job);
  if (job == nullptr || job->stopped) return absl::OkStatus();
  const auto it = job->active.find(key.rank);
  if (it == job->active.end()) return absl::OkStatus();
  const ActiveRank& rank = it->second;
  if (!may_save(*job, rank, worker, key.attempt)) return absl::OkStatus();
  std::map<AttemptKey, Lease>& leases = workers.at(worker).leases;
  if (const auto lease = leases.find(key); lease != leases.end()) lease->second.told = true;
  if (const KeptCheckpoint* same = find_same(rank, key.attempt, event.manifest)) {
    number = same->ref.number;
    return absl::OkStatus();
  }
  const uint64_t total_ms = base_of(rank, key.attempt) + event.saved_ms;
  const auto better = std::count_if(
      rank.checkpoints.begin(), rank.checkpoints.end(),
      [&](const KeptCheckpoint& c) { return !c.passed_over && c.total_ms > total_ms; });
  if (size_t(better) >= keeps(config)) return absl::OkStatus();
  const auto highest = job->checkpoint_numbers.find(key.rank);
  number = (highest == job->checkpoint_numbers.end() ? 0 : highest->second) + 1;
  emit(CheckpointKept{key, {number, event.manifest}, event.chunks, event.saved_ms, total_ms});
  drop_worst(*job, key.rank);
  return absl::OkStatus();
}

// Those that are passed over go first. One from which an attempt is only just beginning stays; but
// never for ever.
void Core::State::drop_worst(const Job& job, uint32_t number) {
  const ActiveRank& rank = job.active.at(number);
  std::vector<const KeptCheckpoint*> order;
  for (const KeptCheckpoint& c : rank.checkpoints) order.push_back(&c);
  std::sort(order.begin(), order.end(),
            [](const KeptCheckpoint* a, const KeptCheckpoint* b) { return is_worse(*b, *a); });
  const auto needed = [&](const KeptCheckpoint& c) {
    return std::any_of(rank.open.begin(), rank.open.end(), [&](const OpenAttempt& open) {
      return open.checkpoint == c.ref.number && saved_ms(rank, open.attempt) == 0;
    });
  };
  std::set<uint32_t> dropped;
  for (size_t i = keeps(config); i < order.size(); ++i) {
    if (i >= 4 * keeps(config) || !needed(*order[i])) dropped.insert(order[i]->ref.number);
  }
  // One record for all that lie between two that stay.
  std::vector<CheckpointsDropped> ranges;
  CheckpointsDropped range{job.id, number, 0, 0};
  for (const KeptCheckpoint& c : rank.checkpoints) {
    if (dropped.contains(c.ref.number)) {
      range.through = c.ref.number;
      continue;
    }
    if (range.through > 0) ranges.push_back(range);
    range.first = c.ref.number + 1;
    range.through = 0;
  }
  if (range.through > 0) ranges.push_back(range);
  for (const CheckpointsDropped& one : ranges) emit(one);
}

void Core::State::drop_all(const Job& job, uint32_t number) {
  const auto rank = job.active.find(number);
  if (rank == job.active.end() || rank->second.checkpoints.empty()) return;
  emit(CheckpointsDropped{job.id, number, rank->second.checkpoints.back().ref.number});
}

void Core::State::drop_before(const Record& record) {
  if (const auto* ended = std::get_if<AttemptEnded>(&record)) {
    const Job* job = ended->final ? find_job(ended->key.job) : nullptr;
    if (job != nullptr) drop_all(*job, ended->key.rank);
    return;
  }
  const auto* cancelled = std::get_if<RanksCancelled>(&record);
  const Job* job = cancelled == nullptr ? nullptr : find_job(cancelled->job);
  if (job == nullptr) return;
  for (auto it = job->active.lower_bound(cancelled->first);
       it != job->active.end() && it->first <= cancelled->last; ++it) {
    if (it->second.open.empty()) drop_all(*job, it->first);
  }
}

// Also after a restart, when the rows of those that were dropped are gone: a rank's checkpoints are
// numbered without gaps, and the newest is kept as long as any is.
void Core::State::note_number(Job& job, uint32_t rank, uint32_t number) {
  uint32_t& highest = job.checkpoint_numbers[rank];
  if (number <= highest) return;
  job.tally.checkpoints += number - highest;
  highest = number;
}

// Its attempt may have been leased again since, in which case its lease comes later.
void Core::State::apply_record(const CheckpointKept& record) {
  Job* job = find_job(record.key.job);
  const uint32_t number = record.key.rank;
  if (job == nullptr || number >= job->ranks.size() || job->ranks.is_final(number)) return;
  ActiveRank& rank = activate(*job, number);
  if (!rank.checkpoints.empty() && rank.checkpoints.back().ref.number >= record.checkpoint.number) {
    return;
  }
  note_number(*job, number, record.checkpoint.number);
  const KeptCheckpoint* best = best_checkpoint(rank);
  if (best == nullptr || record.total_ms >= best->total_ms) {
    uint64_t& saved = rank.saved[record.key.attempt];
    saved = std::max(saved, record.saved_ms);
  }
  KeptCheckpoint kept;
  kept.ref = record.checkpoint;
  kept.attempt = record.key.attempt;
  kept.saved_ms = record.saved_ms;
  kept.total_ms = record.total_ms;
  rank.checkpoints.push_back(kept);
  if (job->gang) job->gang->excuses = 0;
  touch(*job);
}

void Core::State::apply_record(const CheckpointsDropped& record) {
  Job* job = find_job(record.job);
  if (job == nullptr || record.rank >= job->ranks.size()) return;
  note_number(*job, record.rank, record.through);
  const auto rank = job->active.find(record.rank);
  if (rank == job->active.end()) return;
  std::erase_if(rank->second.checkpoints, [&](const KeptCheckpoint& c) {
    return c.ref.number >= record.first && c.ref.number <= record.through;
  });
}

void Core::State::count_death(ActiveRank& rank, uint32_t number, WorkerId worker) {
  const auto checkpoint = find_checkpoint(rank.checkpoints, number);
  if (checkpoint == rank.checkpoints.end()) return;
  if (passes_over(*checkpoint, worker)) checkpoint->passed_over = true;
  if (++checkpoint->deaths == 1) checkpoint->died_on = worker;
}

// An attempt that began from one and lived longer than those that die of theirs has shown that it
// was good, and with it what its program saves.
void Core::State::judge_checkpoint(Job& job, ActiveRank& rank, const AttemptOutcome& outcome) {
  uint32_t none = 0;
  uint32_t& of_gang = job.gang ? job.gang->bad_checkpoints : none;
  if (outcome.reason == EndReason::bad_checkpoint) {
    ++rank.bad_checkpoints;
    ++of_gang;
    return;
  }
  const bool by_itself = uses_up_a_retry(outcome.reason) || outcome.reason == EndReason::vacated ||
                         outcome.reason == EndReason::worker_lost;
  if (rank.last_checkpoint == 0 || !by_itself || outcome.duration_ms <= config.at_once_ms) return;
  rank.bad_checkpoints = of_gang = 0;
}

bool Core::State::excuses_checkpoints(const Job& job, const ActiveRank& rank) const {
  const uint32_t most = most_bad_ends(config);
  return rank.bad_checkpoints < most && (!job.gang || job.gang->bad_checkpoints < most);
}

bool Core::State::died_of_checkpoint(const ActiveRank& rank, const OpenAttempt& open,
                                     const AttemptOutcome& outcome) const {
  if (open.checkpoint == 0 || !uses_up_a_retry(outcome.reason)) return false;
  if (outcome.duration_ms > config.at_once_ms) return false;
  return std::none_of(rank.checkpoints.begin(), rank.checkpoints.end(),
                      [&](const KeptCheckpoint& c) { return c.attempt == open.attempt; });
}

// The program's own way to die stays in the text: it is the only clue to what is wrong with it.
void Core::State::blame_checkpoint(const ActiveRank& rank, const OpenAttempt& open,
                                   AttemptOutcome& outcome) const {
  const std::string number = std::to_string(open.checkpoint);
  std::string detail =
      outcome.reason == EndReason::bad_checkpoint
          ? "checkpoint " + number + " could not be restored: " + outcome.detail
          : "died at once from checkpoint " + number + ": " + short_reason(outcome);
  const auto checkpoint = find_checkpoint(rank.checkpoints, open.checkpoint);
  if (checkpoint != rank.checkpoints.end() && !checkpoint->passed_over &&
      passes_over(*checkpoint, open.worker)) {
    detail = "checkpoint " + number + " is passed over from now on; " + detail;
  }
  outcome.reason = EndReason::bad_checkpoint;
  outcome.detail = bounded(std::move(detail));
}

}  // namespace pesc::coordinator
