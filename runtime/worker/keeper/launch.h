// What happens between the fork of a rank's program and its exec.
#pragma once

namespace pesc::keeper {

// Entry of the program's process; `slot` is a Slot*. Returns only when the program could not be
// started, with the reason in the slot's report.
int run_program(void* slot);

}  // namespace pesc::keeper
