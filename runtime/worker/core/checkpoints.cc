// When a rank's checkpoint_dir is saved.
#include "runtime/worker/core/state.h"

namespace pesc::worker {

void Core::State::on(const CheckpointMarked&, TimeMs) {}
void Core::State::on(const CheckpointSaved&, TimeMs) {}

}  // namespace pesc::worker
