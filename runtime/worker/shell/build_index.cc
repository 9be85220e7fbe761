#include "runtime/worker/shell/build_index.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <system_error>

#include "blob/files.h"
#include "blob/tree.h"
#include "protocol/codec.h"
#include "rpc/log.h"
#include "runtime/common/state_dir.h"
#include "runtime/worker/shell/packing.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIndexBytes = 256 << 20;
constexpr uint64_t kLogBytes = 1 << 20;  // its end is kept
constexpr uint64_t kReadBytes = 1 << 20;
constexpr int kMaxDepth = 200;

// A tree travels as a JobSpec of which only these two fields mean something.
std::string to_bytes(const BuiltTree& tree) {
  JobSpec spec;
  spec.files = tree.files;
  spec.environment = tree.links;
  const std::string bytes = protocol::serialize_spec(spec);
  const Digest digest = sha256(bytes);
  return std::string(digest.bytes.begin(), digest.bytes.end()) + bytes;
}

std::optional<BuiltTree> from_bytes(std::string_view bytes) {
  Digest digest;
  if (bytes.size() <= digest.bytes.size()) return std::nullopt;
  std::copy_n(bytes.begin(), digest.bytes.size(), digest.bytes.begin());
  bytes.remove_prefix(digest.bytes.size());
  if (sha256(bytes) != digest) return std::nullopt;
  absl::StatusOr<JobSpec> spec = protocol::parse_spec(bytes);
  if (!spec.ok()) return std::nullopt;
  return BuiltTree{std::move(spec->files), std::move(spec->environment)};
}

class Taker {
 public:
  Taker(const std::string& app, uint32_t owner, const JobSpec& spec, blob::Store& store,
        uint64_t max_bytes, const std::atomic<bool>& cancelled)
      : app_(app), owner_(owner), store_(store), max_bytes_(max_bytes), cancelled_(cancelled) {
    for (const FileRef& file : spec.files) {
      if (file.kind == FileKind::shared_file) shared_.insert(file.path);
    }
  }

