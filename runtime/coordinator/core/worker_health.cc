// Workers that get no work although they are there: being drained, or set aside.
#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

void Core::State::on(const WorkerDrained& event) {
  out.actions.push_back(
      AnswerDrain{event.request, absl::NotFoundError("no worker " + event.worker), {}, "", 0});
}

void Core::State::apply_record(const WorkerDraining&) {}

}  // namespace pesc::coordinator
