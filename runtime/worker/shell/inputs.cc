#include "runtime/worker/shell/inputs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>

#include "blob/pack.h"
#include "runtime/common/state_dir.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

// A copy of this much takes about as long as handing it to the pool does.
constexpr uint64_t kInlineBytes = 64 * 1024;
constexpr size_t kInlineFiles = 4;
constexpr int kOlderSeconds = 2;

class Placer {
 public:
  Placer(const JobSpec& spec, const AttemptPaths& paths, const AttemptDirs& dirs, Cache& cache,
         SharedMode mode)
      : spec_(spec), paths_(paths), dirs_(dirs), cache_(cache), mode_(mode) {}

  // Archives first: a file that is given as such wins over one of the same name in an archive.
  absl::StatusOr<PlacedInputs> run() {
    for (const FileKind kind :
         {FileKind::archive, FileKind::directory, FileKind::file, FileKind::shared_file}) {
      for (const FileRef& file : spec_.files) {
        if (file.kind != kind) continue;
        absl::Status placed = place(file);
        if (!placed.ok()) return placed;
      }
    }
    return std::move(placed_);
  }

 private:
  absl::Status place(const FileRef& file) {
    if (file.kind == FileKind::archive || file.kind == FileKind::directory) placed_.flat = false;
    if (file.kind == FileKind::archive) return unpack_archive(file);
    absl::StatusOr<std::string> path = normalise_relative_path(file.path);
    if (!path.ok()) return path.status();
    const std::string target = paths_.app + "/" + *path;
    if (file.kind == FileKind::directory) return make_directories(*path);
    if (const size_t slash = path->rfind('/'); slash != std::string::npos) {
      placed_.flat = false;
      absl::Status made = make_directories(path->substr(0, slash));
      if (!made.ok()) return made;
    }
    if (::unlink(target.c_str()) != 0 && errno != ENOENT) {
      return common::errno_status(errno, "replace", target);
    }
    roots_own_ = false;
    absl::Status placed =
        file.kind == FileKind::file ? place_file(file, target) : place_shared(file, target);
    return placed.ok() ? note(*path, target, file) : placed;
  }

  absl::Status place_file(const FileRef& file, const std::string& target) {
    // The program itself cannot be written while it runs, and as another user's file not at all:
    // one copy serves all ranks. Other files a rank may change, so it has its own.
    if (mode_ == SharedMode::root_link && spec_.program == "./" + file.path) {
      return link_root_copy(file, target);
    }
    absl::Status made = cache_.store().materialise(file.blob.digest, target, file.mode, false);
    return made.ok() ? dirs_.give(target) : made;
  }

