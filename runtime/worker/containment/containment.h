// Cgroups for the attempts of one keeper: what can be had here, and who has which.
//
// All of them are below this process's own cgroup, in one directory per hierarchy that is named
// after this process; what an earlier one left there that is no more is ended and removed. Nothing
// else is ever made, moved or changed. Not thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/worker/containment/group.h"
#include "runtime/worker/containment/hierarchies.h"
#include "runtime/worker/containment/host.h"
#include "runtime/worker/containment/mode.h"

namespace pesc::containment {

// The leaf into which a daemon that has been given a cgroup of its own goes, so that attempts can
// be beside it: a version 2 cgroup has either processes or limits for those below it.
inline constexpr const char* kSupervisor = "supervisor";

// Which version of cgroups does it; 0: none, the keeper does it by other means.
struct Features {
  int memory = 0, cpu = 0, processes = 0, freeze = 0, kill = 0;
  bool any() const { return memory + cpu + processes + freeze + kill > 0; }
};

class Containment {
 public:
  explicit Containment(Mode mode, Host& host = real_host());
  ~Containment();
  Containment(const Containment&) = delete;
  Containment& operator=(const Containment&) = delete;

  const Features& features() const { return features_; }
  Mode mode() const { return mode_; }
  // "memory=cgroup1 cpu=cgroup1 processes=cgroup1 freeze=cgroup2 kill=cgroup2"
  std::string description() const;
  // Why something is missing, one line; empty: nothing is.
  const std::string& lacking() const { return lacking_; }

  // A group with these limits; null: none can be had. It stays until it is given back.
  Group* take(const Limits& limits);
  // `reuse`: its processes are gone, and it was in use for a short time only. Directories of
  // cgroups cost more to make than a short program costs to run.
  void give_back(Group* group, bool reuse);

  // A service manager puts a daemon that it starts anew into the daemon's own cgroup, which must
  // not limit others at that moment: without a worker the limits of version 2 are given up, and are
  // back with the next.
  void relax();
  void tighten();

 private:
  void set_up(const std::string& own, const std::string& mounts);
  void set_up_version2(const Hierarchy& hierarchy);
  void set_up_version1(const Hierarchy& hierarchy);
  bool open_place(Place& place, const std::string& parent);
  void enable_controllers(const std::string& directory, char sign);
  void end_leftovers(const std::string& parent);
  void end_processes(const std::string& directory);
  void remove_below(const std::string& directory);
  void note_lacking(const std::string& why);
  void retry_removals();
  void write_idle(bool idle);
  void write_weight(const Place& place);

  const Mode mode_;
  Host& host_;
  std::string name_;
  Features features_;
  std::string lacking_;
  std::vector<Place> places_;
  std::string version2_parent_;
  bool relaxed_ = false, idle_ = false;
  std::vector<std::unique_ptr<Group>> taken_, free_, doomed_;
  uint64_t made_ = 0;
};

// For a daemon at its start, before it has threads or children: into the leaf, when it is alone in
// a cgroup that it may divide. True when it has moved (rather than found itself there already).
bool enter_supervisor(Mode mode, Host& host = real_host());

}  // namespace pesc::containment
