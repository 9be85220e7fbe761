// Parallel jobs: all ranks placed or none, started together, stopped and started again together.
#include "runtime/coordinator/core/state.h"

namespace pesc::coordinator {

void Core::State::apply_record(const GangStarted&) {}

}  // namespace pesc::coordinator
