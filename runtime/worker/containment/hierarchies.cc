#include "runtime/worker/containment/hierarchies.h"

#include <algorithm>
#include <optional>
#include <sstream>
#include <utility>

namespace pesc::containment {
namespace {

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

// A mount's paths have blanks and such as \040.
std::string unescape(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 3 < text.size() &&
                        text.find_first_not_of("01234567", i + 1) >= i + 4;
    if (!escape) {
      result += text[i];
      continue;
    }
    result += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
    i += 3;
  }
  return result;
}

struct Mount {
  int version = 2;
  std::string root, point;
  std::vector<std::string> options;  // of the file system: the controllers are among them
};

// "31 23 0:28 ROOT POINT options [optional fields] - TYPE source FILE-SYSTEM-OPTIONS"
std::optional<Mount> parse_mount(const std::string& line) {
  const size_t dash = line.find(" - ");
  if (dash == line.npos) return std::nullopt;
  const std::vector<std::string> left = split(line.substr(0, dash), ' ');
  const std::vector<std::string> right = split(line.substr(dash + 3), ' ');
  if (left.size() < 6 || right.size() < 3) return std::nullopt;
  if (right[0] != "cgroup" && right[0] != "cgroup2") return std::nullopt;
  return Mount{right[0] == "cgroup2" ? 2 : 1, unescape(left[3]), unescape(left[4]),
               split(right[2], ',')};
}

bool contains(const std::vector<std::string>& list, const std::string& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

// Where `path`, as the hierarchy knows it, is below the mount.
std::optional<std::string> place(const Mount& mount, const std::string& path) {
  if (path.find("/..") != path.npos) return std::nullopt;  // outside of this cgroup namespace
  std::string rest = path == "/" ? "" : path;
  if (mount.root != "/") {
    const bool below = rest == mount.root || rest.rfind(mount.root + "/", 0) == 0;
    if (!below) return std::nullopt;
    rest = rest.substr(mount.root.size());
  }
  return mount.point + rest;
}

}  // namespace

bool Hierarchy::has(const std::string& controller) const {
  return contains(controllers, controller);
}

std::vector<Hierarchy> hierarchies(const std::string& own_cgroups, const std::string& mounts) {
  std::vector<Mount> mounted;
  for (const std::string& line : split(mounts, '\n')) {
    if (std::optional<Mount> mount = parse_mount(line)) mounted.push_back(*std::move(mount));
  }
  std::vector<Hierarchy> result;
  for (const std::string& line : split(own_cgroups, '\n')) {
    // "4:memory:/some/where", "0::/some/where"
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::vector<std::string> controllers =
        split(line.substr(first + 1, second - first - 1), ',');
    const int version = controllers.empty() ? 2 : 1;
    for (const Mount& mount : mounted) {
      const bool same = mount.version == version &&
                        (version == 2 || contains(mount.options, controllers.front()));
      if (!same) continue;
      if (std::optional<std::string> directory = place(mount, line.substr(second + 1))) {
        result.push_back({version, controllers, *std::move(directory)});
        break;
      }
    }
  }
  return result;
}

}  // namespace pesc::containment
