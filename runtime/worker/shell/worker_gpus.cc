// What the shell does about GPUs: which there are, whose they are, what each attempt has had of
// them.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>

#include "asio/post.hpp"
#include "rpc/log.h"
#include "runtime/worker/gpu/cuda_text.h"
#include "runtime/worker/shell/worker_impl.h"

namespace pesc::worker {
namespace {

const std::string kLimitWord = "limit ";

// For the next worker, which knows the process and not what it was given. Only a worker's crash
// must not lose it: when the machine goes, the attempt does too.
std::string gpus_file(const ShellAttempt& attempt) { return attempt.paths.root + "/gpus"; }

void write_gpus(const ShellAttempt& attempt) {
  std::string text;
  for (const std::string& uuid : attempt.gpus) text += uuid + "\n";
  text += kLimitWord + std::to_string(attempt.gpu_limit_bytes) + "\n";
  const std::string path = gpus_file(attempt);
  common::UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (file.get() >= 0 &&
      ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) {
    return;
  }
  rpc::log().warn("event=gpus_not_kept attempt=\"{}\" error=\"{}\"", to_string(attempt.key),
                  std::strerror(errno));
}

void read_gpus(ShellAttempt& attempt) {
  attempt.gpus.clear();
  const absl::StatusOr<std::string> text = common::read_small_file(gpus_file(attempt));
  if (!text.ok()) return;  // it has none
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    if (is_gpu_uuid(line)) attempt.gpus.push_back(line);
    if (line.starts_with(kLimitWord)) {
      attempt.gpu_limit_bytes = std::strtoull(line.c_str() + kLimitWord.size(), nullptr, 10);
    }
  }
}

}  // namespace

void WorkerShell::open_gpus() {
  if (!options_.gpus) return;
  gpus_ = std::make_unique<GpuMonitor>(loop_, *options_.gpus);
  gpus_->on_change([this] { push(ReportWanted{}); });
  gpus_->on_sample([this] { look_at_gpus(); });
}

// The coordinator is told of the worker when it is known what it has; a driver that hangs is not
// waited for longer than the monitor does.
void WorkerShell::start_session() {
  const auto start = [this, alive = alive_] {
    // After the adopted attempts, so that the coordinator hears of them at once.
    asio::post(loop_.io(), [this, alive] {
      if (*alive && !stopping_) session_->start();
    });
  };
  if (!gpus_) return start();
  tasks_->add(gpus_->start().then([this, start] {
    for (const GpuState& state : gpus_->snapshot().gpus) {
      rpc::log().info("event=gpu uuid={} name=\"{}\" memory_mib={} capability={} reports_memory={}",
                      state.gpu.uuid, state.gpu.name, state.gpu.memory_bytes >> 20,
                      state.gpu.compute_capability, state.gpu.reports_memory);
    }
    start();
  }));
}

std::vector<Gpu> WorkerShell::gpus() { return offered_gpus(); }

// Without a lease for one, a rank sees none: it would take what others have been promised. What the
// job says of this variable is for nothing.
void WorkerShell::give_gpus(ShellAttempt& attempt, Grant grant,
                            std::vector<std::string>& environment) {
  attempt.gpus = std::move(grant.gpus);
  attempt.gpu_limit_bytes = grant.gpu_memory_limit_bytes;
  if (!attempt.gpus.empty()) write_gpus(attempt);
  if (!gpus_) return;
  for (std::string& variable : gpu_environment(attempt.gpus)) {
    const std::string name = variable.substr(0, variable.find('=') + 1);
    std::erase_if(environment, [&](const std::string& other) { return other.starts_with(name); });
    environment.push_back(std::move(variable));
  }
}

// The program's parent is the reaper: whatever the program leaves behind is below that one.
void WorkerShell::watch_gpu_use(const ShellAttempt& attempt, uint32_t program) {
  if (!gpus_ || attempt.gpus.empty()) return;
  gpus_->attempt_started(attempt.key, parent_of(program).value_or(program), attempt.gpus);
}

void WorkerShell::adopt_gpus(ShellAttempt& attempt, uint32_t program) {
  read_gpus(attempt);
  if (attempt.running) watch_gpu_use(attempt, program);
}

bool WorkerShell::on_sick_gpu(const ShellAttempt& attempt) const {
  return gpus_ &&
         std::any_of(attempt.gpus.begin(), attempt.gpus.end(), [&](const std::string& uuid) {
           const GpuState* state = gpus_->snapshot().find(uuid);
           return state == nullptr || !state->gpu.trouble.empty();
         });
}

void WorkerShell::add_gpu_use(const ShellAttempt& attempt, AttemptOutcome& outcome) {
  if (attempt.gpus.empty()) return;
  if (gpus_) outcome.peak_gpu_bytes = gpus_->attempt_ended(attempt.key);
  if (outcome.reason != EndReason::exit_code && outcome.reason != EndReason::signal) return;
  GpuFailureFound found = find_gpu_failure(standard_error_of(attempt.exit, attempt.paths));
  if (found.kind == GpuFailure::none) return;
  // The last line of standard error is often a framework's farewell.
  outcome.detail = without_directory(std::move(found.line), attempt.paths.root);
  if (found.kind == GpuFailure::out_of_memory) outcome.reason = EndReason::gpu_out_of_memory;
  // A kernel that fails is mostly the program's bug, unless its GPU is in trouble.
  const bool sick = found.kind == GpuFailure::kernel_fault && on_sick_gpu(attempt);
  if (found.kind == GpuFailure::device_fault || sick) outcome.reason = EndReason::gpu_fault;
  rpc::log().info("event=gpu_failure attempt=\"{}\" kind={} text=\"{}\"", to_string(attempt.key),
                  to_string(found.kind), outcome.detail);
}

}  // namespace pesc::worker
