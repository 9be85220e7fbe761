#include "runtime/worker/shell/identity.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "model/job_spec.h"
#include "runtime/common/state_dir.h"

namespace pesc::worker {
namespace {

std::string first_line(const std::filesystem::path& path) {
  absl::StatusOr<std::string> text = common::read_small_file(path, 4096);
  if (!text.ok()) return "";
  return text->substr(0, text->find('\n'));
}

std::optional<uint64_t> parse_hex64(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size() || text.size() != 16) return {};
  return value;
}

absl::StatusOr<WorkerIdentity> create(const std::filesystem::path& file, const Machine& machine,
                                      std::string warning) {
  uint64_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) {
    return absl::InternalError("cannot get random bytes for the worker's identity");
  }
  WorkerIdentity identity{WorkerId{bits}, std::move(warning)};
  const nlohmann::json json = {
      {"id", to_string(identity.id)}, {"machine_id", machine.id}, {"hostname", machine.hostname}};
  const std::string text = json.dump(2, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
  absl::Status written = common::write_file_atomically(file, text, 0600);
  if (!written.ok()) return written;
  return identity;
}

// A limit file of a cgroup; nothing where there is none, or no limit.
std::optional<uint64_t> read_limit(const std::filesystem::path& path) {
  const std::string text = first_line(path);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::optional<uint64_t> cgroup_memory_limit() {
  absl::StatusOr<std::string> text = common::read_small_file("/proc/self/cgroup", 16 * 1024);
  if (!text.ok()) return {};
  std::optional<uint64_t> limit;
  const auto consider = [&](const std::filesystem::path& path) {
    if (auto value = read_limit(path)) limit = std::min(limit.value_or(*value), *value);
  };
  size_t at = 0;
  while (at < text->size()) {
    size_t end = std::min(text->find('\n', at), text->size());
    std::string_view line = std::string_view(*text).substr(at, end - at);
    at = end + 1;
    const bool unified = line.substr(0, 3) == "0::";
    const size_t memory = line.find(":memory:");
    if (!unified && memory == std::string_view::npos) continue;
    std::filesystem::path below(line.substr(unified ? 3 : memory + 8));
    const std::filesystem::path root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    // A limit of any ancestor binds.
    for (below = below.relative_path();; below = below.parent_path()) {
      consider(root / below / (unified ? "memory.max" : "memory.limit_in_bytes"));
      if (below.empty()) break;
    }
  }
  return limit;
}

}  // namespace

Machine this_machine() {
  Machine machine;
  machine.id = first_line("/etc/machine-id");
  machine.boot_id = first_line("/proc/sys/kernel/random/boot_id");
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) == 0) machine.hostname = name;
  return machine;
}

absl::StatusOr<WorkerIdentity> load_or_create_worker_identity(const std::filesystem::path& dir,
                                                              const Machine& machine) {
  const std::filesystem::path file = dir / "identity.json";
  absl::StatusOr<std::string> text = common::read_small_file(file, 64 * 1024);
  if (absl::IsNotFound(text.status())) return create(file, machine, "");
  if (!text.ok()) return text.status();
  const nlohmann::json json = nlohmann::json::parse(*text, nullptr, false);
  const auto field = [&](const char* name) -> std::string {
    if (!json.is_object() || !json.contains(name) || !json[name].is_string()) return "";
    return json[name].get<std::string>();
  };
  const std::optional<uint64_t> id = parse_hex64(field("id"));
  if (!id) {
    return absl::DataLossError(file.string() +
                               " is not a worker's identity: delete it (a new one is made; ranks "
                               "that run under the old one are started again elsewhere)");
  }
  if (field("machine_id") != machine.id || field("hostname") != machine.hostname) {
    return create(file, machine,
                  "the state directory was made on " + field("hostname") +
                      " and is a copy here: this worker has a new identity");
  }
  return WorkerIdentity{WorkerId{*id}, ""};
}

uint32_t available_cpus_milli() {
  // Machines with more than 1,024 cores need a larger mask than cpu_set_t.
  for (size_t cpus = 1024; cpus <= 1024 * 1024; cpus *= 4) {
    std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpus),
                                                         [](cpu_set_t* s) { CPU_FREE(s); });
    const size_t bytes = CPU_ALLOC_SIZE(cpus);
    if (::sched_getaffinity(0, bytes, set.get()) == 0) {
      return static_cast<uint32_t>(std::max(1, CPU_COUNT_S(bytes, set.get()))) * 1000;
    }
  }
  return 1000;
}

uint64_t free_disk_bytes(const std::filesystem::path& directory) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(directory, error);
  return error ? 0 : space.available;
}

uint64_t available_memory_bytes() {
  struct sysinfo info {};
  uint64_t bytes = 0;
  if (::sysinfo(&info) == 0) bytes = static_cast<uint64_t>(info.totalram) * info.mem_unit;
  if (auto limit = cgroup_memory_limit()) bytes = bytes == 0 ? *limit : std::min(bytes, *limit);
  return bytes;
}

std::vector<std::string> promised_too_much(uint32_t cpus_milli, uint64_t memory_bytes,
                                           uint64_t disk_bytes,
                                           const std::filesystem::path& directory) {
  std::vector<std::string> texts;
  if (const uint32_t has = available_cpus_milli(); cpus_milli > has) {
    texts.push_back(fmt::format("offers {:g} cpus and has {:g}: ranks share them",
                                cpus_milli / 1000.0, has / 1000.0));
  }
  const auto bytes = [&](const char* what, uint64_t promised, uint64_t has) {
    if (has == 0 || promised <= has) return;
    texts.push_back(fmt::format("is to offer {} of {} and has {}: it offers that",
                                format_bytes(promised), what, format_bytes(has)));
  };
  bytes("memory", memory_bytes, available_memory_bytes());
  bytes("free disk", disk_bytes, free_disk_bytes(directory));
  return texts;
}

}  // namespace pesc::worker
