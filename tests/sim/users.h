// The users: each job has one that submits it, sometimes twice, cancels, retries, removes. Calls
// and answers can be lost; a call is made again until it is answered.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "tests/sim/coordinator_host.h"
#include "tests/sim/play.h"

namespace pesc::sim {

class Users {
 public:
  Users(Play& play, CoordinatorHost& coordinator);
  void start();
  // Every job that was accepted, removed ones too.
  std::vector<JobId> accepted() const;
  bool all_done() const;  // nothing left to submit or to end

 private:
  enum class Verb : uint8_t { submit, submit_other, cancel, retry, remove };
  struct User {
    const JobPlan* plan = nullptr;
    bool busy = false;
    bool submitted = false, submitted_again = false, cancelled = false, retried = false,
         removed = false, ended_endless = false;
  };
  void look(User& user);
  void call(User& user, Verb verb);
  void attempt(User& user, Verb verb, uint64_t number);
  void answered(User& user, Verb verb, const absl::Status& status);
  coordinator::Event make_event(const User& user, Verb verb, uint64_t request) const;
  void check_answer(const User& user, Verb verb, const absl::Status& status);
  bool finished(const User& user) const;

  Play& play_;
  CoordinatorHost& coordinator_;
  std::vector<User> users_;
  std::map<uint64_t, bool> open_;  // calls that were not answered yet
  uint64_t last_call_ = 0;
};

}  // namespace pesc::sim
