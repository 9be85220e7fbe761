// Held attempts: prepared, and started when their whole gang is ready.
#include "runtime/worker/core/state.h"

namespace pesc::worker {

void Core::State::on(const PortChosen&, TimeMs) {}

}  // namespace pesc::worker
