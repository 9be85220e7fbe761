// What goes: finished jobs by age and size, and the blobs that no job names any more.

#include <algorithm>
#include <iterator>

#include "rpc/log.h"
#include "runtime/coordinator/shell/clock.h"
#include "runtime/coordinator/shell/promises.h"
#include "runtime/coordinator/shell/service.h"

namespace pesc::coordinator {
namespace {

constexpr TimeMs kHoldAfterSessionMs = 3'600'000;
constexpr uint32_t kPurgeRows = 20'000;

bool finished(const JobView& job) {
  return job.state != JobState::waiting && job.state != JobState::running;
}

// Calls `blob` for all that the job names.
absl::Status each_blob(JournalReader& reader, JobId job,
                       const std::function<void(const BlobRef&)>& blob) {
  absl::Status status = reader.inputs(job, blob);
  return status.ok() ? reader.outputs(job, blob) : status;
}

}  // namespace

// One collection, in two phases: find out what no job names (while work goes on), then erase it.
struct Service::Collection {
  bool all = false;            // everything that is not named; else only what `removed` named
  std::vector<JobId> removed;  // their rows are purged afterwards
  std::filesystem::path journal;

  absl::Status status;
  std::vector<uint64_t> named;     // all: prefixes, sorted
  std::vector<Digest> candidates;  // else: to be erased, sorted
  std::unordered_set<uint64_t> held;

  void find();
  void find_named(JournalReader& reader);
  void find_candidates(JournalReader& reader);
  absl::Status erase(blob::Store& store) const;
};

void Service::Collection::find() {
  absl::StatusOr<std::unique_ptr<JournalReader>> reader = JournalReader::open(journal);
  status = reader.status();
  if (!status.ok()) return;
  all ? find_named(**reader) : find_candidates(**reader);
}

void Service::Collection::find_named(JournalReader& reader) {
  auto jobs = reader.jobs();
  status = jobs.status();
  if (!status.ok()) return;
  for (const JobId job : *jobs) {
    status = each_blob(reader, job,
                       [&](const BlobRef& blob) { named.push_back(digest_prefix(blob.digest)); });
    if (!status.ok()) return;
  }
  std::sort(named.begin(), named.end());
  named.erase(std::unique(named.begin(), named.end()), named.end());
}

void Service::Collection::find_candidates(JournalReader& reader) {
  for (const JobId job : removed) {
    status =
        each_blob(reader, job, [&](const BlobRef& blob) { candidates.push_back(blob.digest); });
    if (!status.ok()) return;
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  if (candidates.empty()) return;
  auto jobs = reader.jobs();
  status = jobs.status();
  if (!status.ok()) return;
  std::vector<bool> kept(candidates.size());
  for (const JobId job : *jobs) {
    status = each_blob(reader, job, [&](const BlobRef& blob) {
      const auto at = std::lower_bound(candidates.begin(), candidates.end(), blob.digest);
      if (at != candidates.end() && *at == blob.digest) kept[at - candidates.begin()] = true;
    });
    if (!status.ok()) return;
  }
  std::vector<Digest> gone;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!kept[i]) gone.push_back(candidates[i]);
  }
  candidates = std::move(gone);
}

absl::Status Service::Collection::erase(blob::Store& store) const {
  if (all) {
    return store.retain([this](const Digest& digest) {
      const uint64_t prefix = digest_prefix(digest);
      return held.count(prefix) > 0 || std::binary_search(named.begin(), named.end(), prefix);
    });
  }
  std::vector<Digest> gone;
  std::copy_if(candidates.begin(), candidates.end(), std::back_inserter(gone),
               [this](const Digest& digest) { return held.count(digest_prefix(digest)) == 0; });
  return gone.empty() ? absl::OkStatus() : store.erase(gone);
}

void Service::apply_retention() {
  const TimeMs now = this->now();
  released_holds_.erase(released_holds_.begin(), released_holds_.upper_bound(now));
  std::vector<JobView> jobs;
  uint64_t bytes = 0;
  for (const JobId id : core().jobs()) {
    std::optional<JobView> job = core().job(id);
    if (!job) continue;
    if (const auto size = output_bytes_.find(id); size != output_bytes_.end())
      bytes += size->second;
    if (finished(*job)) jobs.push_back(std::move(*job));
  }
  std::stable_sort(jobs.begin(), jobs.end(), [](const JobView& a, const JobView& b) {
    return a.finished_unix_ms < b.finished_unix_ms;
  });
  const int64_t oldest = wall_ms() - int64_t(options_.retention_ms);
  for (const JobView& job : jobs) {
    const bool too_old = job.finished_unix_ms < oldest;
    const bool too_much = options_.retention_bytes > 0 && bytes > options_.retention_bytes;
    if (!too_old && !too_much) continue;
    bytes -= std::min(bytes, output_bytes_[job.id]);
    rpc::log().info("event=finished_job_removed job={} reason={}", to_string(job.id),
                    too_old ? "age" : "size");
    remove_job(job.id);
  }
}

