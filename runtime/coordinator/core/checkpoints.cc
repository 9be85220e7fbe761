// What is kept of a rank's checkpoint_dir, and from which of them its next attempt begins.
#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

void Core::State::on(const CheckpointOffered& event) {
  out.actions.push_back(AnswerCheckpoint{event.request, absl::OkStatus(), 0});
}

void Core::State::apply_record(const CheckpointKept&) {}
void Core::State::apply_record(const CheckpointsDropped&) {}

}  // namespace pesc::coordinator
