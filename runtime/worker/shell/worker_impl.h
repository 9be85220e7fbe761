// The worker's shell. Internal to this folder; worker.cc has its life, worker_attempts.cc what it
// does for attempts, worker_dirs.cc for their directories, worker_disk.cc for a full disk,
// worker_checkpoints.cc for checkpoints, worker_owner.cc for the machine's owner, worker_gpus.cc
// for GPUs, worker_builds.cc what builds jobs' programs, worker_reports.cc what it tells the
// coordinator.
#pragma once

#include <kj/async.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/contract.h"
#include "rpc/loop.h"
#include "runtime/common/state_dir.h"
#include "runtime/worker/core/core.h"
#include "runtime/worker/gpu/gpu_monitor.h"
#include "runtime/worker/keeper_client/keeper_client.h"
#include "runtime/worker/owner/monitor.h"
#include "runtime/worker/shell/attempt_dirs.h"
#include "runtime/worker/shell/build_index.h"
#include "runtime/worker/shell/cache.h"
#include "runtime/worker/shell/clock.h"
#include "runtime/worker/shell/events_watch.h"
#include "runtime/worker/shell/fetch.h"
#include "runtime/worker/shell/identity.h"
#include "runtime/worker/shell/inputs.h"
#include "runtime/worker/shell/output_sender.h"
#include "runtime/worker/shell/packing.h"
#include "runtime/worker/shell/pass_on.h"
#include "runtime/worker/shell/ports.h"
#include "runtime/worker/shell/quiet_thread.h"
#include "runtime/worker/shell/session.h"
#include "runtime/worker/shell/snapshot.h"
#include "runtime/worker/shell/spare_dirs.h"
#include "runtime/worker/shell/worker.h"

namespace pesc::worker {

// Of the program that tries whether the keeper can make mounts. No job has this key: ids begin with
// a time.
inline constexpr AttemptKey kProbe{};
// Neither has a build: job 0, attempt 1, and the build's number as the rank.
inline bool is_build(const AttemptKey& key) { return key.job.value == 0 && key.attempt != 0; }

// Each piece that is being sent has a window in memory: a machine with many ranks must not have as
// many windows. Taken for one piece at a time, so that a large checkpoint lets the others pass.
class SendSlots {
 public:
  kj::Promise<void> take();
  void release();

