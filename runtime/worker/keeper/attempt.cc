#include "runtime/worker/keeper/attempt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <new>
#include <utility>

#include "runtime/worker/keeper/explain.h"
#include "runtime/worker/keeper/framing.h"

namespace pesc::keeper {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

constexpr size_t kSlotsKept = 128;

int64_t unix_ms() {
  return duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The keeper's own walks over trees; a shim has its own list in its slot.
pid_t* scratch_pids() {
  static pid_t pids[kTreeCapacity];
  return pids;
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  std::string number = std::to_string(signal);
  return name == nullptr ? "signal " + number
                         : std::string("SIG") + name + " (signal " + number + ")";
}

// A file descriptor pair whose reading end never blocks; the writing end, which is the program's,
// does.
bool make_pipe(int& reader, int& writer) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  reader = ends[0];
  writer = ends[1];
  return ::fcntl(reader, F_SETFL, O_NONBLOCK) == 0;
}

std::string path_in(const std::string& directory, const char* name) {
  return directory.empty() ? std::string() : directory + "/" + name;
}

}  // namespace

SlotPool::~SlotPool() {
  for (Slot* slot : free_) ::munmap(slot, sizeof(Slot));
}

Slot* SlotPool::take() {
  if (!free_.empty()) {
    Slot* slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void* memory = ::mmap(nullptr, sizeof(Slot), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : new (memory) Slot;
}

void SlotPool::give_back(Slot* slot) {
  if (free_.size() < kSlotsKept) {
    free_.push_back(slot);
  } else {
    ::munmap(slot, sizeof(Slot));
  }
}

Attempt::Attempt(Surroundings& around, protocol::keeper::Start::Reader start, Finished finished)
    : around_(around),
      finished_(std::move(finished)),
      key_{{start.getKey().getJob()}, start.getKey().getRank(), start.getKey().getAttempt()},
      lease_(as_string(start.getLease())),
      working_directory_(as_string(start.getWorkingDirectory())),
      limits_{start.getMemoryLimitBytes(), start.getCpusMilli(), start.getProcessLimit(),
              start.getIdlePriority()},
      time_limit_(start.getTimeLimitMs()),
      grace_(start.getGraceMs()),
      output_limit_(start.getOutputLimitBytes()),
      most_of_job_(start.getMostOfJob()),
      plan_(std::make_unique<OwnedPlan>()) {
  problem_ = plan_->fill(start);
  std::string spill = as_string(start.getSpillDirectory());
  // A stream outlives its attempt only by a write in progress; its complaints end before that.
  auto complaint = [this](EndReason reason, std::string detail) {
    stop(reason, std::move(detail), grace_);
  };
  output_ = std::make_shared<OutputStream>(around.io, around.spill, "standard output",
                                           path_in(spill, "stdout"), output_limit_, complaint);
  error_ = std::make_shared<OutputStream>(around.io, around.spill, "standard error",
                                          path_in(spill, "stderr"), output_limit_, complaint);
}

Attempt::~Attempt() {
  leave_containment(false);
  release_slot();
}

bool Attempt::open_pipes() {
  int reader = -1;
  LaunchPlan& plan = plan_->plan;
  bool made = make_pipe(reader, plan.stdout_fd);
  if (reader >= 0) output_->open(reader);
  if (!made) return false;
  reader = -1;
  made = make_pipe(reader, plan.stderr_fd);
  if (reader >= 0) error_->open(reader);
  return made;
}

pid_t Attempt::launch() {
  state_ = State::running;
  started_unix_ms_ = unix_ms();
  since_ = Clock::now();
  if (!problem_.empty()) {
    refuse(EndReason::cannot_start, problem_);
    return 0;
  }
  LaunchPlan& plan = plan_->plan;
  plan.keeper = ::getpid();
  plan.restore_limit = around_.restore_limit;
  plan.open_files = around_.open_files;
  around_.oom.look(Clock::now());
  enter_containment();
  long result = 0;
  if (!open_pipes()) result = -errno;
  slot_ = result == 0 ? around_.slots.take() : nullptr;
  if (slot_ != nullptr) {
    result = start_shim(plan, *slot_);
  } else if (result == 0) {
    result = -ENOMEM;
  }
  if (plan.stdout_fd >= 0) ::close(plan.stdout_fd);
  if (plan.stderr_fd >= 0) ::close(plan.stderr_fd);
  if (result < 0) {
    StartFailure failure = explain(Stage::fork, static_cast<int>(-result), {}, {}, {}, {});
    refuse(EndReason::cannot_start, failure.detail);
    return 0;
  }
  shim_ = static_cast<pid_t>(result);
  arm_limit();
  return shim_;
}

bool Attempt::is_up() const {
  return slot_ == nullptr ? program_pid_ != 0
                          : slot_->report.phase.load() == Phase::running ||
                                slot_->report.phase.load() == Phase::ended;
}

void Attempt::note_started() {
  if (slot_ == nullptr) return;
  program_pid_ = slot_->report.program;
  binds_done_ = slot_->report.binds_done != 0;
  if (state_ != State::running) return;
  if (!contained()) {
    plan_->plan.cgroup_kill = plan_->plan.cgroup_freeze = plan_->plan.freezer_state = nullptr;
  }
  if (stop_reason_ && !told_to_end_) tell_to_end();
  if (frozen_ || throttle_ < 100) apply_pace();
}

// Before the program runs there may be nobody to tell yet: it is told as soon as it does, and only
// once, as many programs take a second SIGTERM for impatience.
void Attempt::tell_to_end() {
  if (!is_up()) return;
  told_to_end_ = true;
  signal_tree(shim_, SIGTERM, scratch_pids(), kTreeCapacity);
}

void Attempt::note_lasting() {
  if (state_ != State::running) return;
  if (limits_.cpus_milli != 0 || limits_.idle) enter_late();
  output_->watch();
  error_->watch();
}

void Attempt::take_output_now() {
  if (state_ != State::running) return;
  output_->take_now();
  error_->take_now();
}

void Attempt::arm(milliseconds after, void (Attempt::*action)()) {
  if (!timer_) timer_.emplace(around_.io);
  timer_->expires_after(after);
  timer_->async_wait([weak = weak_from_this(), action](std::error_code error) {
    auto self = weak.lock();
    if (!error && self && self->state_ == State::running) (self.get()->*action)();
  });
}

void Attempt::arm_limit() {
  if (time_limit_.count() == 0 || stop_reason_ || pace_ == 0) return;
  arm(std::max((time_limit_ - elapsed()) * 100 / pace_, milliseconds(0)), &Attempt::on_time_limit);
}

void Attempt::on_time_limit() {
  // A timer that was slowed late or rearmed may come early.
  if (pace_ == 0 || elapsed() < time_limit_) return arm_limit();
  stop(EndReason::time_limit,
       "ran longer than its time limit of " + std::to_string(time_limit_.count()) + " ms", grace_);
}

void Attempt::stop(EndReason reason, std::string detail, milliseconds grace) {
  if (state_ == State::finished) return;
  // Once the program has ended by itself only what its remaining output shows can change that.
  bool of_output = reason == EndReason::output_limit || reason == EndReason::disk_full;
  if (state_ == State::draining && !of_output) return;
  bool first = !stop_reason_;
  if (first) {
    stop_reason_ = reason;
    stop_detail_ = std::move(detail);
  }
  if (state_ != State::running || shim_ == 0) return;
  if (first) {
    slot_->report.stopping.store(1);
    if (grace.count() > 0) tell_to_end();
    full_pace();
  } else if (timer_ && timer_->expiry() <= Clock::now() + grace) {
    return;  // a later stop can only shorten the grace
  }
  if (grace.count() <= 0) return end_tree();
  arm(grace, &Attempt::end_tree);
}

void Attempt::end_tree() { ::kill(shim_, kEndTreeSignal); }

void Attempt::on_shim_gone(bool clean) {
  end_.duration_ms = static_cast<uint64_t>(elapsed().count());
  timer_.reset();
  full_pace();
  shim_ = 0;
  state_ = State::draining;
  conclude(clean);
  output_->finish([self = shared_from_this()] {
    self->error_->finish([self] {
      if (self->stop_reason_) {
        self->end_.reason = *self->stop_reason_;
        self->end_.detail = self->stop_detail_;
      }
      self->state_ = State::finished;
      std::exchange(self->finished_, nullptr)(*self);
    });
  });
}

void Attempt::conclude(bool clean) {
  const Report& report = slot_->report;
  note_started();
  measure();
  Phase phase = report.phase.load();
  if (phase == Phase::ended) {
    conclude_wait_status(report.wait_status);
    if (report.stuck > 0) {
      end_.detail += (end_.detail.empty() ? "" : "; ") + std::to_string(report.stuck) +
                     " of its processes cannot be ended (waiting for a device, or another user's)";
    }
  } else if (phase == Phase::failed) {
    StartFailure failure = explain(report.stage, report.error, plan_->program(),
                                   plan_->candidates(), working_directory_, plan_->search_path());
    end_.reason = EndReason::cannot_start;
    end_.exit_code = failure.exit_code;
    end_.detail = failure.detail;
  } else {
    end_.reason = EndReason::signal;
    end_.exit_code = -1;
    end_.signal = SIGKILL;
    end_.detail = clean ? "its keeper ended while it was being started"
                        : "the process that watched over it was killed, so it was ended";
    blame_memory(!clean);
  }
  leave_containment(clean && report.stuck == 0);
  release_slot();
  plan_.reset();
}

void Attempt::conclude_wait_status(int status) {
  if (WIFSIGNALED(status)) {
    end_.reason = EndReason::signal;
    end_.exit_code = -1;
    end_.signal = WTERMSIG(status);
    end_.detail = "killed by " + signal_name(end_.signal);
    return blame_memory(end_.signal == SIGKILL);
  }
  end_.exit_code = WEXITSTATUS(status);
  end_.reason = end_.exit_code == 0 ? EndReason::succeeded : EndReason::exit_code;
  // A shell says so of what it ran.
  constexpr int kShellSaysKilled = 128 + SIGKILL;
  if (end_.exit_code != 0) blame_memory(end_.exit_code == kShellSaysKilled);
}

void Attempt::refuse(EndReason reason, std::string detail) {
  end_.reason = reason;
  end_.exit_code = 126;
  end_.detail = std::move(detail);
  state_ = State::finished;
  auto finished = std::exchange(finished_, nullptr);
  output_->finish([] {});
  error_->finish([] {});
  leave_containment(true);
  plan_.reset();
  if (finished) finished(*this);
}

void Attempt::release_slot() {
  if (slot_ == nullptr) return;
  around_.slots.give_back(slot_);
  slot_ = nullptr;
}

}  // namespace pesc::keeper
