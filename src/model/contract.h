// The contract with the user's program: what it is told on its command line and in its environment.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/job_spec.h"

namespace pesc {

// Where one attempt runs, as its worker laid it out.
struct AttemptPlace {
  std::string app_dir, checkpoint_dir, output_dir, temporary_dir, events_file;
  std::string master_addr = "127.0.0.1";
  uint16_t master_port = 9000;
  // Of a parallel job: among its ranks on this worker.
  uint32_t local_rank = 0, local_world_size = 1;
  // Of a parallel job: through which its ranks reach each other; empty: not known.
  std::string network_interface;
};

// The base a rank's environment starts from: what the worker offers.
struct BaseEnvironment {
  std::string path, home, lang;
};

struct Command {
  std::vector<std::string> argv;         // argv[0] is the program as given
  std::vector<std::string> environment;  // "NAME=value", each name once
};

// 64 bits for the rank's random streams, the same on every attempt: the SplitMix64 finaliser
// (Steele, Lea and Flood, OOPSLA 2014) over the job's seed and the rank.
uint64_t rank_seed(uint64_t job_seed, uint32_t rank);

// The command of one attempt. Later entries win: base, job, contract.
Command make_command(const JobSpec& spec, const AttemptKey& key, const AttemptPlace& place,
                     const BaseEnvironment& base);

// Replaces {rank} {world_size} {app_dir} {checkpoint_dir} {output_dir} {master_addr} {master_port}
// {seed} {parameters[i]} {parameters[rank]}; "{{" and "}}" are literal braces, unknown braces stay
// as they are.
std::string expand_placeholders(std::string_view text, const JobSpec& spec, uint32_t rank,
                                const AttemptPlace& place);

// When a program's standard error complains about an argument that PESC added, the flag that helps
// ("--inject env"), else nothing.
std::optional<std::string> injected_argument_refused(std::string_view standard_error);

// A line of the file PESC_EVENTS.
struct RankEvent {
  enum class Kind : uint8_t { progress, metric, checkpoint };
  Kind kind = Kind::progress;
  double value = 0;  // progress in [0, 1], or the metric's value
  std::string text;  // the progress's message, or the metric's name
  bool operator==(const RankEvent&) const = default;
};
// Nothing for a line that is not an event: a program may write what it likes there.
std::optional<RankEvent> parse_event_line(std::string_view line);

// Shell globs over relative paths: * and ? do not cross '/', ** does, [a-z] classes.
bool glob_match(std::string_view pattern, std::string_view path);

}  // namespace pesc