 private:
  uint32_t taken_ = 0;
  std::deque<kj::Own<kj::PromiseFulfiller<void>>> waiting_;
};

// What a build has made of a job's files: every rank of it is given these instead.
struct BuiltInputs {
  std::shared_ptr<const JobSpec> source;
  ComputeCapability capability = 0;
  Digest key;
  int64_t looked_boot_ms = 0;  // when the toolchain was looked at
  std::shared_ptr<const JobSpec> spec;
  std::vector<std::pair<std::string, std::string>> links;
  std::vector<BlobRef> blobs;
  std::vector<BlobRef> from_coordinator;  // of these: it has them too
};
using BuiltInputsPtr = std::shared_ptr<const BuiltInputs>;

// A build that is under way, or done and kept until those that waited have it.
struct Build {
  Digest key;
  AttemptKey run;  // for the keeper
  std::shared_ptr<const JobSpec> spec;
  ComputeCapability capability = 0;
  std::vector<std::string> gpus;
  AttemptPaths paths;
  PlacedInputs placed;
  std::vector<BlobRef> pinned;
  std::set<AttemptKey> waiting;
  bool with_keeper = false;  // and has not ended
  bool stopped = false;      // nobody waited any more
  bool binds_failed = false;
  bool done = false;
  std::shared_ptr<std::atomic<bool>> cancelled = std::make_shared<std::atomic<bool>>(false);
};
using BuildPtr = std::shared_ptr<Build>;

// A build that failed for a job a moment ago: leases that were on their way need not try it again.
struct FailedBuild {
  JobId job;
  Digest key;
  int64_t boot_ms = 0;
  PrepareFailed failed;
  std::string log;  // packed
};

// What the shell knows of one attempt, from Prepare or Adopted to Forget.
struct ShellAttempt {
  AttemptKey key;
  std::shared_ptr<const JobSpec> spec;
  AttemptPaths paths;
  std::vector<BlobRef> pinned;
  PlacedInputs placed;
  bool has_directories = false;
  bool adopted = false;
  bool with_keeper = false;  // started there, and not forgotten
  bool running = false;
  bool was_started = false;
  bool binds_failed = false;
  bool tidy_later = false;        // its directories may serve the job's next attempt
  std::vector<std::string> gpus;  // UUIDs of those that it may use
  uint64_t gpu_limit_bytes = 0;   // on each of them; 0: none
  bool over_limit = false;        // it is being ended for what it took
  kj::Promise<void> disk_watch = nullptr;
  int64_t disk_look_ms = 0;  // that the last look at its directories took
  Digest build;              // of its program; zero: not known, or none
  BuiltInputsPtr built;      // what it was given of that
  CheckpointRef checkpoint;  // it begins from
  bool restoring = false;    // that one is being brought: what fails is its fault
  BlobRef saved_manifest;    // of what the coordinator has already
  int64_t started_boot_ms = 0;
  std::optional<int64_t> marked_boot_ms;  // when the program last said `checkpoint`
  uint64_t ran_ms = 0;                    // once it has ended
  uint32_t prepare_number = 0;  // a preparation that was cancelled finds another number here
  uint32_t pool_jobs = 0;       // work that uses its directories; they are deleted after it
  bool forgotten = false;
  KeptExit exit;
  PackedOutput packed;
  // Of an output that was sent while it was packed: in which session, and how to pack it again when
  // that one is over.
  std::optional<uint64_t> sent_in;
  std::shared_ptr<const PackOrder> pack_order;
  bool packing_again = false;
  std::shared_ptr<std::atomic<bool>> save_cancelled;  // of the last SaveCheckpoint
};
using AttemptPtr = std::shared_ptr<ShellAttempt>;

class WorkerShell final : public Worker, public SessionDelegate, public kj::TaskSet::ErrorHandler {
 public:
  WorkerShell(rpc::Loop& loop, Options options, SessionSource sessions);
  ~WorkerShell() noexcept override;

  absl::Status start();

  std::string id() const override { return to_string(identity_.id); }
  kj::Promise<void> drain() override;
  kj::Promise<void> vacate(uint64_t limit_ms) override;
  kj::Promise<void> shutdown() override;

 private:
  // ---- worker.cc
  absl::Status open_state();
  absl::Status check_containment() const;
  absl::Status open_keeper();
  void set_up_core();
  std::vector<std::string> warnings() const;
  void push(Event event);
  void drain_events();
  void plan_later();
  void perform(Action& action);
  void arm_timer();
  void on_welcome(std::vector<KeptAttempt> kept);
  void adopt(KeptAttempt kept);
  void on_keeper_lost(const absl::Status& why);
  void reopen_keeper();
  void taskFailed(kj::Exception&& exception) override;
  std::vector<AttemptKey> holding() override;
  std::vector<Gpu> gpus() override;
  void on_connected(uint64_t heartbeat_ms, protocol::Blobs::Client blobs) override;
  void on_disconnected() override;
  void on_update(UpdateReceived update) override;
  absl::StatusOr<PassOn::Offer> pass_on(const BlobRef& blob, std::string_view ticket,
                                        const std::string& address) override;

  // ---- worker_attempts.cc
  AttemptPtr find(const AttemptKey& key) const;
  void on(Prepare& action);
  void on(CancelPrepare& action);
  void on(Start& action);
  void on(Stop& action);
  void on(Pack& action);
  void on(SendReport& action);
  void on(Forget& action);
  void on(Drained& action);
  kj::Promise<void> place(AttemptPtr attempt, uint32_t number);
  void prepared(const AttemptPtr& attempt, uint32_t number, const absl::Status& status);
  kj::Promise<SharedMode> shared_mode();
  SharedMode without_mounts() const;
  void probe_binds();
  void on_started(const AttemptKey& key, uint32_t pid, int64_t unix_ms, bool binds_done);
  void on_exited(KeptExit exit);
  AttemptOutcome outcome_of(const ShellAttempt& attempt) const;
  const std::string& lease_bytes(const AttemptPtr& attempt);
  void packed(const AttemptPtr& attempt, absl::StatusOr<PackedOutput> output);
  void pack_here(const AttemptPtr& attempt, std::shared_ptr<const PackOrder> order);
  void pack_and_send(const AttemptPtr& attempt, std::shared_ptr<const PackOrder> order);

