#include "runtime/worker/keeper/plan.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace pesc::keeper {
namespace {

bool has_nul(capnp::Data::Reader data) {
  return data.size() > 0 && std::memchr(data.begin(), 0, data.size()) != nullptr;
}

}  // namespace

// One block serves most ranks: an allocation per argument and variable would be most of the work.
char* OwnedPlan::put(const void* data, size_t size) {
  constexpr size_t kBlockBytes = 8 << 10;
  if (free_bytes_ < size + 1) {
    free_bytes_ = std::max(kBlockBytes, size + 1);
    blocks_.push_back(std::unique_ptr<char[]>(new char[free_bytes_]));
    free_ = blocks_.back().get();
  }
  char* text = free_;
  if (size > 0) std::memcpy(text, data, size);
  text[size] = '\0';
  free_ += size + 1;
  free_bytes_ -= size + 1;
  return text;
}

std::string OwnedPlan::fill_program(protocol::keeper::Start::Reader start) {
  for (auto argument : start.getArgv()) {
    if (has_nul(argument)) return "an argument contains a NUL byte";
    argv_.push_back(put(argument));
  }
  if (argv_.empty() || argv_.front()[0] == '\0') return "no program was named";
  for (auto variable : start.getEnvironment()) {
    if (has_nul(variable)) return "an environment variable contains a NUL byte";
    environment_.push_back(put(variable));
  }
  return {};
}

void OwnedPlan::fill_candidates() {
  std::string_view program = argv_.front();
  if (program.find('/') != program.npos) {
    candidates_.push_back(argv_.front());
  } else {
    std::string_view rest = search_path_;
    while (!rest.empty()) {
      std::string_view directory = rest.substr(0, rest.find(':'));
      rest.remove_prefix(std::min(rest.size(), directory.size() + 1));
      if (directory.empty()) continue;  // the current directory is never searched
      std::string path(directory);
      path.append("/").append(program);
      candidates_.push_back(put(path.data(), path.size()));
    }
  }
  candidates_.push_back(nullptr);
}

std::vector<std::string> OwnedPlan::candidates() const {
  std::vector<std::string> result;
  for (const char* path : candidates_) {
    if (path != nullptr) result.emplace_back(path);
  }
  return result;
}

void OwnedPlan::fill_cgroup(capnp::Data::Reader directory) {
  std::string base(reinterpret_cast<const char*>(directory.begin()), directory.size());
  auto file = [&](const char* name) {
    std::string path = base + "/" + name;
    return put(path.data(), path.size());
  };
  plan.cgroup_procs = file("cgroup.procs");
  char* freeze = file("cgroup.freeze");
  char* state = file("freezer.state");
  if (::access(freeze, F_OK) == 0) {
    plan.cgroup_freeze = freeze;
  } else if (::access(state, F_OK) == 0) {
    plan.freezer_state = state;
  }
}

void OwnedPlan::fill_binds(protocol::keeper::Start::Reader start) {
  for (auto bind : start.getReadOnlyBinds()) {
    BindMount mount{put(bind.getSource()), put(bind.getTarget()), false};
    struct stat info {};
    mount.directory = ::stat(mount.source, &info) == 0 && S_ISDIR(info.st_mode);
    binds_.push_back(mount);
  }
  plan.binds = binds_.data();
  plan.bind_count = static_cast<long>(binds_.size());
  // Another user's id cannot be mapped without privilege.
  if (binds_.empty() || plan.run_as) return;
  auto map = [&](unsigned id) {
    std::string text = std::to_string(id) + " " + std::to_string(id) + " 1";
    return put(text.data(), text.size());
  };
  plan.uid_map = map(::geteuid());
  plan.gid_map = map(::getegid());
}

std::string OwnedPlan::fill(protocol::keeper::Start::Reader start) {
  auto path = start.getSearchPath();
  search_path_.assign(reinterpret_cast<const char*>(path.begin()), path.size());
  std::string problem = fill_program(start);
  if (!problem.empty()) return problem;
  fill_candidates();
  argv_.push_back(nullptr);
  environment_.push_back(nullptr);
  plan.candidates = candidates_.data();
  plan.argv = argv_.data();
  plan.environment = environment_.data();
  plan.working_directory = put(start.getWorkingDirectory());
  plan.run_as = start.getRunAs();
  plan.uid = start.getUid();
  plan.gid = start.getGid();
  plan.idle_priority = start.getIdlePriority();
  if (start.getCgroup().size() > 0) fill_cgroup(start.getCgroup());
  fill_binds(start);
  return {};
}

}  // namespace pesc::keeper
