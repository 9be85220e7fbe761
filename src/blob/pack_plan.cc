#include "blob/pack_plan.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "model/contract.h"

namespace pesc::blob {
namespace {

constexpr size_t kMaxUncollected = 20;
constexpr size_t kMaxDepth = 300;  // of directories: each open one costs a descriptor

class Planner {
 public:
  explicit Planner(const PackRequest& request) : request_(request) {
    for (const std::string& path : request.skip) {
      if (path.ends_with('/')) {
        skip_trees_.insert(path.substr(0, path.find_last_not_of('/') + 1));
      } else {
        skip_.insert(path);
      }
    }
  }

  absl::StatusOr<PackPlan> plan() {
    absl::Status status = open_root(request_.output_dir, plan_.output);
    if (status.ok()) status = open_root(request_.collect_root, plan_.collect);
    if (status.ok() && plan_.output) status = walk_output(plan_.output.get(), "", 0);
    if (status.ok()) sort_entries();
    if (status.ok() && plan_.collect) {
      remember_output();
      status = walk_collect(plan_.collect.get(), "", false, 0);
    }
    if (!status.ok()) return status;
    sort_entries();
    put_extras_first();
    return std::move(plan_);
  }

 private:
  static absl::Status open_root(const std::filesystem::path& path, Fd& fd) {
    if (path.empty()) return absl::OkStatus();
    fd = Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd || errno == ENOENT) return absl::OkStatus();
    return errno_status(errno, "cannot read the directory", path);
  }

  static absl::Status too_deep(const std::string& name) {
    return absl::InvalidArgumentError("the directory " + printable(name) + " lies more than " +
                                      std::to_string(kMaxDepth) + " levels deep");
  }

  absl::Status walk_output(int fd, const std::string& prefix, size_t depth) {
    if (depth > kMaxDepth) return too_deep(prefix);
    absl::StatusOr<std::vector<Node>> nodes = list_directory(fd, request_.output_dir / prefix);
    if (!nodes.ok()) return nodes.status();
    for (const Node& node : *nodes) {
      std::string name = prefix + node.name;
      if (node.kind != NodeKind::directory) {
        add(fd, node, std::move(name), plan_.output.get(), request_.output_dir);
        continue;
      }
      plan_.entries.push_back({name, NodeKind::directory, plan_.output.get()});
      absl::StatusOr<Fd> inner =
          open_beneath(fd, node.name, O_RDONLY | O_DIRECTORY, request_.output_dir / prefix);
      if (!inner.ok()) return inner.status();
      if (absl::Status walked = walk_output(inner->get(), name + "/", depth + 1); !walked.ok()) {
        return walked;
      }
    }
    return absl::OkStatus();
  }

  // Whether it is something that comes back.
  bool add(int fd, const Node& node, std::string name, int root,
           const std::filesystem::path& root_path) {
    PlannedEntry entry{std::move(name), node.kind, root};
    if (node.kind == NodeKind::other) return false;
    if (node.kind == NodeKind::link) {
      std::optional<std::string> target = inside_target(fd, node.name, entry.name, root_path);
      if (!target) return false;
      entry.link_target = *std::move(target);
    }
    plan_.entries.push_back(std::move(entry));
    return true;
  }

  // Where the link leads, if that is inside. An absolute one that leads to the root it is under is
  // made relative: programs like to keep a "latest" so.
  static std::optional<std::string> inside_target(int fd, const std::string& base,
                                                  const std::string& name,
                                                  const std::filesystem::path& root_path) {
    char buffer[PATH_MAX];
    const ssize_t n = ::readlinkat(fd, base.c_str(), buffer, sizeof buffer);
    if (n <= 0 || n == static_cast<ssize_t>(sizeof buffer)) return std::nullopt;
    std::string target(buffer, static_cast<size_t>(n));
    const size_t depth = depth_of(name);
    std::string root = root_path.string();
    if (!root.ends_with('/')) root += '/';
    if (target.front() == '/' && target.starts_with(root)) {
      std::string up;
      for (size_t i = 0; i < depth; ++i) up += "../";
      target = up + "./" + target.substr(root.size());
    }
    if (!link_stays_inside(target, depth)) return std::nullopt;
    return target;
  }

  void remember_output() {
    struct stat info;
    if (plan_.output && ::fstat(plan_.output.get(), &info) == 0) {
      output_device_ = info.st_dev;
      output_inode_ = info.st_ino;
    }
  }

  bool is_output(int fd) const {
    struct stat info;
    return plan_.output && ::fstat(fd, &info) == 0 && info.st_dev == output_device_ &&
           info.st_ino == output_inode_;
  }

