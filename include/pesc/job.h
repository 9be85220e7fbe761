// What to run: the description of a job.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace pesc {

/// How a program is told its rank and the rest of the contract.
enum class Inject : uint8_t {
  args,  ///< arguments (`--rank 7 …`) and environment; the default
  env,   ///< environment only: for programs that refuse arguments they do not know
  none,  ///< neither; placeholders such as `{rank}` in the arguments still work
};

/// What one rank needs. A worker is never given more ranks than it has room for.
struct JobResources {
  double cpus = 1;  ///< cores; fractions count; at least 0.001
  /// A rank that takes more is ended. 0: not stated; then it is placed by what the same program,
  /// given the same arguments, took before.
  uint64_t memory_bytes = 0;
  uint64_t disk_bytes = 0;  ///< 0: not stated; placed by, not enforced
  /// GPUs it sees (CUDA_VISIBLE_DEVICES): 0, a whole number, or a part of one. Ranks share a GPU as
  /// long as their memory fits (a part such as 0.25 also bounds how many share it); those of a
  /// program whose GPU memory is not known run alone at first.
  double gpus = 0;
  uint64_t gpu_memory_bytes = 0;  ///< on each of them; 0: learned
  bool gpu_exclusive = false;     ///< shares its GPUs with nobody
  /// The least that will do, such as "8.6"; empty: any.
  std::string min_compute_capability;
  /// What workers declare in their configuration, such as {"licence", 1}.
  std::map<std::string, double> named;
};

/// A job: N repetitions ("ranks") of one sequential program. A plain value; copies are independent.
/// Paths are those of the submitting process, relative ones to its working directory, and are read
/// when the job is submitted.
struct Job {
  /// The program. A name without '/' is found on the worker's PATH and does not travel; anything
  /// else is a file that travels with the job.
  std::string program;
  /// False: the program does not travel although it is named by a path: it is in one of the files
  /// or archives (a relative path, below app_dir) or already on the workers (an absolute one).
  bool send_program = true;
  /// Its own arguments. `{rank}`, `{world_size}`, `{app_dir}`, `{checkpoint_dir}`, `{output_dir}`,
  /// `{seed}`, `{master_addr}`, `{master_port}`, `{parameters[i]}` and `{parameters[rank]}` are
  /// replaced; `{{`, `}}` escape.
  std::vector<std::string> arguments;
  uint32_t repetitions = 1;               ///< ranks 0 … repetitions-1; 1 to 100,000,000
  std::vector<std::string> parameters;    ///< values every rank is given
  std::vector<std::string> files;         ///< files and directories, copied into each app_dir
  std::vector<std::string> shared_files;  ///< files, one read-only copy per worker
  std::vector<std::string> archives;      ///< tar, zip…: unpacked into each app_dir
  std::vector<std::string> collect;       ///< globs below app_dir that come back as well
  std::map<std::string, std::string> environment;  ///< added to the rank's clean environment
  /// A shell command that makes the program from the files, on each worker once: `nvcc -O3 sim.cu
  /// -o sim`, `make`, `cmake -B b && cmake --build b`. It runs in a copy of app_dir; what is there
  /// afterwards is every rank's app_dir. PESC_COMPUTE_CAPABILITY is 86 for a GPU of 8.6. The
  /// program need not exist when the job is submitted. Empty: nothing is built.
  std::string build;
  /// Of the build on one worker. 0: half an hour.
  std::chrono::milliseconds build_time_limit{0};
  Inject inject = Inject::args;
  JobResources resources;
  uint32_t retries = 0;                     ///< further tries when the program itself fails
  std::chrono::milliseconds time_limit{0};  ///< of one attempt; 0: none
  std::chrono::milliseconds grace{10'000};  ///< from SIGTERM to SIGKILL
  uint64_t output_limit_bytes = uint64_t{1}
                                << 30;  ///< bound on a rank's standard output, and error
  std::string name;                     ///< for people; default: the program's name
  std::string room;                     ///< run only on workers of this room
  uint64_t seed = 0;                    ///< PESC_SEED of each rank is a function of it and the rank

  /// All ranks run at the same time ("a gang"): none starts before all have their place, and when
  /// one dies all are stopped and started again, each from its checkpoint. Its results are
  /// committed when all ranks have succeeded. At most 10,000 ranks.
  bool parallel = false;
  bool same_worker = false;  ///< with `parallel`: all ranks on one worker
  /// Stop the job when this many ranks have failed for good. 0, the default: stop it when its first
  /// 20 attempts all failed within a second (a smaller job has its retries).
  /// UINT32_MAX: never.
  uint32_t max_failures = 0;
  std::chrono::milliseconds job_time_limit{0};  ///< from submission to the job's end; 0: none
  /// Save checkpoint_dir at least this often, whether the program says `checkpoint` or not (its
  /// files must then be written aside and renamed into place). 0: only when it says so, and when it
  /// is stopped. At least one second.
  std::chrono::milliseconds checkpoint_every{0};
  /// Near the job's end, start a second attempt of the slowest ranks on idle cpus; the first to
  /// succeed counts. Never done for parallel jobs.
  bool second_attempts = true;
  /// Among the jobs of one user that wait: the higher comes first. -1000 to 1000.
  int32_t priority = 0;
};

}  // namespace pesc
