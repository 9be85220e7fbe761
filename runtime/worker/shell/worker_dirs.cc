// What becomes of attempts' directories: given on to the job's next attempts, or deleted.
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {

namespace {

// For a next job with the same inputs, as one that is submitted again, or another with none.
constexpr auto kIdleFor = kj::MINUTES;

// The next job may be another person's: none of its inputs may be a file that a rank could write
// to. What shared files are there by must be there then: nothing keeps it in the cache.
bool may_idle(const SpareDir& dir) {
  return dir.placed.binds.empty() && dir.placed.checks.empty() &&
         std::all_of(dir.placed.inputs.begin(), dir.placed.inputs.end(),
                     [](const InputPrint& input) { return input.roots_own; });
}

}  // namespace

std::optional<SpareDir> WorkerShell::take_spare(const ShellAttempt& attempt) {
  std::optional<SpareDir> spare = spares_.take(attempt.key.job);
  if (spare || idle_dirs_.empty() || !attempt.spec->build.empty() ||
      attempt.spec->files != idle_files_) {
    return spare;
  }
  spare = std::move(idle_dirs_.back());
  idle_dirs_.pop_back();
  return spare;
}

// The job has no attempts here any more.
void WorkerShell::keep_idle(const JobSpec& spec, std::vector<SpareDir> dirs) {
  if (dirs.empty()) return;
  discard(std::exchange(idle_dirs_, {}));
  idle_files_ = spec.files;
  for (SpareDir& dir : dirs) {
    if (!stopping_ && may_idle(dir) && tidy(dir, *dirs_, true)) {
      idle_dirs_.push_back(std::move(dir));
    } else {
      dirs_->discard(dir.paths);
    }
  }
  idle_timer_ = loop_.timer()
                    .afterDelay(kIdleFor)
                    .then([this] {
                      discard(std::exchange(idle_dirs_, {}));
                      empty_trash();
                    })
                    .eagerlyEvaluate(nullptr);
}

bool WorkerShell::reuse_directories(ShellAttempt& attempt) {
  std::optional<SpareDir> spare = take_spare(attempt);
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
  if (!goes_on) keep_idle(*attempt->spec, spares_.drop(job));
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
