#include "tests/sim/checkers/drains.h"

#include <fmt/format.h>

namespace pesc::sim {

std::string check_drain_record(const Ledger& ledger, const coordinator::Record& record) {
  const auto* r = std::get_if<coordinator::AttemptLeased>(&record);
  if (r == nullptr || !ledger.draining.contains(r->worker)) return {};
  // One that was given up for lost, and runs there, may be taken up again.
  if (ledger.attempt(r->key) != nullptr) return {};
  return fmt::format("drain: {} is given to worker {}, which is draining", to_string(r->key),
                     to_string(r->worker));
}

std::string check_drain_answered(const Ledger& ledger, WorkerId worker, bool drain) {
  if (ledger.draining.contains(worker) == drain) return {};
  return fmt::format("promise 1: that worker {} {} was acknowledged, but it is not durable",
                     to_string(worker), drain ? "drains" : "does not drain any more");
}

std::string check_drained_empty(const Ledger& ledger, WorkerId worker, const std::string& name,
                                size_t held) {
  if (held == 0 || !ledger.draining.contains(worker)) return {};
  return fmt::format("drain: {} still holds {} attempts, minutes after its drain", name, held);
}

}  // namespace pesc::sim
