#include "runtime/worker/shell/packing.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <system_error>

#include "blob/files.h"
#include "blob/hash.h"
#include "blob/pack.h"
#include "blob/write_behind.h"
#include "model/contract.h"
#include "runtime/common/state_dir.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

constexpr size_t kDetailBytes = 300;
constexpr uint64_t kTailBytes = 16 * 1024;
constexpr uint64_t kRefusedWithinMs = 1'000;
// Below this an input that a glob asks for is compared by its bytes: on kernels with coarse file
// times a program that is quick enough leaves no other trace.
constexpr uint64_t kCompareBytes = 1 << 20;
constexpr int64_t kClockStepNs = 20'000'000;

// Grows in memory up to the inline limit, then in a file.
class OutputSink {
 public:
  explicit OutputSink(std::string file) : file_(std::move(file)) {}

  absl::Status add(std::string_view bytes) {
    if (!behind_ && memory_.size() + bytes.size() <= kInlineOutputBytes) {
      memory_.append(bytes);
      return absl::OkStatus();
    }
    if (!behind_) {
      ::unlink(file_.c_str());
      blob::Fd fd(::open(file_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
      if (!fd) return common::errno_status(errno, "make", file_);
      behind_.emplace(std::move(fd), file_);
      if (absl::Status begun = behind_->append(memory_); !begun.ok()) return begun;
      memory_ = std::string();
    }
    return behind_->append(bytes);
  }

  absl::StatusOr<PackedOutput> finish() {
    PackedOutput output;
    if (behind_) {
      absl::StatusOr<BlobRef> written = behind_->finish();
      if (!written.ok()) return written.status();
      output.blob = *written;
      output.file = file_;
    } else {
      blob::Hasher hasher;
      hasher.update(memory_);
      output.blob = {hasher.finish(), memory_.size()};
      output.bytes = std::move(memory_);
    }
    return output;
  }

 private:
  const std::string file_;
  std::string memory_;
  std::optional<blob::WriteBehind> behind_;
};

bool matches_any(const std::vector<std::string>& globs, const std::string& path) {
  return std::any_of(globs.begin(), globs.end(),
                     [&](const std::string& glob) { return glob_match(glob, path); });
}

// Of an adopted attempt: what the job says was placed, where it can be seen to be that still.
void skip_declared_inputs(const PackOrder& order, std::vector<std::string>& skip) {
  for (const FileRef& file : order.spec->files) {
    if (file.kind == FileKind::shared_file ||
        (file.kind == FileKind::file && !matches_any(order.spec->collect, file.path))) {
      skip.push_back(file.path);
      continue;
    }
    if (file.kind != FileKind::file || file.blob.size_bytes > kCompareBytes) continue;
    const std::string target = order.paths.app + "/" + file.path;
    struct stat info {};
    if (::lstat(target.c_str(), &info) != 0 || !S_ISREG(info.st_mode) ||
        static_cast<uint64_t>(info.st_size) != file.blob.size_bytes) {
      continue;
    }
    const absl::StatusOr<BlobRef> now = blob::hash_file(target);
    if (now.ok() && now->digest == file.blob.digest) skip.push_back(file.path);
  }
}

// Inputs as they were placed: never results.
std::vector<std::string> unchanged_inputs(const PackOrder& order) {
  std::vector<std::string> skip;
  const std::vector<std::string>& globs = order.spec->collect;
  for (const InputPrint& input : order.placed.inputs) {
    const bool collected = !globs.empty() && matches_any(globs, input.path);
    if (!collected || is_as_placed(input, order.paths.app + "/" + input.path)) {
      skip.push_back(input.path);
    }
  }
  if (!order.adopted || order.spec->files.empty()) return skip;
  skip_declared_inputs(order, skip);
  // How the others were placed (an archive's, large ones) is not known any more, but that they were
  // there before the start. Where the start followed within the clock's step, that cannot be told.
  const int64_t before = order.exit.outcome.started_unix_ms * 1'000'000 - kClockStepNs;
  std::error_code error;
  fs::recursive_directory_iterator it(order.paths.app,
                                      fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string target = it->path().string();
    if (file_print(target).changed_ns < before) {
      skip.push_back(target.substr(order.paths.app.size() + 1));
    }
  }
  return skip;
}

// A program may take its own right to read its results.
void open_to_owner(const std::string& directory) {
  std::error_code error;
  fs::permissions(directory, fs::perms::owner_all, fs::perm_options::add, error);
  fs::recursive_directory_iterator it(directory, fs::directory_options::skip_permission_denied,
                                      error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    std::error_code ignored;
    if (it->is_symlink(ignored)) continue;
    const bool is_directory = it->is_directory(ignored);
    fs::permissions(it->path(), is_directory ? fs::perms::owner_all : fs::perms::owner_read,
                    fs::perm_options::add, ignored);
  }
}

blob::ExtraFile stream_file(const char* name, const std::string& bytes, bool spilled,
                            const std::string& path, const AttemptOutcome& outcome) {
  blob::ExtraFile file;
  file.name = name;
  file.modified_s = (outcome.started_unix_ms + static_cast<int64_t>(outcome.duration_ms)) / 1'000;
  if (spilled) {
    file.path = path;
  } else {
    file.bytes = bytes;
  }
  return file;
}

blob::PackRequest request_of(const PackOrder& order) {
  blob::PackRequest request;
  if (!order.output_untouched) request.output_dir = order.paths.output;
  if (!order.app_untouched || !order.spec->collect.empty()) {
    request.collect_root = order.paths.app;
    request.skip = unchanged_inputs(order);
  }
  request.collect = order.spec->collect;
  request.unlisted = {"__pycache__"};  // Python's, of every program that imports a file it was sent
  request.only_readable_by = order.ranks_user;
  request.extra.push_back(stream_file("output.txt", order.exit.standard_output,
                                      order.exit.output_spilled, order.paths.root + "/stdout",
                                      order.exit.outcome));
  request.extra.push_back(stream_file("stderr.txt", order.exit.standard_error,
                                      order.exit.error_spilled, order.paths.root + "/stderr",
                                      order.exit.outcome));
  if (!order.build_log.empty() && ::access(order.build_log.c_str(), R_OK) == 0) {
    request.extra.push_back({"build.log", "", order.build_log});
  }
  return request;
}

}  // namespace

bool is_light(const PackOrder& order) {
  constexpr int kFiles = 4;
  constexpr off_t kBytes = 32 * 1024;
  if (order.adopted || order.exit.output_spilled || order.exit.error_spilled ||
      !order.spec->collect.empty() || !order.placed.checks.empty() ||
      order.exit.standard_output.size() + order.exit.standard_error.size() > kBytes) {
    return false;
  }
  if (order.output_untouched) return true;
  std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(order.paths.output.c_str()), ::closedir);
  if (entries == nullptr) return false;
  int files = 0;
  off_t bytes = 0;
  while (const dirent* entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat info {};
    if (::fstatat(::dirfd(entries.get()), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(info.st_mode)) {
      return false;
    }
    bytes += info.st_size;
    if (++files > kFiles || bytes > kBytes) return false;
  }
  return true;
}

bool is_large(const PackOrder& order) {
  constexpr uint64_t kBytes = 16 << 20;
  constexpr int kEntries = 10'000;  // so many small ones are seldom that large
  uint64_t bytes = 0;
  int entries = 0;
  std::error_code error;
  if (order.exit.output_spilled) {
    const uintmax_t spilled = fs::file_size(order.paths.root + "/stdout", error);
    if (!error) bytes += spilled;
  }
  fs::recursive_directory_iterator it(order.paths.output,
                                      fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (bytes >= kBytes || ++entries > kEntries) break;
    struct stat info {};
    if (::lstat(it->path().c_str(), &info) == 0 && S_ISREG(info.st_mode)) {
      bytes += static_cast<uint64_t>(info.st_size);
    }
  }
  return bytes >= kBytes;
}

absl::StatusOr<blob::PackReport> pack_attempt_into(const PackOrder& order,
                                                   const blob::ByteSink& sink) {
  return blob::pack(request_of(order), sink);
}

absl::StatusOr<PackedOutput> pack_attempt(const PackOrder& order) {
  const blob::PackRequest request = request_of(order);
  for (bool again = false;; again = true) {
    OutputSink sink(order.outbox_file);
    auto report = blob::pack(request, [&](std::string_view bytes) { return sink.add(bytes); });
    if (absl::IsPermissionDenied(report.status()) && !again && ::geteuid() != 0) {
      open_to_owner(order.paths.output);
      open_to_owner(order.paths.app);
      continue;
    }
    if (!report.ok()) {
      ::unlink(order.outbox_file.c_str());
      return report.status();
    }
    absl::StatusOr<PackedOutput> output = sink.finish();
    if (!output.ok()) {
      ::unlink(order.outbox_file.c_str());
      return output.status();
    }
    output->uncollected = std::move(report->uncollected);
    return output;
  }
}

std::string last_line(std::string_view text) {
  while (!text.empty()) {
    const size_t newline = text.rfind('\n');
    std::string_view line = newline == std::string_view::npos ? text : text.substr(newline + 1);
    text = newline == std::string_view::npos ? std::string_view() : text.substr(0, newline);
    const size_t first = line.find_first_not_of(" \t\r\v\f");
    if (first == std::string_view::npos) continue;
    line = line.substr(first, line.find_last_not_of(" \t\r\v\f") - first + 1);
    if (line.size() > kDetailBytes) {
      size_t end = kDetailBytes;  // not within a character of several bytes
      while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80) --end;
      line = line.substr(0, end);
    }
    std::string result(line);
    for (char& c : result) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    }
    return result;
  }
  return "";
}