  absl::StatusOr<BuiltTree> run() {
    blob::Fd root(::open(app_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!root) return common::errno_status(errno, "read the directory", app_);
    absl::Status taken = enter(root.get(), "", 0);
    if (!taken.ok()) return taken;
    return std::move(tree_);
  }

 private:
  absl::Status enter(int directory, const std::string& prefix, int depth) {
    if (depth > kMaxDepth) {
      return absl::InvalidArgumentError("the build left directories that are too deep");
    }
    auto nodes = blob::list_directory(directory, app_ + "/" + prefix);
    if (!nodes.ok()) return nodes.status();
    for (const blob::Node& node : *nodes) {
      if (cancelled_.load()) return absl::CancelledError("it is not wanted any more");
      const std::string path = prefix + node.name;
      if (node.kind == blob::NodeKind::other || shared_.contains(path)) continue;
      if (absl::StatusOr<std::string> normal = normalise_relative_path(path); !normal.ok()) {
        return normal.status();
      }
      if (tree_.files.size() + tree_.links.size() >= kMaxFiles) {
        return absl::InvalidArgumentError("the build left more than " + std::to_string(kMaxFiles) +
                                          " files: let it delete what no rank needs");
      }
      absl::Status taken = node.kind == blob::NodeKind::link ? link(directory, node.name, path)
                                                             : open(directory, node, path, depth);
      if (!taken.ok()) return taken;
    }
    return absl::OkStatus();
  }

  absl::Status link(int directory, const std::string& name, const std::string& path) {
    char target[4096];
    const ssize_t size = ::readlinkat(directory, name.c_str(), target, sizeof target);
    if (size > 0 && size < static_cast<ssize_t>(sizeof target)) {
      tree_.links.emplace_back(path, std::string(target, static_cast<size_t>(size)));
    }
    return absl::OkStatus();
  }

  // What is somebody else's (a hard link to what only root may read) is none of the build's.
  absl::Status open(int directory, const blob::Node& node, const std::string& path, int depth) {
    blob::Fd fd(
        ::openat(directory, node.name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd) return common::errno_status(errno, "read", app_ + "/" + path);
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return common::errno_status(errno, "read", path);
    if (info.st_uid != owner_) return absl::OkStatus();
    const auto mode = static_cast<uint32_t>(info.st_mode & 0777);
    if (S_ISDIR(info.st_mode)) {
      tree_.files.push_back({path, FileKind::directory, {}, mode});
      return enter(fd.get(), path + "/", depth + 1);
    }
    if (!S_ISREG(info.st_mode)) return absl::OkStatus();
    absl::StatusOr<BlobRef> blob = store(fd.get(), path);
    if (!blob.ok()) return blob.status();
    tree_.files.push_back({path, FileKind::file, *blob, mode});
    return absl::OkStatus();
  }

  absl::StatusOr<BlobRef> store(int fd, const std::string& path) {
    auto writer = store_.begin(std::nullopt);
    if (!writer.ok()) return writer.status();
    for (;;) {
      auto bytes = blob::pread_up_to(fd, (*writer)->written_bytes(), kReadBytes, path);
      if (!bytes.ok()) return bytes.status();
      if (bytes->empty()) return (*writer)->finish();
      bytes_ += bytes->size();
      if (bytes_ > max_bytes_) {
        return absl::InvalidArgumentError("the build left more than " + format_bytes(max_bytes_) +
                                          ", which is all that the worker's cache may have");
      }
      absl::Status written = (*writer)->append(*bytes);
      if (!written.ok()) return written;
      if (cancelled_.load()) return absl::CancelledError("it is not wanted any more");
    }
  }

  const std::string app_;
  const uint32_t owner_;
  blob::Store& store_;
  const uint64_t max_bytes_;
  const std::atomic<bool>& cancelled_;
  std::set<std::string> shared_;
  BuiltTree tree_;
  uint64_t bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::shared_ptr<BuildIndex>> BuildIndex::open(const fs::path& state_dir) {
  std::shared_ptr<BuildIndex> index(new BuildIndex(state_dir / "builds"));
  if ((::mkdir(index->directory_.c_str(), 0700) != 0 && errno != EEXIST) ||
      ::chmod(index->directory_.c_str(), 0700) != 0) {
    return common::errno_status(errno, "make the directory", index->directory_);
  }
  return index;
}

fs::path BuildIndex::log_path(const Digest& key) const {
  return directory_ / (to_hex(key) + ".log");
}

std::optional<BuiltTree> BuildIndex::load(const Digest& key) const {
  const fs::path path = directory_ / to_hex(key);
  absl::StatusOr<std::string> bytes = common::read_small_file(path, kMaxIndexBytes);
  if (!bytes.ok()) return std::nullopt;
  std::optional<BuiltTree> tree = from_bytes(*bytes);
  if (!tree)
    rpc::log().warn("event=build_record_damaged path={} next=\"built again\"", path.string());
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // it is in use
  return tree;
}

absl::Status BuildIndex::save(const Digest& key, const BuiltTree& tree) const {
  trim();
  return common::write_file_atomically(directory_ / to_hex(key), to_bytes(tree), 0600);
}

void BuildIndex::drop(const Digest& key) const { ::unlink((directory_ / to_hex(key)).c_str()); }

// With each goes its log; a log of a failed build stands for itself.
void BuildIndex::trim() const {
  std::vector<std::pair<fs::file_time_type, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator it(directory_, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code ignored;
    found.emplace_back(fs::last_write_time(it->path(), ignored), it->path());
  }
  std::sort(found.begin(), found.end());
  for (size_t i = 0; i + 2 * kMaxBuilds < found.size(); ++i) ::unlink(found[i].second.c_str());
}

std::string BuildIndex::keep_log(const Digest& key, const KeptExit& exit,
                                 const AttemptPaths& paths) const {
  std::string log = exit.standard_output;
  if (exit.output_spilled) {
    const std::string path = paths.root + "/stdout";
    blob::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    struct stat info {};
    if (fd && ::fstat(fd.get(), &info) == 0) {
      const auto size = static_cast<uint64_t>(info.st_size);
      auto tail =
          blob::pread_up_to(fd.get(), size > kLogBytes ? size - kLogBytes : 0, kLogBytes, path);
      if (tail.ok()) log = *std::move(tail);
    }
  }
  // Of its own words on why it was ended: none.
  log = without_directory(std::move(log), paths.root);
  absl::Status kept = common::write_file_atomically(log_path(key), log, 0600);
  if (!kept.ok()) {
    rpc::log().warn("event=build_log_not_kept error=\"{}\"", std::string(kept.message()));
  }
  return log;
}

absl::StatusOr<BuiltTree> take_tree(const std::string& app, uint32_t owner, const JobSpec& spec,
                                    blob::Store& store, uint64_t max_bytes,
                                    const std::atomic<bool>& cancelled) {
  return Taker(app, owner, spec, store, max_bytes, cancelled).run();
}

JobSpec with_built(const JobSpec& spec, const BuiltTree& tree) {
  JobSpec built = spec;
  built.files = tree.files;
  for (const FileRef& file : spec.files) {
    if (file.kind == FileKind::shared_file) built.files.push_back(file);
  }
  return built;
}

}  // namespace pesc::worker