  // ---- worker_dirs.cc
  std::optional<SpareDir> take_spare(const ShellAttempt& attempt);
  void keep_idle(const JobSpec& spec, std::vector<SpareDir> dirs);
  bool reuse_directories(ShellAttempt& attempt);
  bool has_attempts_of(JobId job) const;
  void pool_job_done(const AttemptPtr& attempt);
  void dispose(const AttemptPtr& attempt);
  void discard(const std::vector<SpareDir>& dirs);
  void empty_trash();

  // ---- worker_checkpoints.cc
  void on(ChoosePort& action);
  void on(SaveCheckpoint& action);
  void on_checkpoint_marked(const AttemptKey& key);
  uint64_t saved_ms(const ShellAttempt& attempt) const;
  int64_t now_ms() const { return options_.now_ms ? options_.now_ms() : boot_ms(); }
  void leave_out_absence();
  static void cancel_save(const ShellAttempt& attempt);
  static std::string snapshot_directory(const ShellAttempt& attempt);
  kj::Promise<void> offer(AttemptPtr attempt, std::shared_ptr<HashedSnapshot> hashed,
                          uint64_t time_ms);
  kj::Promise<void> saved(AttemptPtr attempt, absl::Status status);
  void restore(const AttemptPtr& attempt, uint32_t number);
  bool check_master_port(const Start& action);

  // ---- worker_owner.cc
  void open_monitor();
  void on_verdict(const owner::Verdict& verdict);
  void pace(const AttemptKey& key);
  std::string busy() override { return core_->busy(); }
  Measured measured() override;
  void on_pause(bool paused) override;
  std::vector<Gpu> offered_gpus() const;

  // ---- worker_disk.cc
  void note_full_disk();
  kj::Promise<void> wait_for_disk();
  int try_disk() const;
  void say_busy();

  // ---- worker_gpus.cc
  void open_gpus();
  void start_session();
  void give_gpus(ShellAttempt& attempt, Grant grant, std::vector<std::string>& environment);
  void watch_gpu_use(const ShellAttempt& attempt, uint32_t program);
  void adopt_gpus(ShellAttempt& attempt, uint32_t program);
  bool on_sick_gpu(const ShellAttempt& attempt) const;
  void add_gpu_use(const ShellAttempt& attempt, AttemptOutcome& outcome);

  // ---- worker_builds.cc
  void prepare_built(const AttemptPtr& attempt, uint32_t number, std::vector<std::string> gpus);
  BuiltInputsPtr remembered_build(const JobSpec* spec, ComputeCapability capability) const;
  void use_build(const AttemptPtr& attempt, uint32_t number, BuiltInputsPtr built,
                 std::vector<std::string> gpus);
  void await_build(const AttemptPtr& attempt, const Digest& key, ComputeCapability capability,
                   std::vector<std::string> gpus);
  void leave_build(const AttemptKey& key, const Digest& build);
  void begin_build(BuildPtr build);
  kj::Promise<void> place_build(BuildPtr build, SharedMode mode);
  void launch_build(const BuildPtr& build);
  BuildPtr find_build(const AttemptKey& run) const;
  void on_build_started(const AttemptKey& run, bool binds_done);
  void on_build_exited(KeptExit exit);
  void build_done(const BuildPtr& build, const BuiltTree& tree);
  void build_failed(const BuildPtr& build, PrepareFailed failed, std::string packed_log);
  void build_broken(const BuildPtr& build, const absl::Status& status);
  void end_build(const BuildPtr& build);
  void lose_builds(const std::string& why);
  kj::Promise<LogChunk> read_build_log(const ShellAttempt& attempt, uint64_t offset,
                                       uint32_t max_bytes);
  ComputeCapability capability_of(const std::vector<std::string>& gpus) const;

  // ---- worker_limits.cc
  void watch_disk(const AttemptPtr& attempt);
  void look_at_disk(const AttemptPtr& attempt);
  void look_at_gpus();
  void end_for(ShellAttempt& attempt, EndReason reason, std::string detail);

