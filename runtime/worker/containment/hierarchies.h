// Which cgroup hierarchies there are, and where in them this process is.
#pragma once

#include <string>
#include <vector>

namespace pesc::containment {

struct Hierarchy {
  int version = 2;
  std::vector<std::string> controllers;  // of version 1
  std::string directory;                 // this process's own, as it is seen here

  bool has(const std::string& controller) const;
};

// From the texts of /proc/self/cgroup and /proc/self/mountinfo. A hierarchy whose mount does not
// show this process's own directory (in some containers) is left out.
std::vector<Hierarchy> hierarchies(const std::string& own_cgroups, const std::string& mounts);

}  // namespace pesc::containment
