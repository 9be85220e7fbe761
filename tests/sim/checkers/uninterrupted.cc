#include "tests/sim/checkers/uninterrupted.h"

#include <fmt/format.h>

#include <algorithm>

namespace pesc::sim {

std::string Uninterrupted::check(const Ledger& ledger, const coordinator::Record& record,
                                 TimeMs now, uint64_t lease_ms) const {
  const auto* r = std::get_if<coordinator::AttemptEnded>(&record);
  if (r == nullptr || r->outcome.reason != EndReason::worker_lost) return {};
  const LedgerAttempt* attempt = ledger.attempt(r->key);
  if (attempt == nullptr) return {};
  auto heard = heard_.find(attempt->worker);
  const TimeMs last = std::max(started_, heard == heard_.end() ? started_ : heard->second);
  if (now - last >= static_cast<TimeMs>(lease_ms)) return {};
  if (!runs(attempt->worker, r->key)) return {};  // it has said that it does not
  return fmt::format("promise 3: {} runs, and is given up {} ms after its worker was heard",
                     to_string(r->key), now - last);
}

}  // namespace pesc::sim
