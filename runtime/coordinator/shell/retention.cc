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
constexpr uint32_t kDroppedAtOnce = 20'000;  // checkpoints of one collection
constexpr TimeMs kCollectionShare = 50;      // a collection that takes t rests for this many t
constexpr size_t kMaxLoose = 1'000'000;
// Packs whose blobs are mostly gone give their space back by being rewritten.
constexpr uint64_t kTolerableWasteBytes = 256ull << 20;

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

// One collection, in two phases: find out what nothing names (while work goes on), then erase it.
struct Service::Collection {
  bool all = false;            // everything that is not named; else only the candidates
  std::vector<JobId> removed;  // what they named are candidates; their rows are purged afterwards
  std::vector<Digest> loose;   // more candidates
  std::filesystem::path journal;

  absl::Status status;
  uint64_t dropped_through = 0;    // checkpoints' blobs that are candidates too
  std::vector<uint64_t> named;     // all: prefixes, sorted
  std::vector<Digest> candidates;  // else: to be erased, sorted
  std::unordered_set<uint64_t> held;

  void find();
  absl::Status find_named(JournalReader& reader);
  absl::Status find_candidates(JournalReader& reader);
  absl::Status each_named(JournalReader& reader, const std::function<void(const Digest&)>& named);
  absl::Status erase(blob::Store& store) const;
};

void Service::Collection::find() {
  absl::StatusOr<std::unique_ptr<JournalReader>> reader = JournalReader::open(journal);
  status = reader.status();
  if (status.ok()) status = all ? find_named(**reader) : find_candidates(**reader);
}