  // ---- worker_reports.cc
  void send(std::vector<AttemptKey> holding, uint64_t last_update,
            std::vector<Session::Finished> finished, std::vector<Progressed> progress,
            std::vector<SendReport::Ready> ready);
  void upload_and_send(SendReport::Finished finished, const std::string& file,
                       uint64_t last_update);
  void pack_again_and_send(const AttemptPtr& attempt, SendReport::Finished finished,
                           uint64_t last_update);
  void output_refused(const std::vector<AttemptKey>& keys);
  kj::Promise<LogChunk> read_log(const AttemptKey& key, uint8_t stream, uint64_t offset,
                                 uint32_t max_bytes) override;

  rpc::Loop& loop_;
  Options options_;
  SessionSource source_;

  // Opened by start().
  std::filesystem::path state_dir_;
  common::UniqueFd lock_;
  std::optional<RankUser> user_;
  WorkerIdentity identity_;
  std::vector<std::string> too_much_;  // of what its configuration promises
  Machine machine_;
  BaseEnvironment base_;
  std::shared_ptr<AttemptDirs> dirs_;
  std::shared_ptr<Cache> cache_;
  std::shared_ptr<BuildIndex> build_index_;
  std::unique_ptr<PassOn> pass_on_;  // null: it passes nothing on
  std::unique_ptr<Fetcher> fetcher_;
  std::unique_ptr<EventsWatch> watch_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<KeeperClient> keeper_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<owner::Monitor> monitor_;  // null: nobody else has this machine
  std::vector<std::string> full_gpus_;       // as the monitor said last
  std::unique_ptr<GpuMonitor> gpus_;         // null: no driver is asked
  Measured measured_;
  uint64_t measured_cpu_ticks_ = 0;  // of what lived then
  int64_t measured_boot_ms_ = INT64_MIN;
  std::optional<protocol::Blobs::Client> blobs_;
  uint64_t session_number_ = 0;  // what an earlier session left under way is not listened to
  std::unique_ptr<QuietThread> quiet_;
  OutputSender output_sender_{loop_};
  uint64_t named_only_in_ = 0;  // the session whose coordinator takes no output without its name
  SendSlots send_slots_;        // of checkpoints on their way
  PortChooser ports_{gang_ports()};

  std::map<AttemptKey, AttemptPtr> attempts_;
  std::deque<Event> events_;
  std::vector<Action> later_;
  bool drain_planned_ = false, later_planned_ = false;
  bool welcomed_ = false;
  bool stopping_ = false;
  uint32_t keeper_failures_ = 0;
  uint64_t next_outbox_ = 0;
  std::optional<TimeMs> armed_;
  int64_t timer_due_ms_ = INT64_MAX;  // when it fires, if this process runs then
  kj::Promise<void> timer_ = nullptr;

  // Of the job whose ranks start now: each start carries it, serialised.
  std::shared_ptr<const JobSpec> lease_spec_;
  std::string lease_bytes_;

  std::optional<SharedMode> shared_mode_;
  bool probing_ = false;
  std::vector<kj::Own<kj::PromiseFulfiller<SharedMode>>> waiting_for_mode_;

  std::map<Digest, BuildPtr> builds_;
  uint32_t next_build_ = 0;
  std::deque<BuiltInputsPtr> built_;  // of the jobs whose ranks were prepared last
  std::deque<FailedBuild> failed_builds_;

  static constexpr size_t kMostSpares = 256;
  SpareDirs spares_{kMostSpares};
  std::vector<SpareDir> idle_dirs_;  // of the job that ended last
  std::vector<FileRef> idle_files_;  // its inputs
  kj::Promise<void> idle_timer_ = nullptr;
  bool emptying_ = false;
  std::string disk_trouble_;  // why nothing can be written; empty: it can
  kj::Promise<void> disk_timer_ = nullptr;
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> waiting_for_drained_;
  bool drained_ = false;
  kj::Own<kj::PromiseFulfiller<void>> keeper_ended_;

  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::optional<kj::TaskSet> tasks_;
};

}  // namespace pesc::worker
