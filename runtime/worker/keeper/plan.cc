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

void OwnedPlan::enter(const containment::Group* group) {
  if (group == nullptr) return;
  const auto file = [&](const std::string& path) -> const char* {
    return path.empty() ? nullptr : put(path.data(), path.size());
  };
  plan.cgroup = file(group->version2());
  if (plan.cgroup != nullptr) plan.cgroup_procs = file(group->version2() + "/cgroup.procs");
  plan.cgroup_kill = file(group->kill_file());
  plan.cgroup_freeze = file(group->freeze_file());
  plan.freezer_state = file(group->freezer_state());
  for (const std::string& tasks : group->tasks()) tasks_.push_back(file(tasks));
  tasks_.push_back(nullptr);
  plan.tasks = tasks_.data();
}

void OwnedPlan::bind_to(const std::vector<int>& cores) {
  constexpr size_t kBits = 8 * sizeof(unsigned long);
  for (int core : cores) {
    const auto number = static_cast<size_t>(core);
    if (number / kBits >= cores_.size()) cores_.resize(number / kBits + 1);
    cores_[number / kBits] |= 1ul << (number % kBits);
  }
  if (cores_.empty()) return;
  plan.cores = cores_.data();
  plan.cores_bytes = static_cast<long>(cores_.size() * sizeof(unsigned long));
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
  fill_binds(start);
  return {};
}

}  // namespace pesc::keeper
