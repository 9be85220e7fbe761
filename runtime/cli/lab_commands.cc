// pesc workers, drain, pause, resume, join-file: about the coordinator rather than one job. And how
// it is found.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "model/ids.h"
#include "model/job_spec.h"
#include "rpc/connection.h"
#include "rpc/credentials.h"
#include "runtime/cli/cli.h"

namespace pesc::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The coordinators that this user runs on this machine: each leaves a join file for the same user's
// tools.
std::vector<std::string> own_coordinators() {
  std::error_code error;
  std::vector<std::string> found;
  fs::path folder = rpc::pointer_path(rpc::kDefaultPort, rpc::Role::admin).parent_path();
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename().string();
    if (name.ends_with(".admin.join")) found.push_back(it->path().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

Json gpus_json(const WorkerStatus& worker) {
  Json out = Json::array();
  for (const GpuStatus& gpu : worker.gpus) {
    out.push_back({{"uuid", gpu.uuid},
                   {"name", gpu.name},
                   {"driver", gpu.driver},
                   {"compute_capability", gpu.compute_capability},
                   {"memory_bytes", gpu.memory_bytes},
                   {"used_bytes", gpu.used_bytes},
                   {"taken_bytes", gpu.taken_bytes},
                   {"ranks", gpu.ranks},
                   {"shared", gpu.shared},
                   {"trouble", gpu.trouble},
                   {"measured_bytes", gpu.measured_bytes}});
  }
  return out;
}

// What its ranks were given, what they take by its own measure, and what there is.
void print_use(const WorkerStatus& worker) {
  if (worker.running == 0) return;
  std::string line =
      fmt::format("  given: {:g} of {:g} cpus, {} of {} of memory", worker.cpus_used, worker.cpus,
                  format_bytes(worker.memory_used_bytes), format_bytes(worker.memory_bytes));
  if (worker.disk_used_bytes > 0) {
    line += fmt::format(", {} of {} of disk", format_bytes(worker.disk_used_bytes),
                        format_bytes(worker.disk_bytes));
  }
  if (worker.memory_measured_bytes > 0) {
    line += fmt::format("; measured: {:.2g} cpus, {} of memory", worker.cpus_measured,
                        format_bytes(worker.memory_measured_bytes));
  }
  print_line(line);
}

// Beside cpus: what few workers have.
void print_scarce(const WorkerStatus& worker) {
  for (const GpuStatus& gpu : worker.gpus) {
    std::string line = fmt::format("  {}: {}, {}, {} ({} for {}", gpu.uuid, gpu.name,
                                   gpu.compute_capability, format_bytes(gpu.memory_bytes),
                                   format_bytes(gpu.used_bytes), count_ranks(gpu.ranks));
    if (gpu.ranks > 0 && gpu.measured_bytes > 0)
      line += ", measured " + format_bytes(gpu.measured_bytes);
    line += ")";
    if (gpu.taken_bytes > 0) {
      line += fmt::format(", {} taken by others", format_bytes(gpu.taken_bytes));
    }
    if (!gpu.shared) line += ", one rank at a time";
    if (!gpu.trouble.empty()) line += ", gets no ranks: " + gpu.trouble;
    print_line(line);
  }
  for (const auto& [name, amount] : worker.named) {
    const auto used = worker.named_used.find(name);
    print_line(fmt::format("  {}: {:g} ({:g})", name, amount,
                           used == worker.named_used.end() ? 0.0 : used->second));
  }
}

int workers(const Common& common) {
  absl::StatusOr<Client> client = connect(common);
  if (!client.ok()) return fail(client.status());
  absl::StatusOr<std::vector<WorkerStatus>> workers = client->workers();
  if (!workers.ok()) return fail(workers.status());
  if (common.json) {
    Json out = Json::array();
    for (const WorkerStatus& w : *workers) {
      out.push_back({{"id", w.id},
                     {"name", w.name},
                     {"room", w.room},
                     {"address", w.address},
                     {"state", w.state},
                     {"cpus", w.cpus},
                     {"cpus_used", w.cpus_used},
                     {"memory_bytes", w.memory_bytes},
                     {"memory_used_bytes", w.memory_used_bytes},
                     {"disk_bytes", w.disk_bytes},
                     {"disk_used_bytes", w.disk_used_bytes},
                     {"resources", w.named},
                     {"resources_used", w.named_used},
                     {"gpus", gpus_json(w)},
                     {"running", w.running},
                     {"finished", w.finished},
                     {"last_seen_unix_ms", w.last_seen_unix_ms},
                     {"software", w.software},
                     {"warnings", w.warnings},
                     {"trouble", w.trouble},
                     {"cpus_measured", w.cpus_measured},
                     {"memory_measured_bytes", w.memory_measured_bytes}});
    }
    fmt::print("{}\n", dump(out));
    return kSucceeded;
  }
  fmt::print("{:16}  {:10}  {:8}  {:>11}  {:>10}  {:>7}  {:>9}  {}\n", "WORKER", "ROOM", "STATE",
             "CPUS (USED)", "MEMORY", "RUNNING", "FINISHED", "ADDRESS");
  std::map<std::string, std::vector<std::string>> noted;  // who says so: most say the same
  for (const WorkerStatus& w : *workers) {
    print_line(fmt::format("{:16}  {:10}  {:8}  {:>11}  {:>10}  {:>7}  {:>9}  {}", w.name, w.room,
                           w.state, fmt::format("{:g} ({:g})", w.cpus, w.cpus_used),
                           format_bytes(w.memory_bytes), w.running, w.finished, w.address));
    print_use(w);
    print_scarce(w);
    if (!w.trouble.empty()) print_line(fmt::format("  gets no work: {}", w.trouble));
    for (const std::string& warning : w.warnings) noted[warning].push_back(w.name);
  }
  for (const auto& [warning, names] : noted) {
    std::string who = names.size() == 1 ? names.front() : fmt::format("{} workers", names.size());
    print_line(fmt::format("note ({}): {}", who, warning));
  }
  if (workers->empty()) fmt::print("no worker has attached yet (pesc-worker --coordinator …)\n");
  return kSucceeded;
}

int drain(const Common& common, const std::string& worker, bool undo) {
  absl::StatusOr<Client> client = connect(common);
  if (!client.ok()) return fail(client.status());
  absl::StatusOr<DrainedWorker> drained = client->drain(worker, !undo);
  if (!drained.ok()) return fail(drained.status());
  if (common.json) {
    fmt::print("{}\n", dump(Json{{"id", drained->id},
                                 {"name", drained->name},
                                 {"draining", !undo},
                                 {"attempts", drained->attempts}}));
    return kSucceeded;
  }
  if (undo) {
    say(drained->name + " gets work again");
  } else if (drained->attempts == 0) {
    say(drained->name +
        " is drained: nothing ran there, and nothing will until pesc drain --undo " +
        drained->name);
  } else {
    say(fmt::format(
        "{} is draining: {} running there {} checkpointed, stopped and placed "
        "elsewhere; see pesc workers",
        drained->name,
        drained->attempts == 1 ? "the rank" : fmt::format("{} ranks", drained->attempts),
        drained->attempts == 1 ? "is" : "are"));
  }
  return kSucceeded;
}

int pause(const Common& common, const std::string& worker, bool resume) {
  absl::StatusOr<Client> client = connect(common);
  if (!client.ok()) return fail(client.status());
  absl::StatusOr<DrainedWorker> paused = client->pause(worker, !resume);
  if (!paused.ok()) return fail(paused.status());
  if (common.json) {
    fmt::print("{}\n", dump(Json{{"id", paused->id},
                                 {"name", paused->name},
                                 {"paused", !resume},
                                 {"attempts", paused->attempts}}));
    return kSucceeded;
  }
  if (resume) {
    say(paused->name + " gets work again, unless its owner or its hours are in the way");
    return kSucceeded;
  }
  say(fmt::format(
      "{} is paused: it gets no work, and what it runs ({}) is frozen, until pesc resume {}",
      paused->name, paused->attempts == 1 ? "1 rank" : fmt::format("{} ranks", paused->attempts),
      paused->name));
  return kSucceeded;
}

// 0600 from the first byte on, and never over a file that is there.
absl::Status write_secret(const std::string& path, const std::string& text) {
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::FailedPreconditionError("'" + path + "' cannot be made: " + strerror(errno));
  }
  bool whole =
      write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
  if (close(fd) != 0 || !whole) {
    return absl::FailedPreconditionError("'" + path + "' cannot be written: " + strerror(errno));
  }
  return absl::OkStatus();
}

int join_file(const Common& common, const std::string& role, const std::string& name,
              const std::string& output) {
  if (role != "worker" && role != "user") {
    return fail(
        absl::InvalidArgumentError("'" + role + "': a join file is for a worker or a user"));
  }
  absl::StatusOr<Client> client = connect(common);
  if (!client.ok()) return fail(client.status());
  absl::StatusOr<std::string> text = client->make_join_file(role, name);
  if (!text.ok()) return fail(text.status());
  if (output.empty() || output == "-") {
    fmt::print("{}\n", *text);
    return kSucceeded;
  }
  absl::Status status = write_secret(output, *text + "\n");
  if (!status.ok()) return fail(status);
  if (role == "worker") {
    say("on the worker's machine: pesc-worker --join-file " + output);
  } else {
    say("on the user's machine: export PESC_COORDINATOR=/path/to/" +
        fs::path(output).filename().string());
  }
  return kSucceeded;
}

}  // namespace