  bool collected(const std::string& name) const {
    return std::any_of(request_.collect.begin(), request_.collect.end(),
                       [&](const std::string& glob) {
                         std::string_view pattern = glob;
                         while (pattern.starts_with("./")) pattern.remove_prefix(2);
                         while (pattern.ends_with('/')) pattern.remove_suffix(1);
                         return glob_match(pattern, name);
                       });
  }

  // `prefix`: of a file, ends with '/'.
  bool unlisted(const std::string& prefix) const {
    return std::any_of(request_.unlisted.begin(), request_.unlisted.end(),
                       [&](const std::string& name) {
                         return ("/" + prefix).find("/" + name + "/") != std::string::npos;
                       });
  }

  bool enough() const {
    return request_.collect.empty() && plan_.uncollected.size() >= kMaxUncollected;
  }

  // `whole`: a directory above matched.
  absl::Status walk_collect(int fd, const std::string& prefix, bool whole, size_t depth) {
    if (depth > kMaxDepth) return too_deep(prefix);
    if (is_output(fd)) return absl::OkStatus();
    absl::StatusOr<std::vector<Node>> nodes = list_directory(fd, request_.collect_root / prefix);
    if (!nodes.ok()) return nodes.status();
    for (const Node& node : *nodes) {
      if (enough()) break;
      const std::string name = prefix + node.name;
      const bool wanted = whole || collected(name);
      if (node.kind == NodeKind::directory) {
        if (skip_trees_.contains(name)) continue;
        absl::StatusOr<Fd> inner =
            open_beneath(fd, node.name, O_RDONLY | O_DIRECTORY, request_.collect_root / prefix);
        if (!inner.ok()) return inner.status();
        absl::Status walked = walk_collect(inner->get(), name + "/", wanted, depth + 1);
        if (!walked.ok()) return walked;
        continue;
      }
      if (skip_.contains(name) || skip_trees_.contains(name)) continue;
      if (wanted && !from_output(name)) {
        add(fd, node, name, plan_.collect.get(), request_.collect_root);
      } else if (!wanted && node.kind == NodeKind::file &&
                 plan_.uncollected.size() < kMaxUncollected && !unlisted(prefix)) {
        plan_.uncollected.push_back(name);
      }
    }
    return absl::OkStatus();
  }

  // What output_dir has, or has in the way, comes from there.
  bool from_output(const std::string& name) const {
    if (find(name) != nullptr) return true;
    for (size_t slash = name.find('/'); slash != std::string::npos;
         slash = name.find('/', slash + 1)) {
      const PlannedEntry* above = find(name.substr(0, slash));
      if (above != nullptr && above->kind != NodeKind::directory) return true;
    }
    return false;
  }

  // Among what output_dir gave, which was sorted before.
  const PlannedEntry* find(const std::string& name) const {
    const auto end = plan_.entries.begin() + static_cast<ptrdiff_t>(output_entries_);
    const auto it = std::lower_bound(
        plan_.entries.begin(), end, name,
        [](const PlannedEntry& entry, const std::string& key) { return entry.name < key; });
    return it != end && it->name == name ? &*it : nullptr;
  }

  void sort_entries() {
    std::sort(plan_.entries.begin(), plan_.entries.end(),
              [](const PlannedEntry& a, const PlannedEntry& b) { return a.name < b.name; });
    output_entries_ = plan_.entries.size();
  }

  void put_extras_first() {
    size_t front = 0;
    for (const ExtraFile& extra : request_.extra) {
      auto it = std::find_if(plan_.entries.begin(), plan_.entries.end(),
                             [&](const PlannedEntry& entry) { return entry.name == extra.name; });
      if (it == plan_.entries.end()) {
        PlannedEntry entry{extra.name};
        entry.extra = &extra;
        it = plan_.entries.insert(it, std::move(entry));
      }
      const auto to = plan_.entries.begin() + static_cast<ptrdiff_t>(front);
      // A directory stays before what is in it, and one named twice where it is.
      if (it < to || it->kind == NodeKind::directory) continue;
      std::rotate(to, it, it + 1);
      ++front;
    }
  }

  const PackRequest& request_;
  PackPlan plan_;
  absl::flat_hash_set<std::string> skip_, skip_trees_;
  dev_t output_device_ = 0;
  ino_t output_inode_ = 0;
  size_t output_entries_ = 0;
};

}  // namespace

absl::StatusOr<PackPlan> plan_pack(const PackRequest& request) { return Planner(request).plan(); }

}  // namespace pesc::blob
