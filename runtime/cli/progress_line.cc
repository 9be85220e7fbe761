#include "runtime/cli/progress_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model/job_spec.h"
#include "runtime/cli/cli.h"

namespace pesc::cli {

uint32_t done_of(const JobStatus& status) {
  return status.succeeded + status.failed + status.cancelled;
}

std::string ProgressLine::text(const Progress& progress, Time now) {
  const JobStatus& status = progress.status;
  uint32_t done = done_of(status);
  if (!start_) {
    start_ = now;
    first_done_ = done;
  }
  double seconds = std::chrono::duration<double>(now - *start_).count();
  // A retry, from elsewhere, takes back what was done.
  first_done_ = std::min(first_done_, done);
  double rate = seconds > 0.5 ? (done - first_done_) / seconds : 0;
  std::string line = fmt::format("{}/{} ranks", done, status.repetitions);
  if (status.running > 0) line += fmt::format(", {} running", status.running);
  if (status.failed > 0) line += fmt::format(", {} failed", status.failed);
  if (status.cancelled > 0) line += fmt::format(", {} cancelled", status.cancelled);
  if (rate > 0) line += fmt::format(", {:.1f}/s", rate);
  if (rate > 0 && done < status.repetitions) {
    line += ", ETA " +
            format_duration_ms(static_cast<uint64_t>((status.repetitions - done) / rate * 1000));
  }
  return line;
}

namespace {

constexpr std::chrono::seconds kNotesEvery{10};

// These were stopped because nobody wanted them any more.
bool counts_as_failed(const std::string& reason) {
  return reason != "succeeded" && reason != "cancelled" && reason != "revoked";
}

}  // namespace

void RetryNotes::update(const JobStatus& status) {
  if (status.finished() || !status.detail.empty()) {  // nothing is tried again
    pending_.clear();
    return;
  }
  uint32_t failed = 0;
  std::string reasons;
  for (const auto& [reason, count] : status.tally.ended) {
    if (!counts_as_failed(reason)) continue;
    failed += count;
    reasons += fmt::format("{}{} {}", reasons.empty() ? "" : ", ", count, reason);
  }
  const uint32_t again = failed - std::min(failed, status.failed);
  const uint32_t starts = status.tally.gang_starts;
  const uint32_t told = failed + starts;
  if (told == told_ || (again == 0 && starts <= 1)) return;
  told_ = told;
  if (failed == 0) {
    pending_ = fmt::format("all ranks start together again (start {})", starts);
    return;
  }
  pending_ = fmt::format("{} attempt{} failed ", failed, failed == 1 ? " has" : "s have");
  pending_ += status.failed == 0
                  ? fmt::format("and {} tried again ({})", failed == 1 ? "is" : "are", reasons)
                  : fmt::format("({}): {} tried again, {} failed for good", reasons, again,
                                count_ranks(status.failed));
  if (starts > 1) pending_ += fmt::format("; all ranks start together again (start {})", starts);
}

std::optional<RetryNotes::Time> RetryNotes::due() const {
  if (pending_.empty()) return std::nullopt;
  return last_ ? *last_ + kNotesEvery : Time();
}

std::optional<std::string> RetryNotes::take(Time now) {
  if (!due() || *due() > now) return std::nullopt;
  last_ = now;
  return std::exchange(pending_, "");
}

std::string with_bar(double fraction, const std::string& line, size_t width) {
  std::string text;
  if (width > line.size() + 14) {
    size_t room = std::min<size_t>(30, width - line.size() - 10);
    size_t full = static_cast<size_t>(fraction * static_cast<double>(room));
    text = fmt::format("[{}{}] {:3.0f}% ", std::string(full, '#'), std::string(room - full, '.'),
                       fraction * 100);
  }
  return (text + line).substr(0, width > 0 ? width - 1 : 0);
}

}  // namespace pesc::cli
