#include "runtime/cli/progress_line.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/job_spec.h"

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
