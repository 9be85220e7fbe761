#include "runtime/cli/doctor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/job_spec.h"
#include "rpc/credentials.h"
#include "runtime/worker/containment/containment.h"
#include "runtime/worker/gpu/gpu_findings.h"
#include "runtime/worker/owner/probes.h"

extern char** environ;

namespace pesc::cli {
namespace {

namespace fs = std::filesystem;

enum class Verdict { good, lacking, broken };

struct Finding {
  std::string subject;
  Verdict verdict;
  std::string text;
};
using Findings = std::vector<Finding>;

void machine(Findings& out) {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  struct sysinfo info {};
  sysinfo(&info);
  out.push_back({"machine", Verdict::good,
                 fmt::format("{} cores, {} of memory", cpus,
                             format_bytes(uint64_t{info.totalram} * info.mem_unit))});
}

void embedded_run(Findings& out) {
  Job job;
  job.program = "true";
  job.inject = Inject::none;
  absl::StatusOr<Client> client = Client::local({});
  absl::StatusOr<JobHandle> handle =
      client.ok() ? client->submit(job) : absl::StatusOr<JobHandle>(client.status());
  absl::StatusOr<JobResult> result =
      handle.ok() ? handle->wait() : absl::StatusOr<JobResult>(handle.status());
  if (!result.ok()) {
    out.push_back({"a run here", Verdict::broken, std::string(result.status().message())});
    return;
  }
  if (result->succeeded()) {
    out.push_back({"a run here", Verdict::good, "a rank ran to its end, without a coordinator"});
    return;
  }
  absl::StatusOr<std::vector<WhyLine>> why = client->why(handle->id());
  out.push_back({"a run here", Verdict::broken,
                 why.ok() && !why->empty() ? why->front().reason : "the rank failed"});
}

void coordinator(const Common& common, Findings& out) {
  auto named = rpc::find_coordinator(common.coordinator, rpc::Role::user);
  if (!named.ok()) {
    out.push_back({"coordinator", Verdict::broken, std::string(named.status().message())});
    return;
  }
  if (!named->has_value()) {
    out.push_back(
        {"coordinator", Verdict::good, "none is named: `pesc run` runs in its own process"});
    return;
  }
  absl::StatusOr<Client> client = Client::connect(common.coordinator);
  if (!client.ok()) {
    out.push_back({"coordinator", Verdict::broken, std::string(client.status().message())});
    return;
  }
  absl::StatusOr<std::vector<WorkerStatus>> workers = client->workers();
  size_t attached = 0;
  if (workers.ok()) {
    for (const WorkerStatus& worker : *workers) attached += worker.state == "attached";
  }
  out.push_back({"coordinator", attached > 0 ? Verdict::good : Verdict::lacking,
                 fmt::format("{} answers, {} workers attached", (*named)->address, attached)});
}

// What a worker that this user starts here would have (docs/containment.md).
void containment_here(Findings& out) {
  const containment::Containment trial(containment::Mode::automatic);
  const containment::Features& has = trial.features();
  const auto by = [](int version, const char* otherwise) {
    return version == 0 ? std::string(otherwise) : fmt::format("cgroup v{}", version);
  };
  const bool limits = has.memory != 0 && has.cpu != 0 && has.processes != 0;
  std::string text = fmt::format(
      "memory: {}; cpus: {}; processes: {}", by(has.memory, "looked at every 0.2 s"),
      by(has.cpu, "bound to cores"),
      by(has.processes, geteuid() == 0 ? "a limit of the ranks' user" : "looked at every 0.2 s"));
  if (!limits) text += fmt::format(" ({}; systemd: Delegate=yes in its unit)", trial.lacking());
  out.push_back({"limits of a rank", limits ? Verdict::good : Verdict::lacking, text});
  const bool ends = has.kill != 0 || has.freeze != 0;
  text =
      "every rank has a keeper and a reaper that follows its processes, those that change session "
      "or parent as well; if both are killed at once, ";
  text += ends ? fmt::format("the next keeper ends what they leave ({})",
                             by(has.kill != 0 ? has.kill : has.freeze, ""))
               : "what the rank had started stays: that takes a cgroup";
  out.push_back({"clean-up", ends ? Verdict::good : Verdict::lacking, text});
}

bool can_unshare(const char* flags) {
  std::string command = std::string("unshare ") + flags + " true";
  const char* argv[] = {"sh", "-c", command.c_str(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  pid_t pid;
  int error = posix_spawnp(&pid, "sh", &actions, nullptr, const_cast<char**>(argv), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  return error == 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

void isolation(Findings& out) {
  bool root = geteuid() == 0;
  bool mounts = can_unshare(root ? "-m" : "-Um");
  out.push_back({"read-only shared files", mounts ? Verdict::good : Verdict::lacking,
                 mounts ? "by a mount of the rank's own"
                        : "no mount namespace can be made: shared files are checked after each "
                          "attempt and fetched again when a rank changed them"});
  out.push_back({"separate user for ranks", root ? Verdict::good : Verdict::lacking,
                 root
                     ? "a worker started as root runs its ranks as another (--run-as USER)"
                     : "a worker of this user runs ranks as this user: they can read what it can"});
}

void gpus(Findings& out) {
  constexpr uint64_t kLimitMs = 10'000;  // the first program to ask may wait for the driver to wake
  for (const worker::GpuFinding& finding : worker::find_gpus("", kLimitMs)) {
    out.push_back({finding.subject, finding.good ? Verdict::good : Verdict::lacking, finding.text});
  }
}

// What a worker's [owner] table could go by here.
void owner(Findings& out) {
  for (const worker::owner::Sight& sight : worker::owner::what_is_seen("/")) {
    out.push_back({sight.subject, sight.seen ? Verdict::good : Verdict::lacking, sight.text});
  }
}

void limits(Findings& out) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  bool enough = files.rlim_max >= 4096;
  out.push_back({"open files", enough ? Verdict::good : Verdict::lacking,
                 fmt::format("{} (hard limit {}){}", files.rlim_cur, files.rlim_max,
                             enough ? "" : ": raise it (ulimit -Hn) for a coordinator")});
  std::error_code error;
  fs::path temporary = fs::temp_directory_path(error);
  struct statvfs space {};
  if (error || statvfs(temporary.c_str(), &space) != 0) {
    out.push_back({"temporary directory", Verdict::broken, "there is none: set TMPDIR"});
    return;
  }
  uint64_t free_bytes = uint64_t{space.f_bavail} * space.f_frsize;
  out.push_back({"temporary directory",
                 free_bytes > (1ull << 30) ? Verdict::good : Verdict::lacking,
                 fmt::format("{}, {} free", temporary.string(), format_bytes(free_bytes))});
}

}  // namespace

int doctor(const Common& common) {
  Findings findings;
  machine(findings);
  embedded_run(findings);
  coordinator(common, findings);
  isolation(findings);
  containment_here(findings);
  gpus(findings);
  owner(findings);
  limits(findings);
  bool broken = false, no_coordinator = false;
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    const char* word = finding.verdict == Verdict::good      ? "good"
                       : finding.verdict == Verdict::lacking ? "lacks"
                                                             : "broken";
    if (finding.verdict == Verdict::broken) {
      broken = true;
      no_coordinator = no_coordinator || finding.subject == "coordinator";
    }
    if (common.json) {
      json.push_back({{"subject", finding.subject}, {"verdict", word}, {"text", finding.text}});
    } else {
      fmt::print("{:7} {:24} {}\n", word, finding.subject, finding.text);
    }
  }
  if (common.json) fmt::print("{}\n", dump(json));
  if (no_coordinator) return kNoCoordinator;
  return broken ? kSomeFailed : kSucceeded;
}

}  // namespace pesc::cli