absl::Status as_no_coordinator(const absl::Status& status) {
  if (status.code() == absl::StatusCode::kInvalidArgument) return status;
  return absl::UnavailableError(status.message());
}

absl::StatusOr<Client> connect_named(const std::string& coordinator) {
  absl::StatusOr<Client> client = Client::connect(coordinator);
  if (!client.ok()) return as_no_coordinator(client.status());
  return client;
}

absl::StatusOr<Client> connect(const Common& common) {
  auto found = rpc::find_coordinator(common.coordinator, rpc::Role::user);
  if (!found.ok()) return as_no_coordinator(found.status());
  if (found->has_value()) return connect_named(common.coordinator);
  std::vector<std::string> own = own_coordinators();
  if (own.size() > 1) {
    std::string names;
    for (const std::string& each : own) names += (names.empty() ? "" : ", ") + each;
    return absl::InvalidArgumentError(
        "more than one coordinator of yours runs, or has run, on this machine: name one by "
        "--coordinator or PESC_COORDINATOR (" +
        names + ")");
  }
  if (own.empty()) {
    return absl::InvalidArgumentError(
        "no coordinator is named: give --coordinator HOST:PORT (or a join file), set "
        "PESC_COORDINATOR, or write `coordinator = \"HOST:PORT\"` into " +
        (rpc::user_config_dir() / "config.toml").string());
  }
  return connect_named(own.front());
}

