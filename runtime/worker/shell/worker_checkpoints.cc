// What the shell does for checkpoints and gangs: save, restore, choose ports.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "blob/files.h"
#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/clock.h"
#include "runtime/worker/shell/restore.h"
#include "runtime/worker/shell/upload.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {
namespace {

constexpr size_t kAskAtOnce = 1'000;
constexpr uint64_t kPutBytes = 1 << 20;        // in one call
constexpr uint64_t kUnaskedBytes = 256 << 10;  // so little is sent without asking first
constexpr uint64_t kWriteBytes = 512 << 10;
constexpr uint32_t kSendAtOnce = 8;  // pieces of checkpoints
constexpr int64_t kAbsentMs = 5'000;

using Hashed = std::shared_ptr<HashedSnapshot>;

kj::Promise<void> upload_bytes(protocol::Blobs::Client blobs, const HashedSnapshot::Piece& piece) {
  auto begin = blobs.uploadRequest();
  protocol::encode(begin.initBlob(), piece.blob);
  protocol::Upload::Client upload = begin.send().getUpload();
  kj::Vector<kj::Promise<void>> writes;
  for (uint64_t at = 0; at < piece.bytes.size(); at += kWriteBytes) {
    auto request = upload.writeRequest();
    request.setOffset(at);
    request.setData(protocol::as_data(std::string_view(piece.bytes).substr(at, kWriteBytes)));
    writes.add(request.send().ignoreResult());
  }
  return kj::joinPromises(writes.releaseAsArray()).then([upload]() mutable {
    return upload.finishRequest().send().ignoreResult();
  });
}

// Sends what the coordinator lacks of a snapshot, one large piece at a time.
class Sending {
 public:
  Sending(rpc::Loop& loop, SendSlots& slots, protocol::Blobs::Client blobs, Hashed hashed,
          std::shared_ptr<const std::atomic<bool>> cancelled)
      : loop_(loop),
        slots_(slots),
        blobs_(kj::mv(blobs)),
        hashed_(std::move(hashed)),
        cancelled_(std::move(cancelled)) {}

  kj::Promise<void> run() {
    uint64_t bytes = 0;
    for (const HashedSnapshot::Piece& piece : hashed_->pieces) bytes += piece.blob.size_bytes;
    if (bytes > kUnaskedBytes) return ask(0);
    missing_ = &hashed_->pieces;
    return send(0);
  }

 private:
  kj::Promise<void> ask(size_t first) {
    const std::vector<HashedSnapshot::Piece>& pieces = hashed_->pieces;
    if (first >= pieces.size()) {
      missing_ = &lacking_;
      return send(0);
    }
    const size_t count = std::min(kAskAtOnce, pieces.size() - first);
    auto request = blobs_.missingRequest();
    auto digests = request.initDigests(static_cast<unsigned>(count));
    for (unsigned i = 0; i < count; ++i) {
      digests.set(i, protocol::as_data(pieces[first + i].blob.digest));
    }
    return request.send().then([this, first, count](auto&& response) {
      for (uint32_t index : response.getMissing()) {
        if (index < count) lacking_.push_back(std::move(hashed_->pieces[first + index]));
      }
      return ask(first + count);
    });
  }

  kj::Promise<void> send(size_t next) {
    if (next >= missing_->size()) return kj::READY_NOW;
    return slots_.take()
        .then([this, next]() -> kj::Promise<size_t> {
          if (cancelled_->load()) {
            return rpc::to_exception(absl::CancelledError("it is not wanted any more"));
          }
          return send_from(next);
        })
        .then(
            [this](size_t end) {
              slots_.release();
              return end;
            },
            [this](kj::Exception&& e) -> size_t {
              slots_.release();
              kj::throwFatalException(kj::mv(e));
            })
        .then([this](size_t end) { return send(end); });
  }

  // Returns the next piece that is to be sent.
  kj::Promise<size_t> send_from(size_t next) {
    const std::vector<HashedSnapshot::Piece>& pieces = *missing_;
    const HashedSnapshot::Piece& piece = pieces[next];
    if (!piece.file.empty()) {
      return upload_piece(loop_, blobs_, piece.blob, piece.file, piece.offset).then([next] {
        return next + 1;
      });
    }
    if (piece.bytes.size() > kPutBytes) {
      return upload_bytes(blobs_, piece).then([next] { return next + 1; });
    }
    size_t end = next;
    uint64_t bytes = 0;
    while (end < pieces.size() && pieces[end].file.empty() &&
           bytes + pieces[end].bytes.size() <= kPutBytes) {
      bytes += pieces[end++].bytes.size();
    }
    auto request = blobs_.putRequest();
    auto list = request.initBlobs(static_cast<unsigned>(end - next));
    for (unsigned i = 0; i < list.size(); ++i) {
      list.set(i, protocol::as_data(pieces[next + i].bytes));
    }
    return request.send().ignoreResult().then([end] { return end; });
  }

