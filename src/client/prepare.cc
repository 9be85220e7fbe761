#include "client/prepare.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <string_view>

#include "absl/status/status.h"
#include "blob/files.h"
#include "blob/hash.h"
#include "blob/pack.h"
#include "model/text.h"
#include "protocol/codec.h"

namespace pesc::client {
namespace {

namespace fs = std::filesystem;

// Smaller ones are hashed sooner than a coordinator is asked.
constexpr uint64_t kLargeBytes = 16 << 20;

absl::Status refuse(const std::string& message) { return absl::InvalidArgumentError(message); }

// Files appear in app_dir at the relative path they were given; one given by an absolute path, or
// by one that leaves the directory, has no such place and goes by its own name.
std::string place_of(const std::string& given) {
  fs::path path = fs::path(given).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  bool outside = path.is_absolute() || path.empty() || *path.begin() == "..";
  return outside ? path.filename().string() : path.string();
}

// Also with a version: python3.11, node18.
bool is_interpreter(std::string_view program) {
  static constexpr std::string_view kNames[] = {
      "sh",         "bash",    "dash",   "zsh",  "ksh",    "fish", "python", "pypy",  "ipython",
      "R",          "Rscript", "java",   "node", "nodejs", "deno", "bun",    "julia", "octave",
      "octave-cli", "perl",    "ruby",   "lua",  "luajit", "php",  "tclsh",  "guile", "sage",
      "scala",      "kotlin",  "groovy", "awk",  "gawk",   "mawk",
  };
  size_t end = program.find_last_not_of("0123456789.-");
  std::string_view name = program.substr(0, end == program.npos ? 0 : end + 1);
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

bool takes_code(std::string_view argument) {
  return argument == "-c" || argument == "-e" || argument == "-m" || argument == "--eval" ||
         argument == "-E";
}

class Preparation {
 public:
  Preparation(const Job& job, Naming naming) : job_(job), naming_(naming) {}

  absl::StatusOr<PreparedJob> run() {
    absl::Status status = plain_fields();
    if (status.ok()) status = program();
    for (const std::string& path : job_.files) {
      if (status.ok()) status = add(path, FileKind::file);
    }
    for (const std::string& path : job_.shared_files) {
      if (status.ok()) status = add(path, FileKind::shared_file);
    }
    for (const std::string& path : job_.archives) {
      if (status.ok()) status = add(path, FileKind::archive);
    }
    if (out_.spec.name.empty()) out_.spec.name = default_name();
    if (status.ok()) status = validate(out_.spec);
    if (!status.ok()) return status;
    return std::move(out_);
  }

 private:
  // The program's, or, when that is an interpreter, the script's: the first argument that travels.
  std::string default_name() const {
    std::string program = fs::path(job_.program).filename().string();
    if (!is_interpreter(program)) return program;
    for (const std::string& argument : job_.arguments) {
      if (takes_code(argument)) break;  // the code is on the command line, files are its data
      auto found = placed_.find(place_of(argument));
      if (found == placed_.end() || found->second.kind == FileKind::archive) continue;
      std::string name = fs::path(argument).filename().string();
      return has_control_character(name) ? program : name;
    }
    return program;
  }

  absl::Status plain_fields() {
    JobSpec& spec = out_.spec;
    if (job_.program.empty()) return refuse("no program is named: set Job::program");
    if (!std::isfinite(job_.resources.cpus) || job_.resources.cpus < 0.001 ||
        job_.resources.cpus > kMaxCpusMilli / 1000.0) {
      return refuse("cpus must be a number from 0.001 to 100000");
    }
    if (job_.time_limit.count() < 0 || job_.grace.count() < 0 || job_.job_time_limit.count() < 0 ||
        job_.checkpoint_every.count() < 0) {
      return refuse("time limits, grace and checkpoint_every cannot be negative");
    }
    spec.name = job_.name;
    spec.arguments = job_.arguments;
    spec.repetitions = job_.repetitions;
    spec.parameters = job_.parameters;
    spec.collect = job_.collect;
    spec.inject = job_.inject;
    for (const auto& [name, value] : job_.environment) spec.environment.emplace_back(name, value);
    spec.resources.cpus_milli = static_cast<uint32_t>(std::lround(job_.resources.cpus * 1000));
    if (absl::Status status = resources(spec); !status.ok()) return status;
    spec.retries = job_.retries;
    spec.time_limit_ms = static_cast<uint64_t>(job_.time_limit.count());
    spec.grace_ms = static_cast<uint64_t>(job_.grace.count());
    spec.output_limit_bytes = job_.output_limit_bytes;
    spec.room = job_.room;
    spec.seed = job_.seed;
    spec.parallel = job_.parallel;
    spec.same_worker = job_.same_worker;
    spec.max_failures = job_.max_failures;
    spec.job_time_limit_ms = static_cast<uint64_t>(job_.job_time_limit.count());
    spec.checkpoint_every_ms = static_cast<uint64_t>(job_.checkpoint_every.count());
    spec.second_attempts = job_.second_attempts;
    spec.priority = job_.priority;
    if (job_.build_time_limit.count() < 0) return refuse("build_time_limit cannot be negative");
    spec.build = job_.build;
    spec.build_time_limit_ms = static_cast<uint64_t>(job_.build_time_limit.count());
    return absl::OkStatus();
  }

  absl::Status resources(JobSpec& spec) {
    const JobResources& asked = job_.resources;
    Resources& need = spec.resources;
    need.memory_bytes = asked.memory_bytes;
    need.disk_bytes = asked.disk_bytes;
    if (!(asked.gpus >= 0) || asked.gpus > kMaxGpusMilli / 1000.0) {
      return refuse("gpus must be a number from 0 to 1000");
    }
    need.gpus_milli = static_cast<uint32_t>(std::lround(asked.gpus * 1000));
    if (asked.gpus > 0 && need.gpus_milli == 0) return refuse("gpus must be at least 0.001");
    need.gpu_memory_bytes = asked.gpu_memory_bytes;
    need.gpu_exclusive = asked.gpu_exclusive;
    if (!asked.min_compute_capability.empty()) {
      absl::StatusOr<ComputeCapability> least =
          parse_compute_capability(asked.min_compute_capability);
      if (!least.ok()) return refuse(std::string(least.status().message()));
      need.min_compute_capability = *least;
    }
    for (const auto& [name, amount] : asked.named) {
      if (!(amount >= 0.001) || amount > kMaxNamedMilli / 1000.0) {
        return refuse("the amount of " + name + " must be a number from 0.001");
      }
      need.named.emplace_back(name, static_cast<uint64_t>(std::llround(amount * 1000)));
    }
    return absl::OkStatus();
  }

  absl::Status program() {
    if (builds_its_program(job_)) {
      out_.spec.program = "./" + place_of(job_.program);
      return absl::OkStatus();
    }
    if (!job_.send_program || job_.program.find('/') == std::string::npos) {
      out_.spec.program = job_.program;
      return absl::OkStatus();
    }
    struct stat info {};
    if (stat(job_.program.c_str(), &info) != 0) {
      return absl::NotFoundError("the program " + in_quotes(job_.program) +
                                 " cannot be read: " + strerror(errno));
    }
    if (S_ISDIR(info.st_mode)) {
      return refuse("the program " + in_quotes(job_.program) +
                    " is a directory; name the file in it");
    }
    if (!S_ISREG(info.st_mode))
      return refuse("the program " + in_quotes(job_.program) + " is no file");
    if ((info.st_mode & 0111) == 0) {
      return refuse("the program " + in_quotes(job_.program) +
                    " is not executable: chmod +x it, or name its interpreter as the program "
                    "(python3 script.py)");
    }
    out_.spec.program = "./" + place_of(job_.program);
    return add_file(job_.program, place_of(job_.program), FileKind::file, info.st_mode);
  }

  absl::Status add(const std::string& path, FileKind kind) {
    struct stat info {};
    if (path.empty()) return refuse("an empty file name was given");
    if (stat(path.c_str(), &info) != 0) {
      return absl::NotFoundError("the file " + in_quotes(path) +
                                 " cannot be read: " + strerror(errno));
    }
    if (!S_ISDIR(info.st_mode)) return add_file(path, place_of(path), kind, info.st_mode);
    if (kind == FileKind::archive) {
      return refuse(in_quotes(path) + " is a directory, not an archive: give it among the files");
    }
    if (kind == FileKind::shared_file) {
      return refuse(in_quotes(path) + " is a directory: give its files one by one as shared files");
    }
    std::string place = place_of(path);
    if (place == "." || place.empty()) place.clear();
    return add_directory(path, place);
  }

  absl::Status add_directory(const fs::path& path, const std::string& place) {
    std::error_code error;
    fs::path real = fs::canonical(path, error);
    if (error) return refuse("the directory " + in_quotes(path.string()) + ": " + error.message());
    if (!ancestors_.insert(real).second) {
      return refuse("the directory " + in_quotes(path.string()) +
                    " contains itself through a link");
    }
    std::set<fs::path> names;  // sorted: the same directory always makes the same job
    for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
      names.insert(it->path().filename());
    }
    if (error) return refuse("the directory " + in_quotes(path.string()) + ": " + error.message());
    if (names.empty() && !place.empty()) {
      out_.spec.files.push_back({place, FileKind::directory, {}, 0755});
    }
    for (const fs::path& name : names) {
      std::string below = place.empty() ? name.string() : place + "/" + name.string();
      struct stat info {};
      if (stat((path / name).c_str(), &info) != 0) {
        return absl::NotFoundError("the file " + in_quotes((path / name).string()) +
                                   " cannot be read: " + strerror(errno));
      }
      absl::Status status = S_ISDIR(info.st_mode)
                                ? add_directory(path / name, below)
                                : add_file(path / name, below, FileKind::file, info.st_mode);
      if (!status.ok()) return status;
    }
    ancestors_.erase(real);
    return absl::OkStatus();
  }

  absl::Status add_file(const fs::path& path, const std::string& place, FileKind kind,
                        uint32_t mode) {
    if (!S_ISREG(mode)) {
      return refuse(in_quotes(path.string()) + " is neither a file nor a directory");
    }
    absl::StatusOr<std::string> normal = normalise_relative_path(place);
    if (!normal.ok()) return normal.status();
    absl::StatusOr<BlobRef> blob = blob_of(path, kind, !placed_.contains(*normal));
    // Whatever it is, permission too: it is the job's input that is bad, not the coordinator.
    if (!blob.ok()) return refuse(std::string(blob.status().message()));
    FileRef file{*normal, kind, *blob, mode & 0777u};
    auto [known, fresh] = placed_.try_emplace(*normal, file);
    if (!fresh) {
      if (absl::Status named = name_now(known->second); !named.ok()) return named;
      if (known->second == file) return absl::OkStatus();
      return refuse("two different files would be " + in_quotes(*normal) +
                    " in the rank's directory; rename one");
    }
    if (kind == FileKind::archive) {
      absl::Status status = blob::check_archive(path);
      if (!status.ok()) {
        return absl::Status(status.code(),
                            in_quotes(path.string()) + ": " + std::string(status.message()));
      }
    }
    out_.sources.try_emplace(blob->digest, path);
    out_.spec.files.push_back(std::move(file));
    return absl::OkStatus();
  }

  // What a file holds, or what stands for that until it is sent.
  absl::StatusOr<BlobRef> blob_of(const fs::path& path, FileKind kind, bool may_wait) {
    // An archive is read anyway, to be checked.
    if (naming_ == Naming::now || kind == FileKind::archive || !may_wait) {
      return blob::hash_file(path);
    }
    blob::Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (!fd) return blob::errno_status(errno, "cannot open", path);
    absl::StatusOr<blob::ChangeCheck> check = blob::ChangeCheck::start(fd.get(), path);
    if (!check.ok()) return check.status();
    if (check->size_bytes() < kLargeBytes) return blob::hash_file(path);
    const BlobRef stand_in{sha256("not hashed yet: " + fs::absolute(path).string()),
                           check->size_bytes()};
    out_.unnamed.try_emplace(stand_in.digest, *check);
    return stand_in;
  }

  // Another file is to have the same place: whether it is the same one, only their bytes tell.
  absl::Status name_now(FileRef& file) {
    const auto source = out_.sources.find(file.blob.digest);
    if (source == out_.sources.end() || out_.unnamed.erase(file.blob.digest) == 0) {
      return absl::OkStatus();
    }
    const fs::path path = source->second;
    absl::StatusOr<BlobRef> blob = blob::hash_file(path);
    if (!blob.ok()) return refuse(std::string(blob.status().message()));
    rename_blob(out_, file.blob.digest, *blob);
    file.blob = *blob;
    return absl::OkStatus();
  }

  const Job& job_;
  const Naming naming_;
  PreparedJob out_;
  std::map<std::string, FileRef> placed_;
  std::set<fs::path> ancestors_;
};

}  // namespace

bool builds_its_program(const Job& job) {
  const fs::path path = fs::path(job.program).lexically_normal();
  if (job.build.empty() || job.program.find('/') == std::string::npos || path.is_absolute() ||
      path.empty() || *path.begin() == "..") {
    return false;
  }
  struct stat info {};
  if (!job.send_program || stat(job.program.c_str(), &info) != 0) return true;
  char magic[4] = {};
  std::ifstream(job.program, std::ios::binary).read(magic, sizeof magic);
  return S_ISREG(info.st_mode) && std::string_view(magic, sizeof magic) == "\177ELF";
}

Digest digest_of(const JobSpec& spec) { return sha256(protocol::serialize_spec(spec)); }

absl::StatusOr<PreparedJob> prepare(const Job& job, Naming naming) {
  return Preparation(job, naming).run();
}

void rename_blob(PreparedJob& job, const Digest& stand_in, const BlobRef& blob) {
  for (FileRef& file : job.spec.files) {
    if (file.kind != FileKind::directory && file.blob.digest == stand_in) file.blob = blob;
  }
  auto source = job.sources.extract(stand_in);
  if (source.empty()) return;
  source.key() = blob.digest;
  job.sources.insert(std::move(source));
}

}  // namespace pesc::client
