// The coordinator's inside: what its sessions share. Lives as long as any of them does; after
// shutdown() every call is refused.
#pragma once

#include <kj/async.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "blob/store.h"
#include "pesc.capnp.h"
#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "rpc/loop.h"
#include "runtime/common/state_dir.h"
#include "runtime/coordinator/core/core.h"
#include "runtime/coordinator/shell/blob_service.h"
#include "runtime/coordinator/shell/coordinator.h"
#include "runtime/coordinator/shell/journal.h"
#include "runtime/coordinator/shell/journal_thread.h"
#include "runtime/coordinator/shell/passing.h"
#include "runtime/coordinator/shell/turn.h"

namespace pesc::coordinator {

// A worker's session, as the turn and those who look for blobs see it.
class WorkerLink : public BlobHolder {
 public:
  virtual void update(SendUpdate update) = 0;
  virtual void close(const std::string& reason) = 0;
  virtual kj::Promise<std::pair<std::string, bool>> read_log(const AttemptKey& key, uint8_t stream,
                                                             uint64_t offset,
                                                             uint32_t max_bytes) = 0;
  virtual TimeMs last_heard() const = 0;
  virtual const std::string& peer_address() const = 0;
};

// Between two collections of everything that nothing names, for leftovers' sake.
inline constexpr TimeMs kFullCollectionPauseMs = 6 * 3'600'000;

class Service final : public TurnHost,
                      public BlobAccess,
                      public std::enable_shared_from_this<Service> {
 public:
  static absl::StatusOr<std::shared_ptr<Service>> open(rpc::Loop& loop, const Options& options);
  ~Service() noexcept override;
  kj::Promise<void> shutdown();

  // ---- for sessions
  // -------------------------------------------------------------------------------
  rpc::Loop& loop() override { return loop_; }
  blob::Store& store() override { return *store_; }
  absl::Status open_status() const override;
  kj::Promise<void> durable() override;
  kj::Promise<void> no_erasing() override;
  bool erasing() const { return erasing_; }
  void touched(const Digest& digest) override;
  std::shared_ptr<BlobHold> new_hold();
  // Blobs of a checkpoint that no record will name.
  void unwanted(const CheckpointOffered& offered);

  const Options& options() const { return options_; }
  const Core& core() const { return turn_->core(); }
  void post(Event event) { turn_->post(std::move(event)); }
  // Posts an event that is answered: with Answer, AnswerAttach, AnswerReport…
  template <typename A, typename E>
  kj::Promise<A> ask(E event) {
    auto paf = kj::newPromiseAndFulfiller<A>();
    event.request = next_request_++;
    pending<A>().emplace(event.request, kj::mv(paf.fulfiller));
    turn_->post(std::move(event));
    return kj::mv(paf.promise);
  }
  // What a view of the core shows may leave when this resolves.
  kj::Promise<void> settled();
  // The next change of a job.
  kj::Promise<void> changed(JobId job);
  bool being_removed(JobId job) const { return purging_.count(job) > 0; }

  kj::Promise<std::vector<RankRow>> read_ranks(JobId job, std::vector<uint32_t> ranks);
  kj::Promise<std::vector<RankRow>> read_page(JobId job, uint32_t first, uint32_t count);
  kj::Promise<std::vector<AttemptRow>> read_failures(JobId job);
  const std::string& worker_name(WorkerId worker);

  uint64_t open_worker(WorkerLink* link);
  void close_worker(uint64_t session);
  WorkerLink* worker(uint64_t session) const;
  Passing& passing() { return passing_; }

  // ---- credentials (credentials belong to the listener; embedded there are none)
  // --------------------
  absl::StatusOr<rpc::TokenStore*> tokens();
  void set_join_address(rpc::Address address, std::string certificate_pem);
  absl::StatusOr<std::string> make_join_file(rpc::Role role, const std::string& name);

  // ---- TurnHost
  // -------------------------------------------------------------------------------------
  TimeMs now() override;
  int64_t wall_ms() override;
  void schedule() override;
  void commit(const Batch& batch) override;
  void restore(uint64_t delay_ms) override;
  void perform(Action action) override;
  void released(const Batch& batch) override;
  void refuse(uint64_t request, const absl::Status& status) override;
  void state_lost(const absl::Status& reason) override;
  void arm(TimeMs deadline) override;

 private:
  template <typename A>
  using Pending = std::unordered_map<uint64_t, kj::Own<kj::PromiseFulfiller<A>>>;
  struct Follow {
    kj::ForkedPromise<void> changed;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };
  struct Collection;

  Service(rpc::Loop& loop, const Options& options, std::filesystem::path dir,
          common::UniqueFd lock);
  absl::Status start();
  absl::Status count_outputs();
  template <typename A>
  Pending<A>& pending();
  template <typename A>
  void answer(A answer);
  template <typename A>
  bool reject(uint64_t request, const absl::Status& status);
  void on_records(const Batch& batch);
  void every(uint64_t period_ms, std::function<void()> work);
  void close_silent_workers();

  // retention.cc
  void apply_retention();
  void remove_job(JobId job);
  void collect_garbage();
  void collect_when_due();
  void begin_collection(bool all);
  void erase_collected(std::shared_ptr<Collection> collection);
  void collection_failed(const Collection& collection);
  void collected(const Collection& collection, const absl::Status& status);
  void purge_rows();

  rpc::Loop& loop_;
  Options options_;
  std::filesystem::path journal_path() const { return dir_ / "journal.db"; }

  std::filesystem::path dir_;
  common::UniqueFd lock_;
  std::shared_ptr<blob::Store> store_;  // shared with the pool
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<JournalReader> reader_;           // on the loop
  std::shared_ptr<struct PoolReader> pool_reader_;  // on the pool
  std::unique_ptr<Turn> turn_;
  std::unique_ptr<JournalThread> journal_thread_;  // refers to the turn's batch: goes first
  bool closed_ = false;

  uint64_t next_request_ = 1, next_session_ = 1;
  Pending<Answer> answers_;
  Pending<AnswerAttach> attaches_;
  Pending<AnswerReport> reports_;
  Pending<AnswerCheckpoint> checkpoints_;
  Pending<AnswerDrain> drains_;
  std::map<uint64_t, WorkerLink*> workers_;
  Passing passing_{loop_, [this](uint64_t session) { return worker(session); }};
  std::map<JobId, Follow> follows_;
  std::set<JobId> changed_;
  std::map<WorkerId, std::string> worker_names_;

  TimeMs armed_ = 0;  // 0: not armed
  kj::Promise<void> timer_ = nullptr;
  kj::Promise<void> restore_delay_ = nullptr;
  std::vector<kj::Promise<void>> periodic_;

  std::map<JobId, uint64_t> output_bytes_;  // of each job
  std::set<JobId> retiring_;                // their removal is under way
  std::set<JobId> purging_;                 // erased, rows or blobs still there
  std::vector<JobId> to_collect_;           // erased since the last collection began
  std::vector<JobId> to_purge_;             // their blobs are collected, their rows are not
  std::vector<Digest> loose_;               // uploaded, and not wanted
  bool dropped_ = false;                    // checkpoints were dropped since it began
  bool collect_all_ = false, collecting_ = false, erasing_ = false, purging_rows_ = false;
  bool leftovers_ = false;  // blobs that a session had uploaded are held no more
  TimeMs collection_began_ = 0, next_collection_ = 0, next_full_collection_ = 0;
  std::unordered_set<uint64_t> touched_;                             // since the collection began
  std::map<uint64_t, std::unordered_set<uint64_t>> released_holds_;  // by the time they end
  std::vector<std::weak_ptr<BlobHold>> holds_;
  kj::Maybe<kj::ForkedPromise<void>> erased_;
  kj::Own<kj::PromiseFulfiller<void>> erased_fulfiller_;

  std::unique_ptr<rpc::TokenStore> tokens_;
  rpc::Address join_address_;
  std::string join_certificate_;
};

template <>
inline Service::Pending<Answer>& Service::pending<Answer>() {
  return answers_;
}
template <>
inline Service::Pending<AnswerAttach>& Service::pending<AnswerAttach>() {
  return attaches_;
}
template <>
inline Service::Pending<AnswerReport>& Service::pending<AnswerReport>() {
  return reports_;
}

template <>
inline Service::Pending<AnswerCheckpoint>& Service::pending<AnswerCheckpoint>() {
  return checkpoints_;
}
template <>
inline Service::Pending<AnswerDrain>& Service::pending<AnswerDrain>() {
  return drains_;
}

protocol::UserSession::Client make_user_session(std::shared_ptr<Service> service,
                                                rpc::Principal principal);
protocol::WorkerSession::Client make_worker_session(std::shared_ptr<Service> service,
                                                    std::string peer_address);
protocol::Front::Client make_front(std::shared_ptr<Service> service, rpc::Peer peer);

// 0-4,7: how `why` names ranks.
class RankRanges {
 public:
  void add(uint32_t rank);  // ascending
  std::string text() const;
  uint32_t count() const { return count_; }

 private:
  std::vector<std::pair<uint32_t, uint32_t>> ranges_;
  uint32_t count_ = 0;
};

}  // namespace pesc::coordinator