  rpc::Loop& loop_;
  SendSlots& slots_;
  protocol::Blobs::Client blobs_;
  Hashed hashed_;
  std::shared_ptr<const std::atomic<bool>> cancelled_;
  std::vector<HashedSnapshot::Piece> lacking_;
  const std::vector<HashedSnapshot::Piece>* missing_ = nullptr;
};

}  // namespace

// How much of the attempt's running time what is saved now stands for.
uint64_t WorkerShell::saved_ms(const ShellAttempt& attempt) const {
  const int64_t ran =
      attempt.running ? now_ms() - attempt.started_boot_ms : static_cast<int64_t>(attempt.ran_ms);
  const int64_t marked =
      attempt.marked_boot_ms ? *attempt.marked_boot_ms - attempt.started_boot_ms : ran;
  return static_cast<uint64_t>(std::max<int64_t>(0, std::min(ran, marked)));
}

// A timer that is so late means that this process did not run for a while, and as a rule its ranks
// did not either: the machine slept, or was paused. What they save stands for no work of that time;
// the coordinator compares it with what others have done meanwhile.
void WorkerShell::leave_out_absence() {
  const int64_t now = now_ms();
  if (timer_due_ms_ > now - kAbsentMs) return;
  const int64_t absent_ms = now - std::exchange(timer_due_ms_, now);
  for (auto& [key, attempt] : attempts_) {
    if (!attempt->running) continue;
    attempt->started_boot_ms = std::min(attempt->started_boot_ms + absent_ms, now);
    if (attempt->marked_boot_ms) *attempt->marked_boot_ms += absent_ms;
  }
  push(WasAbsent{absent_ms});
}

void WorkerShell::on_checkpoint_marked(const AttemptKey& key) {
  AttemptPtr attempt = find(key);
  if (attempt == nullptr) return;
  leave_out_absence();
  attempt->marked_boot_ms = now_ms();
  push(CheckpointMarked{key});
}

void WorkerShell::on(SaveCheckpoint& action) {
  AttemptPtr attempt = find(action.key);
  if (attempt == nullptr || !attempt->has_directories) {
    push(CheckpointSaved{action.key, true, ""});  // there is nothing to lose
    return;
  }
  ++attempt->pool_jobs;
  attempt->save_cancelled = std::make_shared<std::atomic<bool>>(false);
  leave_out_absence();
  const uint64_t time_ms = saved_ms(*attempt);
  const uid_t owner = user_ ? user_->uid : ::geteuid();
  const std::string directory = snapshot_directory(*attempt);
  tasks_->add(
      blocking(loop_, [from = attempt->paths.checkpoint, directory,
                       owner] { return take_snapshot(from, directory, owner); })
          .then([this, cancelled = attempt->save_cancelled](absl::StatusOr<Snapshot> snapshot) {
            rpc::throw_if_error(snapshot.status());
            return quiet_->run(
                [hashing = SnapshotHashing(*std::move(snapshot), cancelled)]() mutable {
                  return hashing.step();
                });
          })
          .then([this, attempt, time_ms](absl::StatusOr<HashedSnapshot> hashed) {
            rpc::throw_if_error(hashed.status());
            return offer(attempt, std::make_shared<HashedSnapshot>(*std::move(hashed)), time_ms);
          })
          .then([this, attempt] { return saved(attempt, absl::OkStatus()); },
                [this, attempt](kj::Exception&& e) { return saved(attempt, rpc::to_status(e)); }));
}

// Another attempt has the result, or nobody wants one. (Of a program that has succeeded too.)
void WorkerShell::cancel_save(const ShellAttempt& attempt) {
  if (attempt.save_cancelled != nullptr) attempt.save_cancelled->store(true);
}

std::string WorkerShell::snapshot_directory(const ShellAttempt& attempt) {
  return attempt.paths.root + "/snapshot";
}