  absl::Status place_shared(const FileRef& file, const std::string& target) {
    if (mode_ == SharedMode::root_link) return link_root_copy(file, target);
    if (mode_ == SharedMode::copied) {
      const uint32_t mode = (file.mode & 0111) != 0 ? 0555 : 0444;
      return cache_.store().materialise(file.blob.digest, target, mode, false);
    }
    absl::StatusOr<std::string> copy =
        cache_.shared_copy(file.blob.digest, (file.mode & 0111) != 0);
    if (!copy.ok()) return copy.status();
    if (mode_ == SharedMode::bind) {
      common::UniqueFd fd(::open(target.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
      if (!fd.valid()) return common::errno_status(errno, "make", target);
      placed_.binds.emplace_back(*copy, target);
      return absl::OkStatus();
    }
    // Symbolic: a hard link would change the copy's ctime, which tells whether it was touched.
    if (::symlink(copy->c_str(), target.c_str()) != 0) {
      return common::errno_status(errno, "link", target);
    }
    placed_.checks.push_back({*copy, file.blob.digest, file_print(*copy)});
    return absl::OkStatus();
  }

  absl::Status link_root_copy(const FileRef& file, const std::string& target) {
    const bool executable = (file.mode & 0111) != 0;
    absl::StatusOr<std::string> copy = cache_.shared_copy(file.blob.digest, executable);
    if (!copy.ok()) return copy.status();
    if (::link(copy->c_str(), target.c_str()) == 0) {
      roots_own_ = true;
      return absl::OkStatus();
    }
    if (errno != EMLINK) return common::errno_status(errno, "link", target);
    return cache_.store().materialise(file.blob.digest, target, executable ? 0555 : 0444, false);
  }

  absl::Status unpack_archive(const FileRef& file) {
    blob::UnpackLimits limits;
    limits.allow_existing = true;
    absl::Status unpacked = blob::unpack_blob(cache_.store(), file.blob, paths_.app, limits);
    if (!unpacked.ok()) {
      return absl::Status(unpacked.code(),
                          "cannot unpack " + file.path + ": " + std::string(unpacked.message()));
    }
    absl::Status given = dirs_.give_tree(paths_.app);
    return given.ok() ? note_tree() : given;
  }

  absl::Status note_tree() {
    std::error_code error;
    fs::recursive_directory_iterator it(paths_.app, error);
    for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
      const std::string target = it->path().string();
      if (it->is_directory(error) && !it->is_symlink(error)) continue;
      std::string path = target.substr(paths_.app.size() + 1);
      if (noted_.insert(path).second) {
        placed_.inputs.push_back({std::move(path), file_print(target), {}, 0, 0, false});
      }
    }
    if (error) return common::errno_status(error.value(), "read", paths_.app);
    return absl::OkStatus();
  }

  // How it is known again. File times go in steps of some milliseconds on many kernels, and a
  // program can change a file within the step in which it was made: what was placed is given an
  // earlier time, which no write leaves.
  absl::Status note(const std::string& path, const std::string& target, const FileRef& file) {
    if (!roots_own_) {
      timespec times[2] = {{0, UTIME_OMIT}, {}};
      clock_gettime(CLOCK_REALTIME, &times[1]);
      times[1].tv_sec -= kOlderSeconds;
      if (::utimensat(AT_FDCWD, target.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
        return common::errno_status(errno, "set up", target);
      }
    }
    struct stat info {};
    if (::lstat(target.c_str(), &info) != 0) return common::errno_status(errno, "read", target);
    placed_.inputs.push_back({path, file_print(target), file.blob.digest, file.blob.size_bytes,
                              info.st_mode, roots_own_});
    return absl::OkStatus();
  }

  absl::Status make_directories(const std::string& path) {
    if (!made_.insert(path).second) return absl::OkStatus();
    if (const size_t slash = path.rfind('/'); slash != std::string::npos) {
      absl::Status made = make_directories(path.substr(0, slash));
      if (!made.ok()) return made;
    }
    const std::string target = paths_.app + "/" + path;
    if (::mkdir(target.c_str(), 0755) == 0) return dirs_.give(target);
    const int error = errno;
    struct stat info {};
    if (error == EEXIST && ::stat(target.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
      return absl::OkStatus();
    }
    return common::errno_status(error, "make the directory", target);
  }

  const JobSpec& spec_;
  const AttemptPaths& paths_;
  const AttemptDirs& dirs_;
  Cache& cache_;
  const SharedMode mode_;
  bool roots_own_ = false;  // what was placed last
  PlacedInputs placed_;
  std::set<std::string> made_, noted_;
};

}  // namespace

bool is_as_placed(const InputPrint& input, const std::string& target) {
  const FilePrint now = file_print(target);
  if (!input.roots_own) return now == input.print;
  // Each new link to the copy changes its ctime.
  return now.device == input.print.device && now.inode == input.print.inode;
}

std::vector<BlobRef> input_blobs(const JobSpec& spec) {
  std::set<BlobRef> blobs;
  for (const FileRef& file : spec.files) {
    if (file.kind != FileKind::directory && !file.blob.empty()) blobs.insert(file.blob);
  }
  return {blobs.begin(), blobs.end()};
}

bool is_heavy(const JobSpec& spec) {
  uint64_t bytes = 0;
  for (const FileRef& file : spec.files) {
    if (file.kind == FileKind::archive) return true;
    bytes += file.blob.size_bytes;
  }
  return bytes > kInlineBytes || spec.files.size() > kInlineFiles;
}

absl::StatusOr<PlacedInputs> place_inputs(const JobSpec& spec, const AttemptPaths& paths,
                                          const AttemptDirs& dirs, Cache& cache, SharedMode mode) {
  return Placer(spec, paths, dirs, cache, mode).run();
}

absl::Status place_links(const std::vector<std::pair<std::string, std::string>>& links,
                         const AttemptPaths& paths, const AttemptDirs& dirs, PlacedInputs& placed) {
  for (const auto& [path, to] : links) {
    const std::string target = paths.app + "/" + path;
    if (::symlink(to.c_str(), target.c_str()) != 0) {
      if (errno == EEXIST) continue;  // a shared file of the job's has this place
      return common::errno_status(errno, "link", target);
    }
    absl::Status given = dirs.give(target);
    if (!given.ok()) return given;
    placed.inputs.push_back({path, file_print(target), {}, 0});
  }
  return absl::OkStatus();
}

}  // namespace pesc::worker
