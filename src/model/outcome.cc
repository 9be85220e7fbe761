#include "model/outcome.h"

#include <array>

#include "model/text.h"

namespace pesc {
namespace {
// In the order of EndReason.
constexpr std::array<std::string_view, 22> kReasonNames = {
    "succeeded",        "exit_code",         "signal",        "cannot_start",
    "time_limit",       "output_limit",      "out_of_memory", "inputs_unavailable",
    "disk_full",        "vacated",           "worker_lost",   "cancelled",
    "revoked",          "port_taken",        "worker_faulty", "bad_checkpoint",
    "outgrew_estimate", "gpu_out_of_memory", "gpu_fault",     "build_failed",
    "gpu_memory_limit", "disk_limit"};
static_assert(static_cast<size_t>(kLastEndReason) + 1 == kReasonNames.size());

// RankState and JobState have the same names in the same order.
constexpr std::array<std::string_view, 5> kStateNames = {"waiting", "running", "succeeded",
                                                         "failed", "cancelled"};
static_assert(static_cast<size_t>(RankState::cancelled) + 1 == kStateNames.size());
static_assert(static_cast<size_t>(JobState::cancelled) + 1 == kStateNames.size());

std::string_view state_name(size_t index) {
  return index < kStateNames.size() ? kStateNames[index] : "unknown";
}
}  // namespace

std::string_view to_string(EndReason reason) {
  const auto index = static_cast<size_t>(reason);
  return index < kReasonNames.size() ? kReasonNames[index] : "unknown";
}

absl::StatusOr<EndReason> parse_end_reason(std::string_view name) {
  for (size_t i = 0; i < kReasonNames.size(); ++i) {
    if (kReasonNames[i] == name) return static_cast<EndReason>(i);
  }
  return absl::InvalidArgumentError(in_quotes(name) +
                                    " is not a reason: use succeeded, exit_code, signal, "
                                    "cannot_start, time_limit or another that ranks.csv shows");
}

bool uses_up_a_retry(EndReason reason) {
  switch (reason) {
    case EndReason::exit_code:
    case EndReason::signal:
    case EndReason::cannot_start:
    case EndReason::time_limit:
    case EndReason::output_limit:
    case EndReason::out_of_memory:
    case EndReason::gpu_memory_limit:
    case EndReason::disk_limit:
      return true;
    case EndReason::succeeded:
    case EndReason::inputs_unavailable:
    case EndReason::disk_full:
    case EndReason::vacated:
    case EndReason::worker_lost:
    case EndReason::cancelled:
    case EndReason::revoked:
    case EndReason::port_taken:
    case EndReason::worker_faulty:
    case EndReason::bad_checkpoint:
    case EndReason::outgrew_estimate:
    case EndReason::gpu_out_of_memory:
    case EndReason::gpu_fault:
    case EndReason::build_failed:
      return false;
  }
  return false;
}

std::string_view to_string(RankState state) { return state_name(static_cast<size_t>(state)); }
std::string_view to_string(JobState state) { return state_name(static_cast<size_t>(state)); }

}  // namespace pesc