kj::Promise<void> WorkerShell::offer(AttemptPtr attempt, Hashed hashed, uint64_t time_ms) {
  const BlobRef manifest = hashed->manifest_blob;
  if (hashed->manifest.files.empty() || manifest == attempt->saved_manifest) return kj::READY_NOW;
  if (!blobs_) {
    return rpc::to_exception(absl::UnavailableError("there is no session with a coordinator"));
  }
  std::vector<BlobRef> chunks;
  chunks.reserve(hashed->pieces.size());
  for (const HashedSnapshot::Piece& piece : hashed->pieces) chunks.push_back(piece.blob);
  hashed->pieces.push_back({manifest, std::move(hashed->manifest_bytes), "", 0});
  auto sending =
      kj::heap<Sending>(loop_, send_slots_, *blobs_, std::move(hashed), attempt->save_cancelled);
  kj::Promise<void> sent = sending->run();
  return sent.attach(kj::mv(sending))
      .then([this, attempt, manifest, chunks = std::move(chunks), time_ms] {
        return session_->checkpoint(attempt->key, manifest, chunks, time_ms);
      })
      .then([attempt, manifest](uint32_t number) {
        attempt->saved_manifest = manifest;
        rpc::log().debug("event=checkpoint_saved attempt=\"{}\" number={}", to_string(attempt->key),
                         number);
      });
}

kj::Promise<void> SendSlots::take() {
  if (taken_ < kSendAtOnce) {
    ++taken_;
    return kj::READY_NOW;
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  waiting_.push_back(kj::mv(paf.fulfiller));
  return kj::mv(paf.promise);
}

void SendSlots::release() {
  if (waiting_.empty()) {
    --taken_;
    return;
  }
  waiting_.front()->fulfill();
  waiting_.pop_front();
}

kj::Promise<void> WorkerShell::saved(AttemptPtr attempt, absl::Status status) {
  if (!status.ok() && !absl::IsUnavailable(status) && !absl::IsAborted(status) &&
      !absl::IsCancelled(status)) {
    rpc::log().warn("event=checkpoint_failed attempt=\"{}\" error=\"{}\" next=\"tried again\"",
                    to_string(attempt->key), std::string(status.message()));
  }
  const auto done = [this, attempt, status] {
    leave_out_absence();
    push(CheckpointSaved{attempt->key, status.ok(), std::string(status.message())});
    pool_job_done(attempt);
  };
  const std::string directory = snapshot_directory(*attempt);
  if (::access(directory.c_str(), F_OK) != 0) {
    done();
    return kj::READY_NOW;
  }
  // Before the next save may begin, which uses the same place.
  return blocking(loop_, [directory] { return remove_tree(directory); }).then([done](absl::Status) {
    done();
  });
}

// The inputs are placed; the attempt's directory is closed to the ranks still.
void WorkerShell::restore(const AttemptPtr& attempt, uint32_t number) {
  attempt->restoring = true;
  RestoreOrder order;
  order.checkpoint = attempt->checkpoint;
  order.paths = attempt->paths;
  order.dirs = dirs_;
  order.cache = cache_;
  order.wanted = [attempt, number] {
    return !attempt->forgotten && attempt->prepare_number == number;
  };
  ++attempt->pool_jobs;
  tasks_->add(restore_checkpoint(loop_, *fetcher_, std::move(order))
                  .then(
                      [this, attempt, number] {
                        pool_job_done(attempt);
                        attempt->saved_manifest = attempt->checkpoint.manifest;
                        prepared(attempt, number, dirs_->open_to_ranks(attempt->paths));
                      },
                      [this, attempt, number](kj::Exception&& e) {
                        pool_job_done(attempt);
                        prepared(attempt, number, rpc::to_status(e));
                      }));
}

void WorkerShell::on(ChoosePort& action) {
  push(PortChosen{action.key, ports_.choose(action.key)});
}

// A gang's port cannot be held for the program, only looked at once more. False: it has ended.
bool WorkerShell::check_master_port(const Start& action) {
  if (action.key.rank != 0 || action.master_port == 0 || port_is_free(action.master_port)) {
    return true;
  }
  AttemptOutcome outcome;
  outcome.reason = EndReason::port_taken;
  outcome.exit_code = -1;
  outcome.detail = "port " + std::to_string(action.master_port) +
                   " was taken by another program before the gang could start";
  push(Exited{action.key, std::move(outcome)});
  return false;
}

}  // namespace pesc::worker
