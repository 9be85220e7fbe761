#include "script.h"

#include <dirent.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace fake_nvml {
namespace {

void describe(Gpu& gpu, const std::string& word) {
  const size_t equals = word.find('=');
  const std::string key = word.substr(0, equals);
  const std::string value = equals == word.npos ? "" : word.substr(equals + 1);
  if (key == "memory") gpu.memory = parse_size(value).value_or(0);
  if (key == "reserved") gpu.reserved = parse_size(value).value_or(0);
  if (key == "used") gpu.used = parse_size(value).value_or(0);
  if (key == "ecc") gpu.ecc = std::strtoull(value.c_str(), nullptr, 10);
  if (key == "temperature") gpu.temperature = static_cast<unsigned>(std::atoi(value.c_str()));
  if (key == "utilization") gpu.utilization = static_cast<unsigned>(std::atoi(value.c_str()));
  if (key == "pids") gpu.pid_offset = std::atoll(value.c_str());
  if (key == "reports") gpu.reports = value;
  if (key == "mode") gpu.mode = value;
  if (key == "parent") gpu.parent = value;
  if (key == "lost") gpu.lost = true;
  if (key == "capability") {
    gpu.major = std::atoi(value.c_str());
    const size_t dot = value.find('.');
    gpu.minor = dot == value.npos ? 0 : std::atoi(value.c_str() + dot + 1);
  }
  if (key == "name") {
    gpu.name = value;
    for (char& c : gpu.name) {
      if (c == '_') c = ' ';
    }
  }
}

Gpu* find_mutable(Script& script, const std::string& uuid) {
  for (Gpu& gpu : script.gpus) {
    if (gpu.uuid == uuid) return &gpu;
  }
  script.error = "no GPU " + uuid;
  return nullptr;
}

void add_process(Script& script, std::istringstream& words) {
  std::string uuid, word;
  words >> uuid;
  Gpu* gpu = find_mutable(script, uuid);
  if (gpu == nullptr) return;
  Process process;
  while (words >> word) {
    if (word.rfind("pid=", 0) == 0) process.pid = static_cast<uint32_t>(std::stoul(word.substr(4)));
    if (word.rfind("bytes=", 0) == 0) process.bytes = parse_size(word.substr(6)).value_or(0);
    if (word == "graphics") process.graphics = true;
  }
  gpu->processes.push_back(process);
}

void read_line(Script& script, const std::string& line) {
  std::istringstream words(line);
  std::string verb, word;
  if (!(words >> verb) || verb[0] == '#') return;
  if (verb == "driver") {
    words >> script.driver;
  } else if (verb == "gpu" || verb == "mig") {
    Gpu gpu;
    words >> gpu.uuid;
    while (words >> word) describe(gpu, word);
    script.gpus.push_back(std::move(gpu));
  } else if (verb == "process") {
    add_process(script, words);
  } else if (verb == "xid") {
    uint64_t number = 0;
    words >> word >> number;
    if (Gpu* gpu = find_mutable(script, word)) gpu->xids.push_back(number);
  } else if (verb == "fail") {
    Failure failure;
    words >> failure.call >> failure.code >> failure.uuid;
    script.failures.push_back(failure);
  } else if (verb == "hang") {
    std::string fifo;
    words >> word >> fifo;
    script.hangs[word] = fifo;
  } else if (verb == "down") {
    int code = 9;
    words >> code;
    script.down = code;
  } else if (verb == "count") {
    unsigned count = 0;
    words >> count;
    script.count = count;
  } else if (verb == "entry_bytes") {
    words >> script.entry_bytes;
  } else if (verb == "directory") {
    words >> script.directory;
  } else {
    script.error = "unknown: " + line;
  }
}

}  // namespace

const Gpu* Script::find(const std::string& uuid) const {
  for (const Gpu& gpu : gpus) {
    if (gpu.uuid == uuid) return &gpu;
  }
  return nullptr;
}

std::vector<const Gpu*> Script::wholes() const {
  std::vector<const Gpu*> wholes;
  for (const Gpu& gpu : gpus) {
    if (gpu.parent.empty()) wholes.push_back(&gpu);
  }
  return wholes;
}

std::vector<const Gpu*> Script::parts_of(const std::string& uuid) const {
  std::vector<const Gpu*> parts;
  for (const Gpu& gpu : gpus) {
    if (gpu.parent == uuid) parts.push_back(&gpu);
  }
  return parts;
}

std::optional<uint64_t> parse_size(const std::string& text) {
  char* end = nullptr;
  const uint64_t number = std::strtoull(text.c_str(), &end, 10);
  if (end == text.c_str()) return std::nullopt;
  const std::string unit = end;
  const int shift = unit.empty() || unit == "B" ? 0
                    : unit[0] == 'K'            ? 10
                    : unit[0] == 'M'            ? 20
                    : unit[0] == 'G'            ? 30
                    : unit[0] == 'T'            ? 40
                                                : -1;
  if (shift < 0) return std::nullopt;
  return number << shift;
}

Script read_script(const std::string& path) {
  Script script;
  script.directory = path + ".d";
  std::ifstream file(path);
  if (!file) script.down = 9;  // no file: no driver loaded
  std::string line;
  while (std::getline(file, line)) read_line(script, line);
  return script;
}

uint64_t start_time(uint32_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return 0;
  const size_t name_end = line.rfind(')');
  if (name_end == line.npos) return 0;
  std::istringstream words(line.substr(name_end + 1));
  std::string word, state;
  words >> state;
  if (state == "Z" || state == "X") return 0;
  for (int i = 0; i < 18; ++i) words >> word;
  uint64_t ticks = 0;
  words >> ticks;
  return ticks + 1;  // never 0
}

std::vector<Process> running_programs(const Script& script, const std::string& uuid) {
  std::vector<Process> processes;
  const std::string path = script.directory + "/" + uuid;
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) return processes;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = entry->d_name;
    if (name.empty() || name.find_first_not_of("0123456789") != name.npos) continue;
    std::ifstream file(path + "/" + name);
    Process process;
    uint64_t started = 0;
    if (!(file >> process.bytes >> started)) continue;
    process.pid = static_cast<uint32_t>(std::stoul(name));
    if (start_time(process.pid) == started) processes.push_back(process);
  }
  ::closedir(directory);
  return processes;
}

uint64_t sum_of(const std::vector<Process>& processes) {
  uint64_t sum = 0;
  for (const Process& process : processes) sum += process.bytes;
  return sum;
}

}  // namespace fake_nvml
