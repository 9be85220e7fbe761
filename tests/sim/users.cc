#include "tests/sim/users.h"

#include <fmt/format.h>

#include <utility>

#include "tests/sim/checkers/durability.h"

namespace pesc::sim {

namespace co = coordinator;

namespace {
constexpr TimeMs kLookMs = 1'000;
// Longer than any message takes: an older copy of a call never arrives after a later call.
constexpr TimeMs kPatienceMs = 8'000;
}  // namespace

Users::Users(Play& play, CoordinatorHost& coordinator) : play_(play), coordinator_(coordinator) {
  for (const JobPlan& plan : play.scenario.jobs) users_.push_back({.plan = &plan});
}

void Users::start() {
  for (User& user : users_) {
    play_.world.after(user.plan->submit_at, [this, &user] { look(user); });
  }
}

std::vector<JobId> Users::accepted() const {
  std::vector<JobId> ids;
  for (const User& user : users_) {
    if (user.submitted) ids.push_back(user.plan->id);
  }
  return ids;
}

bool Users::finished(const User& user) const {
  const LedgerJob* job = play_.ledger.job(user.plan->id);
  return job != nullptr && job->finished;
}

bool Users::all_done() const {
  for (const User& user : users_) {
    if (!user.submitted || user.busy) return false;
    if (!user.removed && !finished(user)) return false;
  }
  return true;
}

// What a user does next, looked at once a second.
void Users::look(User& user) {
  play_.world.after(kLookMs, [this, &user] { look(user); });
  if (play_.ledger.damaged.contains(user.plan->id)) user.removed = user.submitted = true;
  if (user.busy || user.removed) return;
  const JobPlan& plan = *user.plan;
  if (!user.submitted) {
    call(user, Verb::submit);
  } else if (plan.submit_twice && !user.submitted_again) {
    user.submitted_again = true;
    call(user, play_.world.random.chance(0.5) ? Verb::submit : Verb::submit_other);
  } else if (plan.cancel_at != 0 && !user.cancelled && play_.world.now() >= plan.cancel_at) {
    user.cancelled = true;
    call(user, Verb::cancel);
  } else if (finished(user)) {
    if (plan.retry && !user.retried && !play_.healed) {
      user.retried = true;
      call(user, Verb::retry);
    } else if (plan.remove && !user.removed) {
      call(user, Verb::remove);
    }
  } else if (play_.healed && plan.endless && !user.ended_endless) {
    user.ended_endless = true;
    call(user, Verb::cancel);
  }
}

void Users::call(User& user, Verb verb) {
  user.busy = true;
  const uint64_t number = ++last_call_;
  open_[number] = true;
  attempt(user, verb, number);
}

void Users::attempt(User& user, Verb verb, uint64_t number) {
  if (!open_.contains(number)) return;
  if (play_.ledger.damaged.contains(user.plan->id)) {
    open_.erase(number);
    user.busy = false;
    return;
  }
  Random& random = play_.world.random;
  const FaultPlan& faults = play_.scenario.faults;
  play_.world.after(kPatienceMs + random.between(0, 2'000),
                    [this, &user, verb, number] { attempt(user, verb, number); });
  if (play_.goes_wrong(faults.lose_message)) return;
  play_.world.after(random.between(0, faults.longest_delay_ms), [this, &user, verb, number] {
    if (play_.ledger.damaged.contains(user.plan->id)) return;
    const uint64_t request = coordinator_.next_request();
    coordinator_.call(request, make_event(user, verb, request),
                      [this, &user, verb, number](const absl::Status& status, uint32_t) {
                        // It takes no work at present: the same call again, later.
                        if (absl::IsUnavailable(status) || absl::IsResourceExhausted(status)) {
                          return;
                        }
                        check_answer(user, verb, status);
                        if (play_.goes_wrong(play_.scenario.faults.lose_message)) return;
                        if (open_.erase(number) == 0) return;
                        answered(user, verb, status);
                      });
  });
}

co::Event Users::make_event(const User& user, Verb verb, uint64_t request) const {
  const JobId id = user.plan->id;
  const int64_t unix_ms = play_.world.unix_ms();
  switch (verb) {
    case Verb::submit:
      // A copy: the same description read from another message.
      return co::JobSubmitted{request, id, user.plan->owner,
                              std::make_shared<JobSpec>(*user.plan->spec), unix_ms};
    case Verb::submit_other: {
      auto other = std::make_shared<JobSpec>(*user.plan->spec);
      other->repetitions += 1;
      return co::JobSubmitted{request, id, user.plan->owner, std::move(other), unix_ms};
    }
    case Verb::cancel:
      return co::JobCancelled{request, id, unix_ms};
    case Verb::retry:
      return co::JobRetried{request, id, unix_ms};
    case Verb::remove:
      return co::JobRemoved{request, id};
  }
  return co::JobRemoved{request, id};
}

// As the answer leaves the coordinator, whether it arrives or not.
void Users::check_answer(const User& user, Verb verb, const absl::Status& status) {
  const JobId id = user.plan->id;
  if (verb == Verb::submit_other && status.ok()) {
    play_.world.fail(fmt::format("job {} was accepted with two descriptions", to_string(id)));
  }
  if (verb == Verb::submit && !status.ok()) {
    play_.world.fail("a good job was refused: " + status.ToString());
  }
  if (!status.ok()) return;
  if (verb == Verb::submit) play_.expect(check_submit_answered(play_.ledger, id));
  if (verb == Verb::cancel) play_.expect(check_cancel_answered(play_.ledger, id));
  if (verb == Verb::remove) play_.expect(check_remove_answered(play_.ledger, id));
}

void Users::answered(User& user, Verb verb, const absl::Status& status) {
  user.busy = false;
  if (verb == Verb::submit) user.submitted = true;
  // The job may have been reopened, or the removal repeated after its answer was lost.
  if (verb == Verb::remove) {
    user.removed = status.ok() || play_.ledger.erased.contains(user.plan->id);
  }
  if (verb == Verb::cancel && !status.ok() && !finished(user)) {
    play_.world.fail("the cancel of an unfinished job was refused: " + status.ToString());
  }
}

}  // namespace pesc::sim