absl::StatusOr<ChosenJob> choose_job(const std::vector<JobStatus>& jobs, const std::string& text,
                                     Several several) {
  if (text == "last" && !jobs.empty()) return ChosenJob{jobs.front().id, ""};
  std::vector<std::string> named, matches;
  for (const JobStatus& job : jobs) {
    bool part = text.size() >= 3 && job.id.find(text) != std::string::npos;
    if (job.name == text) named.push_back(job.id);
    if (job.name == text || part) matches.push_back(job.id);
  }
  if (matches.empty()) return absl::NotFoundError("there is no job '" + text + "' (see pesc jobs)");
  if (matches.size() == 1) return ChosenJob{matches.front(), ""};
  if (named.empty()) {
    return absl::InvalidArgumentError(
        "'" + text + "' is a part of more than one job's id: " + matches[0] + ", " + matches[1] +
        (matches.size() > 2 ? ", …" : "") + ": give more of it");
  }
  if (several == Several::newest) {
    if (named.size() == 1) return ChosenJob{named.front(), ""};
    return ChosenJob{named.front(), fmt::format("{} jobs are named '{}': this is the newest, {}",
                                                named.size(), text, named.front())};
  }
  return absl::InvalidArgumentError(
      fmt::format("'{}' is more than one job; the newest with that name is {}: give its id, or "
                  "another's (see pesc jobs), or last for the newest of all your jobs",
                  text, named.front()));
}

absl::StatusOr<std::string> resolve_job(Client& client, const std::string& text, Several several) {
  absl::StatusOr<JobId> id = parse_job_id(text);
  if (id.ok()) return to_string(*id);
  absl::StatusOr<std::vector<JobStatus>> jobs = client.jobs();
  if (!jobs.ok()) return jobs.status();
  absl::StatusOr<ChosenJob> chosen = choose_job(*jobs, text, several);
  if (!chosen.ok()) return chosen.status();
  if (!chosen->note.empty()) say(chosen->note);
  return chosen->id;
}

std::string format_time(int64_t unix_ms) {
  if (unix_ms == 0) return "-";
  std::time_t seconds = unix_ms / 1000;
  std::tm local{};
  localtime_r(&seconds, &local);
  char text[32];
  strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
  return text;
}

void add_lab_commands(CLI::App& app, Common& common, Commands& commands) {
  CLI::App* workers_app = app.add_subcommand("workers", "The workers of the coordinator");
  add_common_flags(workers_app, common, true);
  commands.push_back({workers_app, [&common] { return workers(common); }});

  struct Drain {
    std::string worker;
    bool undo = false;
  };
  auto drained = std::make_shared<Drain>();
  CLI::App* drain_app = app.add_subcommand(
      "drain", "Move a worker's ranks elsewhere, and give it no more (administrators)");
  add_common_flags(drain_app, common, true);
  drain_app->add_option("worker", drained->worker, "WORKER: its name or id")->required();
  drain_app->add_flag("--undo", drained->undo, "Give it work again");
  commands.push_back(
      {drain_app, [&common, drained] { return drain(common, drained->worker, drained->undo); }});

  for (const bool resume : {false, true}) {
    auto named = std::make_shared<std::string>();
    CLI::App* pause_app = app.add_subcommand(
        resume ? "resume" : "pause",
        resume ? "Undo pause and drain of a worker (administrators)"
               : "Freeze a worker's ranks, and give it no more (administrators)");
    add_common_flags(pause_app, common, true);
    pause_app->add_option("worker", *named, "WORKER: its name or id")->required();
    commands.push_back(
        {pause_app, [&common, named, resume] { return pause(common, *named, resume); }});
  }

  struct Join {
    std::string role, name, output;
  };
  auto join = std::make_shared<Join>();
  CLI::App* join_app = app.add_subcommand(
      "join-file", "Make the file a worker's or a user's machine needs to reach the coordinator");
  add_common_flags(join_app, common, false);
  join_app->add_option("role", join->role, "worker or user")->required();
  join_app->add_option("name", join->name, "Whose it is; a user's name owns jobs");
  join_app->add_option("-o,--output", join->output, "Write it here (mode 0600); default: print it")
      ->type_name("FILE");
  commands.push_back({join_app, [&common, join] {
                        return join_file(common, join->role, join->name, join->output);
                      }});
}

}  // namespace pesc::cli
