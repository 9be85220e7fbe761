// A machine with cgroup file systems, as far as the kernel's rules for them matter here.
#pragma once

#include <errno.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/worker/containment/host.h"

namespace pesc::containment {

class FakeHost final : public Host {
 public:
  // ---- what a test says of the machine
  std::string own_cgroups, mounts;
  Process process{77, 100, 5000};
  std::set<uint64_t> alive{100};
  std::set<std::string> refused;  // directories in which none may be made
  bool may_enter = true;

  // A hierarchy's directory with what the kernel shows in it.
  void add_version2(const std::string& directory, const std::string& controllers, bool root,
                    const std::string& procs = "") {
    show_version2(directory, controllers, root);
    files_[directory + "/cgroup.procs"] = procs;
  }
  void add_version1(const std::string& directory, const std::string& controller) {
    version1_[directory] = controller;
    show_version1(directory, controller);
  }

  // ---- what a test asks
  bool has(const std::string& directory) const { return directories_.contains(directory); }
  std::string text(const std::string& path) const {
    const auto found = files_.find(path);
    return found == files_.end() ? "(none)" : found->second;
  }
  void set(const std::string& path, const std::string& text) { files_[path] = text; }
  std::vector<std::pair<std::string, std::string>> written;
  std::vector<std::string> made;
  std::vector<int64_t> killed;

  // ---- Host
  int make_directory(const std::string& path) override {
    const std::string parent = path.substr(0, path.rfind('/'));
    if (!directories_.contains(parent)) return -ENOENT;
    if (refused.contains(parent)) return -EACCES;
    if (directories_.contains(path)) return -EEXIST;
    made.push_back(path);
    if (const auto one = version1_.find(parent); one != version1_.end()) {
      const std::string controller = one->second;
      version1_[path] = controller;
      show_version1(path, controller);
    } else {
      show_version2(path, text(parent + "/cgroup.subtree_control"), false);
    }
    return 0;
  }
  int remove_directory(const std::string& path) override {
    if (!directories_.contains(path)) return -ENOENT;
    if (!text(path + "/cgroup.procs").empty() || !directories_in(path).empty()) return -EBUSY;
    directories_.erase(path);
    version1_.erase(path);
    std::erase_if(files_, [&](const auto& file) { return file.first.starts_with(path + "/"); });
    return 0;
  }
  int write(const std::string& path, const std::string& text) override {
    const auto file = files_.find(path);
    if (file == files_.end()) return -ENOENT;
    written.emplace_back(path, text);
    const std::string directory = path.substr(0, path.rfind('/'));
    const std::string name = path.substr(path.rfind('/') + 1);
    if (name == "cgroup.subtree_control") return control(directory, text);
    if (name == "cgroup.kill") files_[directory + "/cgroup.procs"] = "";
    const auto number = [&](const char* other) {
      const std::string value = this->text(directory + "/" + other);
      return value == "-1" ? UINT64_MAX : number_in(value, "");
    };
    const uint64_t value = text == "-1" ? UINT64_MAX : number_in(text, "");
    // Memory alone never above memory with swap.
    if (name == "memory.limit_in_bytes" && value > number("memory.memsw.limit_in_bytes")) {
      return -EINVAL;
    }
    if (name == "memory.memsw.limit_in_bytes" && value < number("memory.limit_in_bytes")) {
      return -EINVAL;
    }
    file->second = name == "cgroup.procs" ? std::to_string(process.pid) + "\n" : text;
    return 0;
  }
  int read(const std::string& path, std::string& text) override {
    if (path == "/proc/self/cgroup") return text = own_cgroups, 0;
    if (path == "/proc/self/mountinfo") return text = mounts, 0;
    const auto file = files_.find(path);
    if (file == files_.end()) return -ENOENT;
    text = file->second;
    return 0;
  }
  bool exists(const std::string& path) override {
    return files_.contains(path) || directories_.contains(path);
  }
  std::vector<std::string> directories_in(const std::string& path) override {
    std::vector<std::string> result;
    for (const std::string& directory : directories_) {
      if (directory.starts_with(path + "/") &&
          directory.find('/', path.size() + 1) == directory.npos) {
        result.push_back(directory.substr(path.size() + 1));
      }
    }
    return result;
  }
  void pause() override {}
  void kill(int64_t pid) override {
    killed.push_back(pid);
    // Version 1's frozen ones die when they are thawed, which is soon enough here.
    for (auto& [path, text] : files_) {
      if (path.ends_with("/cgroup.procs") && text == std::to_string(pid) + "\n") text.clear();
    }
  }
  Process self() override { return process; }
  bool is_alive(const Process& other) override { return alive.contains(other.pid); }
  unsigned cpus() override { return 4; }
  bool can_enter(const std::string&, const std::string&) override { return may_enter; }