std::string without_directory(std::string text, const std::string& directory) {
  for (size_t at; !directory.empty() && (at = text.find(directory)) != std::string::npos;) {
    text.replace(at, directory.size(), "…");
  }
  return text;
}

std::string standard_error_of(const KeptExit& exit, const AttemptPaths& paths) {
  if (!exit.error_spilled) return exit.standard_error;
  const std::string path = paths.root + "/stderr";
  common::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0) return "";
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  auto tail =
      blob::pread_up_to(fd.get(), size > kTailBytes ? size - kTailBytes : 0, kTailBytes, path);
  return tail.ok() ? *std::move(tail) : "";
}

AttemptOutcome complete_outcome(const KeptExit& exit, const AttemptPaths& paths, Inject inject) {
  AttemptOutcome outcome = exit.outcome;
  if (outcome.reason == EndReason::succeeded) return outcome;
  const std::string text = standard_error_of(exit, paths);
  const std::string words = last_line(text);
  const bool own_fault =
      outcome.reason == EndReason::exit_code || outcome.reason == EndReason::signal;
  if ((own_fault || outcome.detail.empty()) && !words.empty()) {
    outcome.detail = without_directory(words, paths.root);
  }
  if (outcome.detail.size() > kDetailBytes) outcome.detail.resize(kDetailBytes);
  if (own_fault && inject == Inject::args && outcome.duration_ms < kRefusedWithinMs) {
    outcome.refused_arguments = injected_argument_refused(text).has_value();
  }
  return outcome;
}

