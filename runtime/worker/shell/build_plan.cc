#include "runtime/worker/shell/build_plan.h"

#include <gnu/libc-version.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <map>
#include <set>

#include "runtime/worker/shell/packing.h"

namespace pesc::worker {
namespace {

constexpr std::string_view kCudaDirectory = "/usr/local/cuda/bin";
constexpr const char* kUsualTools[] = {"sh",    "cc",      "gcc",  "c++",     "g++",
                                       "clang", "clang++", "nvcc", "make",    "cmake",
                                       "ninja", "ld",      "as",   "gfortran"};
constexpr size_t kMaxWords = 200;
constexpr size_t kLines = 3, kLinesBytes = 600;

std::string path_in(const JobSpec& spec) {
  for (const auto& [name, value] : spec.environment) {
    if (name == "PATH") return value;
  }
  return "";
}

bool is_directory(std::string_view path) {
  struct stat info {};
  return ::stat(std::string(path).c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// "path size time": another compiler under the same name is another one. Empty: there is none.
std::string print_of(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode) || (info.st_mode & 0111) == 0) {
    return "";
  }
  char real[PATH_MAX];
  const char* resolved = ::realpath(path.c_str(), real);
  return std::string(resolved != nullptr ? resolved : path.c_str()) + " " +
         std::to_string(info.st_size) + " " + std::to_string(info.st_mtim.tv_sec) + "." +
         std::to_string(info.st_mtim.tv_nsec);
}

std::string find_tool(const std::string& name, const std::string& search_path) {
  if (name.find('/') != std::string::npos) return name.front() == '/' ? print_of(name) : "";
  for (size_t begin = 0; begin <= search_path.size();) {
    const size_t end = std::min(search_path.find(':', begin), search_path.size());
    if (end > begin) {
      std::string print = print_of(search_path.substr(begin, end - begin) + "/" + name);
      if (!print.empty()) return print;
    }
    begin = end + 1;
  }
  return "";
}

std::set<std::string> words_of(std::string_view command) {
  std::set<std::string> words;
  while (!command.empty() && words.size() < kMaxWords) {
    const size_t end = std::min(command.find_first_of(" \t\r\n;|&()<>`\"'$={}"), command.size());
    const std::string_view word = command.substr(0, end);
    if (!word.empty() && word.front() != '-' && word.size() < NAME_MAX) words.emplace(word);
    command.remove_prefix(std::min(end + 1, command.size()));
  }
  return words;
}

// With its length, so that no two lists look alike.
void add(std::string& text, std::string_view part) {
  text += std::to_string(part.size()) + ":";
  text += part;
}

}  // namespace

std::string build_search_path(const JobSpec& spec, const BaseEnvironment& base) {
  if (std::string path = path_in(spec); !path.empty()) return path;
  std::string path = base.path.empty() ? "/usr/local/bin:/usr/bin:/bin" : base.path;
  const bool has_it = (":" + path + ":").find(":" + std::string(kCudaDirectory) + ":") != path.npos;
  if (!has_it && is_directory(kCudaDirectory)) path += ":" + std::string(kCudaDirectory);
  return path;
}

std::string toolchain_print(std::string_view command, const std::string& search_path) {
  std::string text;
  utsname system{};
  if (::uname(&system) == 0) text += std::string(system.machine) + " ";
  text += std::string("libc ") + ::gnu_get_libc_version() + "\n";
  std::set<std::string> names = words_of(command);
  names.insert(std::begin(kUsualTools), std::end(kUsualTools));
  for (const std::string& name : names) {
    const std::string print = find_tool(name, search_path);
    if (!print.empty()) text += name + " " + print + "\n";
  }
  return text;
}

Digest build_key(const JobSpec& spec, std::string_view toolchain, ComputeCapability capability) {
  std::vector<const FileRef*> files;
  for (const FileRef& file : spec.files) files.push_back(&file);
  std::sort(files.begin(), files.end(), [](const FileRef* a, const FileRef* b) { return *a < *b; });
  std::string text;
  add(text, "pesc build 1");
  add(text, spec.build);
  add(text, toolchain);
  add(text, std::to_string(capability));
  for (const auto& [name, value] : spec.environment) {
    add(text, name);
    add(text, value);
  }
  for (const FileRef* file : files) {
    add(text, file->path);
    add(text, std::to_string(static_cast<int>(file->kind)) + " " + std::to_string(file->mode) +
                  " " + to_hex(file->blob.digest));
  }
  return sha256(text);
}

// Both streams are one log, in the order in which they were written.
std::vector<std::string> build_argv(const JobSpec& spec) {
  return {"/bin/sh", "-c", "exec 2>&1; eval \"$1\"", "build", spec.build};
}

std::vector<std::string> build_environment(const JobSpec& spec, const BaseEnvironment& base,
                                           const AttemptPaths& paths, ComputeCapability capability,
                                           const std::vector<std::string>& gpus) {
  std::map<std::string, std::string> variables;
  if (!base.home.empty()) variables["HOME"] = base.home;
  if (!base.lang.empty()) variables["LANG"] = base.lang;
  variables["TMPDIR"] = paths.temporary;
  variables["PYTHONUNBUFFERED"] = "1";
  for (const auto& [name, value] : spec.environment) variables[name] = value;
  variables["PATH"] = build_search_path(spec, base);
  variables["PESC_APP_DIR"] = paths.app;
  // As compilers name it: 86, 120.
  variables["PESC_COMPUTE_CAPABILITY"] =
      capability == 0 ? "" : std::to_string(capability / 100) + std::to_string(capability % 100);
  for (const std::string& variable : gpus) {
    const size_t equals = variable.find('=');
    variables[variable.substr(0, equals)] = variable.substr(equals + 1);
  }
  std::vector<std::string> environment;
  environment.reserve(variables.size());
  for (const auto& [name, value] : variables) environment.push_back(name + "=" + value);
  return environment;
}

std::string last_lines(std::string_view log) {
  std::string text;
  for (size_t found = 0; found < kLines && !log.empty();) {
    const size_t newline = log.rfind('\n');
    const std::string line =
        last_line(newline == std::string_view::npos ? log : log.substr(newline + 1));
    log = newline == std::string_view::npos ? std::string_view() : log.substr(0, newline);
    if (line.empty()) continue;
    if (text.size() + line.size() + 3 > kLinesBytes) break;
    text = text.empty() ? line : line + " | " + text;
    ++found;
  }
  return text;
}

}  // namespace pesc::worker
