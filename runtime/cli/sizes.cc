#include "runtime/cli/sizes.h"

#include <fmt/format.h>

#include <algorithm>

#include "client/session.h"
#include "model/job_spec.h"

namespace pesc::cli {
namespace {

// What is shorter has used no cpu time worth measuring.
constexpr double kMeasurableSeconds = 0.1;

std::optional<Size::Measured> measured(std::vector<double> values) {
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return Size::Measured{values.front(), (values[n / 2] + values[(n - 1) / 2]) / 2, values.back()};
}

std::optional<double> stated(double value) {
  return value > 0 ? std::optional<double>(value) : std::nullopt;
}

std::string bytes(double value) { return format_bytes(uint64_t(value)); }
std::string plain(double value) { return fmt::format("{:.3g}", value); }

std::string line(const char* name, const Size& size, std::string (*text)(double)) {
  const auto one = [&](const std::optional<double>& value) {
    return value ? text(*value) : std::string("-");
  };
  std::string seen = "-";
  if (size.measured) {
    seen = fmt::format("{}, {}, {}", text(size.measured->min), text(size.measured->median),
                       text(size.measured->max));
  }
  return fmt::format("  {:10}  {:>9}  {:32}  {:>9}", name, one(size.asked), seen, one(size.limit));
}

}  // namespace

absl::StatusOr<Resources> asked_by(Client& client, const std::string& job) {
  const absl::StatusOr<JobId> id = parse_job_id(job);
  if (!id.ok()) return id.status();
  return client.session()->call<Resources>([id = *id](client::UserSession& user) {
    auto request = user.specRequest();
    request.setId(id.value);
    return request.send().then([](auto response) {
      const auto spec = response.getSpec();
      Resources asked;
      asked.cpus_milli = spec.getCpusMilli();
      asked.memory_bytes = spec.getMemoryBytes();
      asked.disk_bytes = spec.getDiskBytes();
      asked.gpus_milli = spec.getGpusMilli();
      asked.gpu_memory_bytes = spec.getGpuMemoryBytes();
      return asked;
    });
  });
}

Sizes sizes_of(const Resources& asked, const std::vector<RankResult>& ranks) {
  Sizes sizes;
  std::vector<double> cpus, memory, written, gpu_memory;
  double memory_limit = 0, gpu_limit = 0;
  for (const RankResult& rank : ranks) {
    if (rank.state != State::succeeded && rank.state != State::failed) continue;
    if (rank.seconds >= kMeasurableSeconds) cpus.push_back(rank.cpu_seconds / rank.seconds);
    if (rank.max_rss_bytes > 0) memory.push_back(double(rank.max_rss_bytes));
    written.push_back(double(rank.written_bytes));
    if (rank.peak_gpu_bytes > 0) gpu_memory.push_back(double(rank.peak_gpu_bytes));
    memory_limit = std::max(memory_limit, double(rank.memory_limit_bytes));
    gpu_limit = std::max(gpu_limit, double(rank.gpu_memory_bytes));
  }
  sizes.cpus = {asked.cpus_milli / 1000.0, measured(cpus), asked.cpus_milli / 1000.0};
  sizes.memory = {stated(double(asked.memory_bytes)), measured(memory), stated(memory_limit)};
  sizes.disk = {stated(double(asked.disk_bytes)), std::nullopt, stated(double(asked.disk_bytes))};
  sizes.written = {std::nullopt, measured(written), std::nullopt};
  sizes.gpus = {stated(asked.gpus_milli / 1000.0), std::nullopt, stated(asked.gpus_milli / 1000.0)};
  sizes.gpu_memory = {stated(double(asked.gpu_memory_bytes)), measured(gpu_memory),
                      stated(gpu_limit)};
  return sizes;
}

std::vector<std::string> size_lines(const Sizes& sizes) {
  std::vector<std::string> lines = {fmt::format("{:12}  {:>9}  {:32}  {:>9}", "of a rank", "asked",
                                                "measured: least, median, most", "limit"),
                                    line("cpus", sizes.cpus, plain),
                                    line("memory", sizes.memory, bytes)};
  if (sizes.disk.asked) lines.push_back(line("disk", sizes.disk, bytes));
  if (sizes.written.measured) lines.push_back(line("written", sizes.written, bytes));
  if (sizes.gpus.asked) {
    lines.push_back(line("GPUs", sizes.gpus, plain));
    lines.push_back(line("GPU memory", sizes.gpu_memory, bytes));
  }
  return lines;
}

}  // namespace pesc::cli
