// A job as the coordinator stores it and workers receive it: validated, with every file a blob.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "model/ids.h"
#include "model/resources.h"
#include "pesc/job.h"  // Inject

namespace pesc {

enum class FileKind : uint8_t {
  file,         // placed in app_dir
  shared_file,  // the worker's single copy, read-only
  archive,      // unpacked into app_dir
  directory,    // an empty directory, made in app_dir; no blob
};

struct FileRef {
  std::string path;  // relative to app_dir, normalised, no ".."; for an archive its name only
  FileKind kind = FileKind::file;
  BlobRef blob;
  uint32_t mode = 0644;  // permission bits
  auto operator<=>(const FileRef&) const = default;
};

struct JobSpec {
  std::string name;
  std::string program;  // "./x" when it travels (x is one of `files`), else a path or a bare name
  std::vector<std::string> arguments;
  uint32_t repetitions = 1;
  std::vector<std::string> parameters;
  std::vector<FileRef> files;
  std::vector<std::string> collect;
  Inject inject = Inject::args;
  std::vector<std::pair<std::string, std::string>> environment;
  Resources resources;
  uint32_t retries = 0;             // further tries after a failure of the program itself
  uint64_t time_limit_ms = 0;       // of one attempt; 0: none
  uint64_t grace_ms = 10'000;       // from SIGTERM to SIGKILL
  uint64_t output_limit_bytes = 0;  // of standard output and of standard error, each
  std::string room;                 // empty: any
  uint64_t seed = 0;
  bool parallel = false;           // a gang: all ranks run together, or none
  bool same_worker = false;        // a gang on one worker
  uint32_t max_failures = 0;       // ranks failed for good that stop the job; 0: see kAllFailEarly
  uint64_t job_time_limit_ms = 0;  // from the submission to the job's end; 0: none
  uint64_t checkpoint_every_ms = 0;  // save checkpoint_dir at this interval too; 0: at events only
  int32_t priority = 0;              // among the jobs of one owner: the higher comes first
  bool second_attempts = true;       // near its end, idle cpus may try the slowest ranks once more
  std::string build;                 // shell command, run in app_dir's files once per worker
  uint64_t build_time_limit_ms = 0;  // 0: kDefaultBuildTimeLimitMs
  bool operator==(const JobSpec&) const = default;
};

// Bounds on a submission, refused beyond. One list for the client, which says it early, and for the
// coordinator, which trusts nobody.
inline constexpr uint32_t kMaxRepetitions = 100'000'000;
inline constexpr size_t kMaxFiles = 100'000;
inline constexpr size_t kMaxArguments = 10'000;
inline constexpr size_t kMaxArgumentBytes = 100 * 1024;  // the kernel's own limit is 128 KiB
inline constexpr size_t kMaxCommandBytes = 1024 * 1024;
inline constexpr uint64_t kDefaultOutputLimitBytes = 1ull << 30;
inline constexpr uint32_t kMaxCpusMilli = 100'000'000;
inline constexpr uint32_t kMaxGpusMilli = 1'000'000;
inline constexpr size_t kMaxNamedResources = 32;
inline constexpr int32_t kMaxPriority = 1'000;  // and as much below 0
inline constexpr uint32_t kMaxGangRanks = 10'000;
inline constexpr uint64_t kMinCheckpointEveryMs = 1'000;
inline constexpr uint64_t kDefaultBuildTimeLimitMs = 30ull * 60 * 1'000;
inline constexpr uint32_t kNoMaxFailures = UINT32_MAX;  // max_failures: never stop for failures
// With max_failures 0 a job stops when its first so many attempts have all failed within a second
// of their start. So a small job keeps its retries.
inline constexpr uint32_t kAllFailEarly = 20;

// OK, or InvalidArgument with a message that names the field and says what to do.
absl::Status validate(const JobSpec& spec);

// A path as files may be given: relative, no empty, "." or ".." component, no NUL, at most 4,096
// bytes. Returns it normalised ("a//b/./c" is "a/b/c").
absl::StatusOr<std::string> normalise_relative_path(std::string_view path);

// "1500M", "2GiB", "4096" -> bytes (K, M, G, T and KiB… are powers of 1,024; KB, MB… of 1,000).
absl::StatusOr<uint64_t> parse_bytes(std::string_view text);
std::string format_bytes(uint64_t bytes);  // "1.5 GiB"
// "90" (seconds), "500ms", "10s", "15m", "2h", "1d", "1h30m" -> milliseconds.
absl::StatusOr<uint64_t> parse_duration_ms(std::string_view text);
std::string format_duration_ms(uint64_t ms);  // "850ms", "3.2s", "4m05s", "2h03m", "3d04h"

}  // namespace pesc
