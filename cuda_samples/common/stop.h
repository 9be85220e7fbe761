#pragma once

namespace samples {

// From now on SIGTERM, SIGINT and SIGHUP are remembered, not obeyed at once: the program ends at
// its next safe point, where it has saved a checkpoint.
void watch_for_stop();

bool stop_requested();

// The end of that: signals end the program again, also one that came before.
void obey_stop();

// Ends the process as the signal would have ended it, so that who waits for it sees the truth.
[[noreturn]] void end_as_asked();

}  // namespace samples
