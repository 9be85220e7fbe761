// The command line `pesc`: what its commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "pesc/pesc.h"

namespace pesc::cli {

enum ExitCode : int {
  kSucceeded = 0,
  kSomeFailed = 1,
  kBadUsage = 2,       // or bad input
  kNoCoordinator = 3,  // the named one does not answer, or refuses
  kInterrupted = 130,
};

// Flags that every command has.
struct Common {
  std::string coordinator;
  bool json = false;
  std::optional<std::vector<std::string>> after_dashes;  // what follows `--`, when that is there
};

// Prints "pesc: MESSAGE" to standard error and returns the exit code that fits.
int fail(const absl::Status& status);
// Lines may hold what programs and other users wrote: a terminal is shown it and does not obey it.
void say(const std::string& line);         // to standard error, "pesc: " before it
void print_line(const std::string& line);  // to standard output

// "1 rank", "2 ranks".
std::string count_ranks(uint64_t count);

// What keeps a named coordinator from being used: but for a wrong address or file, whatever it is,
// the coordinator "does not answer or refuses".
absl::Status as_no_coordinator(const absl::Status& status);
absl::StatusOr<Client> connect_named(const std::string& coordinator);

// A client of the coordinator that is named, or of the one this user runs on this machine.
absl::StatusOr<Client> connect(const Common& common);
// What to do when several jobs have the name that was given.
enum class Several { newest, refuse };  // what only reads takes the newest, and says so
struct ChosenJob {
  std::string id, note;  // note: to be said, if not empty
};
// A job by its id, by an unambiguous part of it, by its name, or "last". `jobs`: newest first.
absl::StatusOr<ChosenJob> choose_job(const std::vector<JobStatus>& jobs, const std::string& text,
                                     Several several);
absl::StatusOr<std::string> resolve_job(Client& client, const std::string& text, Several several);

// A command registers its flags and says what runs when it is chosen.
using Run = std::function<int()>;
struct Command {
  CLI::App* app;
  Run run;
};
using Commands = std::vector<Command>;

void add_run_commands(CLI::App& app, Common& common, Commands& commands);     // run, submit
void add_follow_commands(CLI::App& app, Common& common, Commands& commands);  // watch, logs, fetch
void add_job_commands(CLI::App& app, Common& common, Commands& commands);  // jobs, status, why …
void add_stats_command(CLI::App& app, Common& common, Commands& commands);
void add_lab_commands(CLI::App& app, Common& common, Commands& commands);  // workers, join-file …
void add_local_commands(CLI::App& app, Common& common, Commands& commands);  // header, doctor …

void add_common_flags(CLI::App* app, Common& common, bool json);

// Names are bytes; what is not UTF-8 is shown as such characters rather than refused.
std::string dump(const nlohmann::ordered_json& json);

// JSON of the stable kinds, one line.
std::string json_of(const JobStatus& status);
std::string json_of(const std::vector<JobStatus>& jobs);

std::string format_time(int64_t unix_ms);  // local time, "2026-03-01 14:05:11"

}  // namespace pesc::cli