// Everything that must stay. The bound of what was dropped is read before: what is dropped
// meanwhile waits for the next collection.
absl::Status Service::Collection::each_named(JournalReader& reader,
                                             const std::function<void(const Digest&)>& named) {
  if (absl::Status s = reader.checkpoints(named); !s.ok()) return s;
  auto jobs = reader.jobs();
  if (!jobs.ok()) return jobs.status();
  for (const JobId job : *jobs) {
    absl::Status s = each_blob(reader, job, [&](const BlobRef& blob) { named(blob.digest); });
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status Service::Collection::find_named(JournalReader& reader) {
  const auto through = reader.dropped(UINT32_MAX, [](const Digest&) {});
  if (!through.ok()) return through.status();
  dropped_through = *through;
  absl::Status s =
      each_named(reader, [&](const Digest& digest) { named.push_back(digest_prefix(digest)); });
  std::sort(named.begin(), named.end());
  named.erase(std::unique(named.begin(), named.end()), named.end());
  return s;
}

absl::Status Service::Collection::find_candidates(JournalReader& reader) {
  candidates = loose;
  const auto through =
      reader.dropped(kDroppedAtOnce, [&](const Digest& digest) { candidates.push_back(digest); });
  if (!through.ok()) return through.status();
  dropped_through = *through;
  for (const JobId job : removed) {
    absl::Status s =
        each_blob(reader, job, [&](const BlobRef& blob) { candidates.push_back(blob.digest); });
    if (!s.ok()) return s;
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
  if (candidates.empty()) return absl::OkStatus();
  std::vector<bool> kept(candidates.size());
  absl::Status s = each_named(reader, [&](const Digest& digest) {
    const auto at = std::lower_bound(candidates.begin(), candidates.end(), digest);
    if (at != candidates.end() && *at == digest) kept[at - candidates.begin()] = true;
  });
  if (!s.ok()) return s;
  std::vector<Digest> gone;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!kept[i]) gone.push_back(candidates[i]);
  }
  candidates = std::move(gone);
  return absl::OkStatus();
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
  const auto still_held = released_holds_.upper_bound(now);
  leftovers_ = leftovers_ || still_held != released_holds_.begin();
  released_holds_.erase(released_holds_.begin(), still_held);
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

void Service::unwanted(const CheckpointOffered& offered) {
  if (loose_.size() + offered.chunks->size() >= kMaxLoose) {
    leftovers_ = true;
    return;
  }
  for (const BlobRef& chunk : *offered.chunks) loose_.push_back(chunk.digest);
  loose_.push_back(offered.manifest.digest);
}

// What is not urgent, and what failed: at the pace that collections have.
void Service::collect_when_due() {
  const TimeMs now = this->now();
  if (leftovers_ && now >= next_full_collection_) {
    leftovers_ = false;
    collect_all_ = true;
  }
  if (now < next_collection_) return;
  if (dropped_ || !loose_.empty() || collect_all_) collect_garbage();
  purge_rows();
}

void Service::collect_garbage() {
  const bool nothing = !collect_all_ && to_collect_.empty() && !dropped_ && loose_.empty();
  if (collecting_ || closed_ || nothing) return;
  collecting_ = true;
  collection_began_ = now();
  touched_.clear();
  // When the disk is full, this may be what makes room. Nothing is on its way to the journal then;
  // what the failed batch named is held for the sake of its session.
  if (!turn_->health().ok()) {
    begin_collection(false);
    return;
  }
  // Results that have been taken, and are on their way to the journal, must be found there.
  turn_->when_drained([weak = weak_from_this()](const absl::Status& status) {
    const auto self = weak.lock();
    if (!self) return;
    if (!status.ok()) {
      self->collecting_ = false;  // it is tried again: collect_when_due()
      return;
    }
    self->begin_collection(std::exchange(self->collect_all_, false));
  });
}

void Service::begin_collection(bool all) {
  auto collection = std::make_shared<Collection>();
  collection->all = all;
  collection->removed = std::exchange(to_collect_, {});
  collection->loose = std::exchange(loose_, {});
  collection->journal = journal_path();
  dropped_ = false;
  if (all) next_full_collection_ = now() + kFullCollectionPauseMs;
  loop_.run_blocking([collection] { collection->find(); },
                     [weak = weak_from_this(), collection] {
                       const auto self = weak.lock();
                       if (self && !self->closed_) self->erase_collected(collection);
                     });
}

// Everything is to be done again.
void Service::collection_failed(const Collection& collection) {
  rpc::log().error("event=blob_collection_failed error=\"{}\"",
                   std::string(collection.status.message()));
  to_collect_.insert(to_collect_.end(), collection.removed.begin(), collection.removed.end());
  loose_.insert(loose_.end(), collection.loose.begin(), collection.loose.end());
  collect_all_ = collect_all_ || collection.all;
  dropped_ = true;
  collecting_ = false;
  next_collection_ = now() + TimeMs(options_.collect_pause_ms);
}

void Service::erase_collected(std::shared_ptr<Collection> collection) {
  if (!collection->status.ok()) {
    collection_failed(*collection);
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
                       self->collected(*collection, *result);
                     });
}

void Service::collected(const Collection& collection, const absl::Status& status) {
  erasing_ = false;
  collecting_ = false;
  erased_fulfiller_->fulfill();
  erased_ = nullptr;
  if (!status.ok()) {
    rpc::log().error("event=blob_erasure_failed error=\"{}\"", std::string(status.message()));
    leftovers_ = true;
  }
  const TimeMs took = now() - collection_began_;
  next_collection_ = now() + std::max(TimeMs(options_.collect_pause_ms), took * kCollectionShare);
  const blob::StoreStats stats = store_->stats();
  if (stats.file_bytes > 2 * stats.live_bytes + kTolerableWasteBytes) collect_all_ = true;
  to_purge_.insert(to_purge_.end(), collection.removed.begin(), collection.removed.end());
  purge_rows();
  if (collection.dropped_through > 0 && !closed_) {
    dropped_ = true;  // there may be more
    journal_thread_->run(
        [through = collection.dropped_through](Journal& journal) {
          // An error: they are collected once more, which does nothing.
          journal.forget_dropped(through).IgnoreError();
        },
        [] {});
  }
  if (!to_collect_.empty()) collect_garbage();
}

// Their rows named the blobs that are gone now. What fails is tried again: collect_when_due().
void Service::purge_rows() {
  if (to_purge_.empty() || purging_rows_ || closed_ || !turn_->health().ok()) return;
  purging_rows_ = true;
  auto result = std::make_shared<absl::StatusOr<bool>>(false);
  const JobId job = to_purge_.back();
  journal_thread_->run(
      [result, job](Journal& journal) { *result = journal.purge(job, kPurgeRows); },
      [this, result, job] {
        purging_rows_ = false;
        if (!result->ok()) return;
        if (**result) {
          purging_.erase(job);
          std::erase(to_purge_, job);
        }
        purge_rows();
      });
}

}  // namespace pesc::coordinator