void Service::remove_job(JobId job) {
  if (!retiring_.insert(job).second) return;
  JobRemoved event;
  event.id = job;
  post(event);
}

// ---- blobs --------------------------------------------------------------------------------------

void Service::touched(const Digest& digest) {
  if (collecting_) touched_.insert(digest_prefix(digest));
}

std::shared_ptr<BlobHold> Service::new_hold() {
  auto hold = std::make_shared<BlobHold>(
      [weak = weak_from_this()](const std::unordered_set<uint64_t>& prefixes) {
        const auto self = weak.lock();
        if (!self || prefixes.empty()) return;
        self->released_holds_[self->now() + kHoldAfterSessionMs].insert(prefixes.begin(),
                                                                        prefixes.end());
      });
  std::erase_if(holds_, [](const auto& weak) { return weak.expired(); });
  holds_.push_back(hold);
  return hold;
}

kj::Promise<void> Service::no_erasing() {
  KJ_IF_MAYBE (erased, erased_) {
    return erased->addBranch();
  }
  return kj::READY_NOW;
}

void Service::collect_garbage() {
  if (collecting_ || closed_ || (!collect_all_ && to_collect_.empty())) return;
  collecting_ = true;
  touched_.clear();
  // Results that have been taken, and are on their way to the journal, must be found there.
  turn_->when_drained([weak = weak_from_this()](const absl::Status& status) {
    const auto self = weak.lock();
    if (!self) return;
    if (!status.ok()) {
      self->collecting_ = false;  // with the next removal, or the next start
      return;
    }
    self->begin_collection(std::exchange(self->collect_all_, false),
                           std::exchange(self->to_collect_, {}));
  });
}

void Service::begin_collection(bool all, std::vector<JobId> removed) {
  auto collection = std::make_shared<Collection>();
  collection->all = all;
  collection->removed = std::move(removed);
  collection->journal = journal_path();
  loop_.run_blocking([collection] { collection->find(); },
                     [weak = weak_from_this(), collection] {
                       const auto self = weak.lock();
                       if (self && !self->closed_) self->erase_collected(collection);
                     });
}

void Service::erase_collected(std::shared_ptr<Collection> collection) {
  if (!collection->status.ok()) {
    rpc::log().error("event=blob_collection_failed error=\"{}\"",
                     std::string(collection->status.message()));
    collecting_ = false;
    return;
  }
  auto& held = collection->held;
  held = std::move(touched_);
  touched_.clear();
  for (const auto& weak : holds_) {
    if (const auto hold = weak.lock())
      held.insert(hold->prefixes().begin(), hold->prefixes().end());
  }
  for (const auto& [until, prefixes] : released_holds_) {
    held.insert(prefixes.begin(), prefixes.end());
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  erased_ = paf.promise.fork();
  erased_fulfiller_ = kj::mv(paf.fulfiller);
  erasing_ = true;
  auto result = std::make_shared<absl::Status>();
  loop_.run_blocking([collection, result, store = store_] { *result = collection->erase(*store); },
                     [collection, result, weak = weak_from_this()] {
                       const auto self = weak.lock();
                       if (!self) return;
                       self->erasing_ = false;
                       self->collecting_ = false;
                       self->erased_fulfiller_->fulfill();
                       self->erased_ = nullptr;
                       if (!result->ok()) {
                         rpc::log().error("event=blob_erasure_failed error=\"{}\"",
                                          std::string(result->message()));
                       }
                       self->purge_rows(collection->removed);
                       self->collect_garbage();
                     });
}

// Their rows named the blobs that are gone now.
void Service::purge_rows(std::vector<JobId> jobs) {
  if (jobs.empty() || closed_) return;
  auto gone = std::make_shared<bool>(false);
  const JobId job = jobs.back();
  journal_thread_->run(
      [gone, job](Journal& journal) {
        absl::StatusOr<bool> purged = journal.purge(job, kPurgeRows);
        *gone = purged.value_or(true);  // an error: at the next start
      },
      [this, gone, jobs = std::move(jobs)]() mutable {
        if (*gone) {
          purging_.erase(jobs.back());
          jobs.pop_back();
        }
        purge_rows(std::move(jobs));
      });
}

}  // namespace pesc::coordinator
