// What becomes of attempts' directories: given on to the job's next attempts, or deleted.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {

bool WorkerShell::reuse_directories(ShellAttempt& attempt) {
  std::optional<SpareDir> spare = spares_.take(attempt.key.job);
  if (!spare) return false;
  // A shared copy that was found changed is gone, or about to go.
  const bool usable =
      std::all_of(spare->placed.checks.begin(), spare->placed.checks.end(),
                  [](const SharedUse& use) { return file_print(use.path) == use.print; });
  const bool mode_changed = !spare->placed.binds.empty() && shared_mode_ != SharedMode::bind;
  if (!usable || mode_changed || !dirs_->move(spare->paths, attempt.paths).ok()) {
    discard({*std::move(spare)});
    return false;
  }
  attempt.placed = std::move(spare->placed);
  for (auto& [source, target] : attempt.placed.binds) {
    target.replace(0, spare->paths.root.size(), attempt.paths.root);
  }
  return true;
}

bool WorkerShell::has_attempts_of(JobId job) const {
  const auto first = attempts_.lower_bound(AttemptKey{job, 0, 0});
  return first != attempts_.end() && first->first.job == job;
}

void WorkerShell::pool_job_done(const AttemptPtr& attempt) {
  if (--attempt->pool_jobs == 0 && attempt->forgotten) dispose(attempt);
}

void WorkerShell::dispose(const AttemptPtr& attempt) {
  if (!attempt->packed.file.empty()) ::unlink(attempt->packed.file.c_str());
  if (!attempt->has_directories) return;
  const JobId job = attempt->key.job;
  const bool goes_on = has_attempts_of(job) && !stopping_;
  SpareDir dir{attempt->paths, std::move(attempt->placed)};
  if (goes_on && attempt->tidy_later && tidy(dir, *dirs_)) {
    discard(spares_.keep(job, std::move(dir)));
  } else {
    dirs_->discard(dir.paths);
  }
  if (!goes_on) discard(spares_.drop(job));
  empty_trash();
}

void WorkerShell::discard(const std::vector<SpareDir>& dirs) {
  for (const SpareDir& dir : dirs) dirs_->discard(dir.paths);
}

// One job of the pool for whatever has come together meanwhile.
void WorkerShell::empty_trash() {
  if (emptying_ || !dirs_->has_trash()) return;
  emptying_ = true;
  loop_.run_blocking([dirs = dirs_] { dirs->empty_trash(); },
                     [this, alive = alive_] {
                       if (!*alive) return;
                       emptying_ = false;
                       empty_trash();
                     });
}

}  // namespace pesc::worker