 private:
  void show_version2(const std::string& directory, const std::string& controllers, bool root) {
    directories_.insert(directory);
    for (const char* name : {"cgroup.procs", "cgroup.subtree_control", "cpu.stat"}) {
      files_[directory + "/" + name] = "";
    }
    files_[directory + "/cgroup.controllers"] = controllers;
    if (root) return;
    for (const char* name : {"cgroup.type", "cgroup.freeze", "cgroup.kill"}) {
      files_[directory + "/" + name] = "";
    }
    show_controllers(directory, controllers, true);
  }
  void show_controllers(const std::string& directory, const std::string& controllers, bool show) {
    const std::map<std::string, std::vector<const char*>> names = {
        {"memory",
         {"memory.max", "memory.swap.max", "memory.oom.group", "memory.events", "memory.peak",
          "memory.stat", "memory.current"}},
        {"cpu", {"cpu.max", "cpu.idle", "cpu.weight"}},
        {"pids", {"pids.max"}}};
    for (const auto& [controller, files] : names) {
      if (controllers.find(controller) == controllers.npos) continue;
      for (const char* name : files) {
        if (show) files_.try_emplace(directory + "/" + name, "");
        if (!show) files_.erase(directory + "/" + name);
      }
    }
  }
  void show_version1(const std::string& directory, const std::string& controller) {
    directories_.insert(directory);
    const auto show = [&](const char* name, const char* text) {
      files_[directory + "/" + name] = text;
    };
    show("cgroup.procs", "");
    show("tasks", "");
    if (controller == "memory") {
      show("memory.limit_in_bytes", "-1");
      show("memory.memsw.limit_in_bytes", "-1");
      show("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
      show("memory.max_usage_in_bytes", "0");
      show("memory.usage_in_bytes", "0");
      show("memory.stat", "");
    }
    if (controller == "cpu") show("cpu.cfs_quota_us", "-1");
    if (controller == "cpu") show("cpu.idle", "0");
    if (controller == "cpu") show("cpu.shares", "1024");
    if (controller == "pids") show("pids.max", "max");
    if (controller == "freezer") show("freezer.state", "THAWED");
  }
  int control(const std::string& directory, const std::string& order) {
    const std::string controller = order.substr(1);
    std::string& enabled = files_[directory + "/cgroup.subtree_control"];
    if (order[0] == '+') {
      if (text(directory + "/cgroup.controllers").find(controller) == std::string::npos) {
        return -ENOENT;
      }
      const bool root = !files_.contains(directory + "/cgroup.type");
      if (!root && !text(directory + "/cgroup.procs").empty()) return -EBUSY;
      if (enabled.find(controller) == std::string::npos) enabled += controller + " ";
    } else {
      for (const std::string& child : directories_in(directory)) {
        const std::string below = text(directory + "/" + child + "/cgroup.subtree_control");
        if (below.find(controller) != below.npos) return -EBUSY;
      }
      const size_t at = enabled.find(controller + " ");
      if (at != enabled.npos) enabled.erase(at, controller.size() + 1);
    }
    for (const std::string& child : directories_in(directory)) {
      files_[directory + "/" + child + "/cgroup.controllers"] = enabled;
      show_controllers(directory + "/" + child, controller, order[0] == '+');
    }
    return 0;
  }

  std::set<std::string> directories_;
  std::map<std::string, std::string> files_, version1_;
};

}  // namespace pesc::containment
