#include "runtime/worker/containment/containment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <optional>

namespace pesc::containment {
namespace {

constexpr const char* kPrefix = "pesc-";
constexpr size_t kGroupsKept = 64;
constexpr int kEndTries = 500;  // of Host::pause
constexpr const char* kControllers[] = {"memory", "pids", "cpu"};

std::string name_of(const Host::Process& process) {
  return kPrefix + std::to_string(process.pid_namespace) + "-" + std::to_string(process.pid) + "-" +
         std::to_string(process.started);
}

std::optional<Host::Process> parse_name(const std::string& name) {
  if (name.rfind(kPrefix, 0) != 0) return std::nullopt;
  Host::Process process;
  const char* at = name.c_str() + strlen(kPrefix);
  char* end = nullptr;
  for (uint64_t* number : {&process.pid_namespace, &process.pid, &process.started}) {
    *number = ::strtoull(at, &end, 10);
    if (end == at) return std::nullopt;
    at = *end == '-' ? end + 1 : end;
  }
  return *at == '\0' ? std::optional(process) : std::nullopt;
}

std::string parent_of(const std::string& directory) {
  return directory.substr(0, directory.rfind('/'));
}

bool is_supervisor(const std::string& directory) {
  return directory.ends_with(std::string("/") + kSupervisor);
}

std::string how(const char* what, int version) {
  return std::string(what) + "=" + (version == 0 ? "none" : "cgroup" + std::to_string(version));
}

}  // namespace

Containment::Containment(Mode mode, Host& host) : mode_(mode), host_(host) {
  if (mode == Mode::none) {
    lacking_ = "the configuration wants no cgroups";
    return;
  }
  std::string own, mounts;
  host_.read("/proc/self/cgroup", own);
  host_.read("/proc/self/mountinfo", mounts);
  name_ = name_of(host_.self());
  set_up(own, mounts);
}

Containment::~Containment() {
  for (auto* groups : {&taken_, &free_, &doomed_}) {
    for (auto& group : *groups) group->remove();
  }
  for (const Place& place : places_) host_.remove_directory(place.directory);
}

void Containment::set_up(const std::string& own, const std::string& mounts) {
  const std::vector<Hierarchy> all = hierarchies(own, mounts);
  places_.reserve(all.size());  // groups refer to them
  for (const Hierarchy& hierarchy : all) {
    if (hierarchy.version == 2 && mode_ != Mode::cgroup1) set_up_version2(hierarchy);
  }
  for (const Hierarchy& hierarchy : all) {
    if (hierarchy.version == 1 && mode_ != Mode::cgroup2) set_up_version1(hierarchy);
  }
  if (features_.any()) {
    if (features_.memory == 0) note_lacking("no memory controller is left to this worker's cgroup");
  } else {
    note_lacking("no cgroup file system is mounted");
  }
}

void Containment::note_lacking(const std::string& why) {
  if (lacking_.empty()) lacking_ = why;
}

// Makes the directory of the groups, and tries whether a process can be put into one.
bool Containment::open_place(Place& place, const std::string& parent) {
  end_leftovers(parent);
  place.directory = parent + "/" + name_;
  const int made = host_.make_directory(place.directory);
  if (made != 0 && made != -EEXIST) {
    note_lacking("no cgroup may be made in " + parent + " (" + strerror(-made) + ")");
    return false;
  }
  if (place.version == 2) {
    enable_controllers(parent, '+');
    enable_controllers(place.directory, '+');
  }
  const std::string trial = place.directory + "/trial";
  const int trial_made = host_.make_directory(trial);
  const bool entered =
      (trial_made == 0 || trial_made == -EEXIST) &&
      (place.version == 2 ? host_.can_enter(trial, "") : host_.can_enter("", trial + "/tasks"));
  if (entered) {
    const auto has = [&](const char* file) { return host_.exists(trial + "/" + file); };
    const bool two = place.version == 2;
    place.memory = has(two ? "memory.max" : "memory.limit_in_bytes");
    place.cpu = has(two ? "cpu.max" : "cpu.cfs_quota_us");
    place.processes = has("pids.max");
    place.freeze = has(two ? "cgroup.freeze" : "freezer.state");
    place.kill = has("cgroup.kill");
    place.usage = has(two ? "cpu.stat" : "cpuacct.usage");
  } else {
    note_lacking("no process may be put into a cgroup below " + parent);
  }
  host_.remove_directory(trial);
  return entered;
}

void Containment::set_up_version2(const Hierarchy& hierarchy) {
  Place place;
  place.version = 2;
  const bool leaf = is_supervisor(hierarchy.directory) &&
                    host_.exists(parent_of(hierarchy.directory) + "/cgroup.subtree_control");
  version2_parent_ = leaf ? parent_of(hierarchy.directory) : hierarchy.directory;
  if (!open_place(place, version2_parent_)) {
    host_.remove_directory(place.directory);
    return;
  }
  features_.memory = place.memory ? 2 : 0;
  features_.cpu = place.cpu ? 2 : 0;
  features_.processes = place.processes ? 2 : 0;
  features_.freeze = place.freeze ? 2 : 0;
  features_.kill = place.kill ? 2 : 0;
  places_.push_back(place);
}

// What version 2 does not do.
void Containment::set_up_version1(const Hierarchy& hierarchy) {
  const bool wanted = (features_.memory == 0 && hierarchy.has("memory")) ||
                      (features_.cpu == 0 && hierarchy.has("cpu")) ||
                      (features_.processes == 0 && hierarchy.has("pids")) ||
                      (features_.freeze == 0 && hierarchy.has("freezer"));
  if (!wanted) return;
  Place place;
  place.version = 1;
  if (!open_place(place, hierarchy.directory)) {
    host_.remove_directory(place.directory);
    return;
  }
  const auto use = [](bool& has, int& by) {
    has = has && by == 0;
    if (has) by = 1;
  };
  use(place.memory, features_.memory);
  use(place.cpu, features_.cpu);
  use(place.processes, features_.processes);
  use(place.freeze, features_.freeze);
  if (place.cpu) write_weight(place);
  place.kill = false;
  place.usage = place.usage && (places_.empty() || places_.front().version == 1);
  places_.push_back(place);
}

// One by one: what is not there must not keep the others away. Where processes are in `directory`
// itself the kernel refuses.
void Containment::enable_controllers(const std::string& directory, char sign) {
  for (const char* controller : kControllers) {
    host_.write(directory + "/cgroup.subtree_control", std::string(1, sign) + controller);
  }
}

// ---- what others have left ----------------------------------------------------------------------

void Containment::end_leftovers(const std::string& parent) {
  const uint64_t own_namespace = host_.self().pid_namespace;
  for (const std::string& entry : host_.directories_in(parent)) {
    const std::optional<Host::Process> owner = parse_name(entry);
    // Of another namespace's processes nothing can be known here.
    if (!owner || owner->pid_namespace != own_namespace || host_.is_alive(*owner)) continue;
    remove_below(parent + "/" + entry);
  }
}

void Containment::remove_below(const std::string& directory) {
  for (const std::string& entry : host_.directories_in(directory)) {
    remove_below(directory + "/" + entry);
  }
  end_processes(directory);
  host_.remove_directory(directory);
}

void Containment::end_processes(const std::string& directory) {
  std::string procs;
  for (int i = 0; i < kEndTries; ++i) {
    if (host_.read(directory + "/cgroup.procs", procs) != 0 || procs.empty()) return;
    if (host_.write(directory + "/cgroup.kill", "1") != 0) {
      // Frozen, so that none is made meanwhile; thawed, as it does not die before.
      host_.write(directory + "/freezer.state", "FROZEN");
      host_.read(directory + "/cgroup.procs", procs);
      for (size_t at = 0; at < procs.size(); at = procs.find('\n', at) + 1) {
        const int64_t pid = ::strtoll(procs.c_str() + at, nullptr, 10);
        if (pid > 0) host_.kill(pid);
        if (procs.find('\n', at) == procs.npos) break;
      }
      host_.write(directory + "/freezer.state", "THAWED");
    }
    host_.pause();
  }
}

// ---- groups
// --------------------------------------------------------------------------------------

Group* Containment::take(const Limits& limits) {
  if (places_.empty()) return nullptr;
  std::unique_ptr<Group> group;
  if (!free_.empty()) {
    group = std::move(free_.back());
    free_.pop_back();
  } else {
    group = std::make_unique<Group>(host_, places_, std::to_string(made_++));
    if (!group->make()) return nullptr;
  }
  if (limits.idle != idle_) write_idle(limits.idle);
  group->begin(limits);
  if (relaxed_) group->lose_limits();
  taken_.push_back(std::move(group));
  return taken_.back().get();
}

// In version 1 ranks may be beside processes that are in no group: each counts as one of those, not
// all of them as one.
void Containment::write_weight(const Place& place) {
  constexpr unsigned kSharesOfOne = 1024;
  if (place.version != 1) return;
  host_.write(place.directory + "/cpu.shares", std::to_string(kSharesOfOne * host_.cpus()));
}

// Towards those outside all ranks together are one group.
void Containment::write_idle(bool idle) {
  idle_ = idle;
  for (const Place& place : places_) {
    if (!place.cpu) continue;
    host_.write(place.directory + "/cpu.idle", idle ? "1" : "0");
    if (!idle) write_weight(place);
  }
}

void Containment::give_back(Group* group, bool reuse) {
  const auto found = std::find_if(taken_.begin(), taken_.end(),
                                  [group](const auto& taken) { return taken.get() == group; });
  if (found == taken_.end()) return;
  std::unique_ptr<Group> owned = std::move(*found);
  taken_.erase(found);
  if (reuse && !relaxed_ && free_.size() < kGroupsKept && owned->is_clean()) {
    free_.push_back(std::move(owned));
    return;
  }
  if (!doomed_.empty()) retry_removals();
  if (!owned->remove()) doomed_.push_back(std::move(owned));
}

void Containment::retry_removals() {
  std::erase_if(doomed_, [](auto& group) { return group->remove(); });
}

void Containment::relax() {
  const bool limits = features_.memory == 2 || features_.cpu == 2 || features_.processes == 2;
  if (relaxed_ || !limits) return;
  relaxed_ = true;
  enable_controllers(places_.front().directory, '-');
  enable_controllers(version2_parent_, '-');
  for (auto* groups : {&taken_, &free_}) {
    for (auto& group : *groups) group->lose_limits();
  }
}

void Containment::tighten() {
  if (!relaxed_) return;
  relaxed_ = false;
  enable_controllers(version2_parent_, '+');
  enable_controllers(places_.front().directory, '+');
  if (idle_) write_idle(true);
  for (auto& group : taken_) group->renew();
}

std::string Containment::description() const {
  return how("memory", features_.memory) + " " + how("cpu", features_.cpu) + " " +
         how("processes", features_.processes) + " " + how("freeze", features_.freeze) + " " +
         how("kill", features_.kill);
}

// ---- the daemon's own place
// ----------------------------------------------------------------------

bool enter_supervisor(Mode mode, Host& host) {
  if (mode == Mode::none || mode == Mode::cgroup1) return false;
  std::string own, mounts, procs;
  host.read("/proc/self/cgroup", own);
  host.read("/proc/self/mountinfo", mounts);
  for (const Hierarchy& hierarchy : hierarchies(own, mounts)) {
    const std::string& directory = hierarchy.directory;
    if (hierarchy.version != 2 || is_supervisor(directory)) continue;
    // The root of all has no type, and may have both.
    if (!host.exists(directory + "/cgroup.type")) return false;
    host.read(directory + "/cgroup.procs", procs);
    if (procs != std::to_string(host.self().pid) + "\n") return false;
    const std::string leaf = directory + "/" + kSupervisor;
    const int made = host.make_directory(leaf);
    if (made != 0 && made != -EEXIST) return false;
    return host.write(leaf + "/cgroup.procs", "0") == 0;
  }
  return false;
}

}  // namespace pesc::containment