namespace {

// In standard error's end, whatever its case.
bool failed_saying(const KeptExit& exit, const AttemptPaths& paths,
                   std::initializer_list<const char*> words) {
  const EndReason reason = exit.outcome.reason;
  if (reason != EndReason::exit_code && reason != EndReason::signal) return false;
  std::string text = standard_error_of(exit, paths);
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return std::any_of(words.begin(), words.end(),
                     [&](const char* word) { return text.find(word) != std::string::npos; });
}

}  // namespace

bool died_of_a_full_disk(const KeptExit& exit, const AttemptPaths& paths) {
  return failed_saying(exit, paths, {"no space left on device", "disk quota exceeded"});
}

bool died_of_a_taken_port(const KeptExit& exit, const AttemptPaths& paths) {
  constexpr uint64_t kWithinMs = 30'000;
  return exit.outcome.duration_ms <= kWithinMs &&
         failed_saying(exit, paths, {"address already in use", "eaddrinuse"});
}

bool is_disk_full(const absl::Status& status) {
  const std::string message(status.message());
  // Statuses have no errno; the words are those of blob/files and common/state_dir.
  if (message.find("Read-only file system") != std::string::npos) return true;
  return absl::IsResourceExhausted(status) && message.find("ulimit") == std::string::npos;
}

}  // namespace pesc::worker
