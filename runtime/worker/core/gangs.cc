// Held attempts: prepared, and started when their whole gang is ready.
#include "runtime/worker/core/state.h"

namespace pesc::worker {

// Its cpus are taken already.
void Core::State::hold(const AttemptKey& key, Attempt& attempt) {
  attempt.state = AttemptState::held;
  if (key.rank == 0) {
    out.actions.push_back(ChoosePort{key});
  } else {
    now_ready(attempt);
  }
}

void Core::State::now_ready(Attempt& attempt) {
  attempt.gang_ready = true;
  say_ready = true;
}

void Core::State::on(const PortChosen& e, TimeMs) {
  Attempt* attempt = find(e.key);
  if (attempt == nullptr || attempt->state != AttemptState::held || attempt->gang_ready) return;
  if (e.port == 0) {
    end_before_start(e.key, *attempt, EndReason::port_taken,
                     "no port is free on the worker for the gang's rank 0");
    return;
  }
  attempt->master_port = e.port;
  now_ready(*attempt);
}

void Core::State::start_held(const StartOrder& order) {
  Attempt* attempt = find(order.key);
  // One that is not held any more was started by an order before.
  if (attempt == nullptr || attempt->state != AttemptState::held) return;
  attempt->gang_ready = false;
  begin_start(order.key, *attempt, order.master_addr, order.master_port);
}

void Core::State::begin_start(const AttemptKey& key, Attempt& attempt,
                              const std::string& master_addr, uint16_t master_port) {
  attempt.state = AttemptState::starting;
  enter_slot(key, attempt);
  out.actions.push_back(Start{key, attempt.spec, master_addr, master_port, attempt.local_rank,
                              attempt.local_world_size, attempt.grant});
}

}  // namespace pesc::worker
