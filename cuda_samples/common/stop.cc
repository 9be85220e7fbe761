#include "common/stop.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

namespace samples {
namespace {

volatile std::sig_atomic_t asked_by = 0;

void remember(int signal) { asked_by = signal; }

}  // namespace

void watch_for_stop() {
  struct sigaction action = {};
  action.sa_handler = remember;
  action.sa_flags = SA_RESTART;
  (void)sigemptyset(&action.sa_mask);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    struct sigaction before = {};
    // What the parent ignores (nohup) stays ignored.
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    (void)sigaction(signal, &action, nullptr);
  }
}

bool stop_requested() { return asked_by != 0; }

void obey_stop() {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) {
    struct sigaction now = {};
    if (sigaction(signal, nullptr, &now) == 0 && now.sa_handler == remember) {
      (void)std::signal(signal, SIG_DFL);
    }
  }
  if (stop_requested()) end_as_asked();
}

void end_as_asked() {
  const int signal = asked_by;
  (void)std::fflush(nullptr);
  (void)std::signal(signal, SIG_DFL);
  (void)std::raise(signal);
  std::_Exit(128 + signal);
}

}  // namespace samples
