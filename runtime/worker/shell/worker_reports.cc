// What the worker tells the coordinator: ends, progress, outputs, live logs.
#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "blob/files.h"
#include "rpc/log.h"
#include "runtime/worker/shell/async.h"
#include "runtime/worker/shell/upload.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {

void WorkerShell::on(SendReport& action) {
  std::vector<Session::Finished> small;
  bool sent_large = false;
  for (SendReport::Finished& finished : action.finished) {
    AttemptPtr attempt = find(finished.key);
    if (attempt != nullptr && !finished.outcome.output.empty()) {
      // Packed again, it may be another blob than the core was told of.
      finished.outcome.output = attempt->packed.blob;
      if (attempt->sent_in.has_value() && *attempt->sent_in != session_number_) {
        pack_again_and_send(attempt, std::move(finished), action.last_update);
        sent_large = true;
        continue;
      }
    }
    if (attempt != nullptr && !finished.outcome.output.empty() && !attempt->packed.file.empty()) {
      upload_and_send(std::move(finished), attempt->packed.file, action.last_update);
      sent_large = true;
      continue;
    }
    std::string bytes;
    if (attempt != nullptr && !finished.outcome.output.empty()) bytes = attempt->packed.bytes;
    small.push_back({finished.key, std::move(finished.outcome), std::move(bytes)});
  }
  if (sent_large && small.empty() && action.progress.empty() && action.ready.empty()) return;
  send(std::move(action.holding), action.last_update, std::move(small), std::move(action.progress),
       std::move(action.ready));
}

void WorkerShell::send(std::vector<AttemptKey> holding, uint64_t last_update,
                       std::vector<Session::Finished> finished, std::vector<Progressed> progress,
                       std::vector<SendReport::Ready> ready) {
  std::vector<AttemptKey> keys;
  for (const Session::Finished& end : finished) keys.push_back(end.key);
  // Answers of an ended session are not listened to: the core has sent all of it again.
  tasks_->add(session_->report(holding, last_update, finished, progress, ready, core_->busy())
                  .then(
                      [this, session = session_number_](Session::Answer answer) {
                        if (session != session_number_) return;
                        if (!answer.acknowledged.empty()) {
                          push(Acknowledged{std::move(answer.acknowledged)});
                        }
                        if (answer.stop.empty()) return;
                        UpdateReceived update;
                        update.stop = std::move(answer.stop);
                        push(std::move(update));
                      },
                      [this, keys, session = session_number_](kj::Exception&& e) {
                        if (session != session_number_) return;
                        const std::string why(rpc::to_status(e).message());
                        if (absl::IsInvalidArgument(rpc::to_status(e))) output_refused(keys);
                        if (!keys.empty()) {
                          rpc::log().debug("event=report_failed attempts={} error=\"{}\"",
                                           keys.size(), why);
                          push(ReportFailed{keys, why});
                        }
                      }));
}

void WorkerShell::upload_and_send(SendReport::Finished finished, const std::string& file,
                                  uint64_t last_update) {
  const AttemptKey key = finished.key;
  if (!blobs_) {
    push(ReportFailed{{key}, "there is no session with a coordinator"});
    return;
  }
  tasks_->add(upload_file(loop_, *blobs_, finished.outcome.output, file)
                  .then(
                      [this, finished = std::move(finished), last_update,
                       session = session_number_]() mutable {
                        // Not wanted any more, meanwhile, or sent again in the new session.
                        if (find(finished.key) == nullptr || session != session_number_) return;
                        std::vector<Session::Finished> ends;
                        ends.push_back({finished.key, std::move(finished.outcome), ""});
                        send(core_->holding(), last_update, std::move(ends), {}, {});
                      },
                      [this, key, session = session_number_](kj::Exception&& e) {
                        if (session != session_number_) return;
                        const std::string why(rpc::to_status(e).message());
                        rpc::log().warn(
                            "event=upload_failed attempt=\"{}\" error=\"{}\" next=\"tried again\"",
                            to_string(key), why);
                        push(ReportFailed{{key}, why});
                      }));
}

// It may be that the coordinator does not have any more what was sent while it was packed.
void WorkerShell::output_refused(const std::vector<AttemptKey>& keys) {
  constexpr uint64_t kNoSession = 0;
  for (const AttemptKey& key : keys) {
    AttemptPtr attempt = find(key);
    if (attempt != nullptr && attempt->sent_in.has_value()) attempt->sent_in = kNoSession;
  }
}

// The session in which it was sent is over, and what no record names the coordinator may have
// dropped with it.
void WorkerShell::pack_again_and_send(const AttemptPtr& attempt, SendReport::Finished finished,
                                      uint64_t last_update) {
  if (attempt->packing_again) return;  // its end tells the core to send again
  attempt->packing_again = true;
  ++attempt->pool_jobs;
  tasks_->add(
      blocking(loop_, [order = attempt->pack_order] { return pack_attempt(*order); })
          .then([this, attempt, finished = std::move(finished), last_update,
                 session = session_number_](absl::StatusOr<PackedOutput> output) mutable {
            attempt->packing_again = false;
            if (output.ok()) {
              output->uncollected = std::move(attempt->packed.uncollected);
              attempt->packed = *std::move(output);
              attempt->sent_in.reset();
              attempt->pack_order = nullptr;
            }
            const bool wanted = !attempt->forgotten;
            pool_job_done(attempt);
            if (!wanted) return;
            if (!output.ok() || session != session_number_) {
              const std::string why =
                  output.ok() ? "the session has ended" : std::string(output.status().message());
              push(ReportFailed{{finished.key}, why});
              return;
            }
            finished.outcome.output = attempt->packed.blob;
            if (!attempt->packed.file.empty()) {
              return upload_and_send(std::move(finished), attempt->packed.file, last_update);
            }
            std::vector<Session::Finished> ends;
            ends.push_back({finished.key, std::move(finished.outcome), attempt->packed.bytes});
            send(core_->holding(), last_update, std::move(ends), {}, {});
          }));
}

kj::Promise<LogChunk> WorkerShell::read_log(const AttemptKey& key, uint8_t stream, uint64_t offset,
                                            uint32_t max_bytes) {
  if (stream < 1 || stream > 3) {
    return rpc::to_exception(absl::InvalidArgumentError(
        "stream " + std::to_string(stream) + " is none of 1 (output), 2 (error) and 3 (build)"));
  }
  AttemptPtr attempt = find(key);
  if (attempt == nullptr) {
    return rpc::to_exception(absl::NotFoundError("this worker does not have " + to_string(key)));
  }
  if (stream == 3) return read_build_log(*attempt, offset, max_bytes);
  if (keeper_ == nullptr || !attempt->with_keeper) return LogChunk{"", attempt->running};
  auto paf = kj::newPromiseAndFulfiller<LogChunk>();
  auto fulfiller = std::make_shared<kj::Own<kj::PromiseFulfiller<LogChunk>>>(kj::mv(paf.fulfiller));
  const bool running = attempt->running;
  keeper_->read_output(key, stream, offset, max_bytes,
                       [fulfiller, running](KeeperClient::Output output) {
                         (*fulfiller)->fulfill(LogChunk{std::move(output.data), running});
                       });
  return kj::mv(paf.promise);
}

}  // namespace pesc::worker
