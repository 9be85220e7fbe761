// Cgroups, and the look at what they do not bound.
// First, as in the keeper's other files: what Asio allocates with depends on what came before it.
// clang-format off
#include "runtime/worker/keeper/keeper.h"
// clang-format on

#include <stdio.h>

#include <algorithm>

namespace pesc::keeper {
namespace {

using std::chrono::milliseconds;

// A look costs some 20 µs for each process: 0.1 ‰ of a core at this pace.
constexpr milliseconds kLook{200};
// What has no limit is only measured.
constexpr uint64_t kSeldom = 5;
// So many new processes and threads on the whole machine since the last look are looked at at once.
constexpr uint64_t kManyTasks = 400;

// "0.1 0.2 0.3 RUNNING/ALL LAST"
uint64_t tasks_of_machine() {
  unsigned long all = 0;
  if (FILE* file = fopen("/proc/loadavg", "re")) {
    if (fscanf(file, "%*s %*s %*s %*u/%lu", &all) != 1) all = 0;
    fclose(file);
  }
  return all;
}

}  // namespace

// The mode is the worker's to choose; what runs stays as it was started.
void Keeper::open_containment(protocol::keeper::ToKeeper::Hello::Reader hello) {
  using containment::Mode;
  const auto mode =
      static_cast<Mode>(std::min(hello.getContainment(), static_cast<uint8_t>(Mode::none)));
  const bool other =
      around_.containment == nullptr || (around_.containment->mode() != mode && running_ == 0);
  if (other) {
    around_.containment.reset();
    around_.containment = std::make_unique<containment::Containment>(mode);
  }
  relax_ = hello.getRelax();
  around_.containment->tighten();
}

void Keeper::watch_limits() {
  if (watching_limits_) return;
  const bool needed = std::any_of(shims_.begin(), shims_.end(), [](const auto& entry) {
    return entry.second->watch_needed() != Attempt::Watch::not_needed;
  });
  if (!needed) return;
  watching_limits_ = true;
  limits_timer_.expires_after(kLook);
  limits_timer_.async_wait([this](std::error_code error) {
    watching_limits_ = false;
    if (error) return;
    look_at_limits();
    watch_limits();
  });
}

void Keeper::look_at_limits() {
  const uint64_t tasks = tasks_of_machine();
  const bool bomb = tasks > tasks_ + kManyTasks && tasks_ != 0;
  tasks_ = tasks;
  const bool all = looks_++ % kSeldom == 0;
  for (const auto& [shim, attempt] : shims_) {
    const Attempt::Watch watch = attempt->watch_needed();
    const bool due = watch == Attempt::Watch::often ||
                     (watch == Attempt::Watch::now_and_then && all) ||
                     (bomb && attempt->may_multiply());
    if (due) attempt->look_at_usage();
  }
}

}  // namespace pesc::keeper
