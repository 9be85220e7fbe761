#include "tests/sim/record_store.h"

#include <algorithm>
#include <memory>

#include "protocol/codec.h"

namespace pesc::sim {
namespace {

namespace co = coordinator;

JobId job_of(const co::JobAdded& record) { return record.id; }
JobId job_of(const co::AttemptLeased& record) { return record.key.job; }
JobId job_of(const co::AttemptEnded& record) { return record.key.job; }
JobId job_of(const co::CheckpointKept& record) { return record.key.job; }
JobId job_of(const co::WorkerSeen&) { return {}; }
JobId job_of(const co::WorkerDraining&) { return {}; }
template <class T>
JobId job_of(const T& record) {
  return record.job;
}

// Bytes that do not read back are a bug of the codec: the restored core lacks what they said, which
// the checkers see.
void apply(co::Core& core, const co::Record& bare, const std::string& bytes) {
  co::Record record = bare;
  if (auto* added = std::get_if<co::JobAdded>(&record)) {
    auto spec = protocol::parse_spec(bytes);
    if (!spec.ok()) return;
    added->spec = std::make_shared<const JobSpec>(*std::move(spec));
  } else if (auto* ended = std::get_if<co::AttemptEnded>(&record)) {
    auto outcome = protocol::parse_outcome(bytes);
    if (!outcome.ok()) return;
    ended->outcome = *std::move(outcome);
  }
  core.apply(record);
}

}  // namespace

void RecordStore::commit(const std::vector<co::Record>& records) {
  for (const co::Record& record : records) {
    Stored stored{record, {}};
    if (auto* added = std::get_if<co::JobAdded>(&stored.record)) {
      stored.bytes = protocol::serialize_spec(*added->spec);
      added->spec = nullptr;
    } else if (auto* ended = std::get_if<co::AttemptEnded>(&stored.record)) {
      stored.bytes = protocol::serialize_outcome(ended->outcome);
      ended->outcome = {};
    }
    log_.push_back(stored);
    keep(stored, log_.size());
  }
}

void RecordStore::keep(const Stored& stored, uint64_t number) {
  if (const auto* seen = std::get_if<co::WorkerSeen>(&stored.record)) {
    workers_[seen->worker] = stored;
    return;
  }
  if (const auto* draining = std::get_if<co::WorkerDraining>(&stored.record)) {
    draining_[draining->worker] = stored;
    return;
  }
  const JobId id = std::visit([](const auto& one) { return job_of(one); }, stored.record);
  if (std::holds_alternative<co::JobErased>(stored.record)) {
    jobs_.erase(id);
    return;
  }
  JobRows& job = jobs_[id];
  job.records[number] = stored;
  if (const auto* leased = std::get_if<co::AttemptLeased>(&stored.record)) {
    AttemptPlaces& places = job.attempts[leased->key];
    job.records.erase(places.leased);
    job.records.erase(places.ended);
    places = {number, 0};
  } else if (const auto* ended = std::get_if<co::AttemptEnded>(&stored.record)) {
    AttemptPlaces& places = job.attempts[ended->key];
    job.records.erase(places.ended);
    places.ended = number;
  }
}

void RecordStore::restore(co::Core& core, Random& random) const {
  for (const auto& [id, stored] : workers_) apply(core, stored.record, stored.bytes);
  for (const auto& [id, stored] : draining_) apply(core, stored.record, stored.bytes);
  std::vector<const JobRows*> order;
  for (const auto& [id, job] : jobs_) order.push_back(&job);
  if (random.chance(0.5)) std::reverse(order.begin(), order.end());
  for (const JobRows* job : order) {
    for (const auto& [number, stored] : job->records) apply(core, stored.record, stored.bytes);
  }
}

void RecordStore::replay(co::Core& core) const {
  for (const Stored& stored : log_) apply(core, stored.record, stored.bytes);
}

}  // namespace pesc::sim
